"""A search whose trainings run in the workers of a Dask cluster, here two processes of this machine."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
distributed = pytest.importorskip("distributed")


from hwq.errors import EnvironmentError_, FormatError, ModelError  # noqa: E402
from hwq.search import Options, search  # noqa: E402
from hwq.search import cluster as module  # noqa: E402
from hwq.search.cluster import cluster, workers  # noqa: E402
from hwq.search.experiment import Store  # noqa: E402
from hwq.search.jobs import Job  # noqa: E402
from hwq.search.pool import run_jobs  # noqa: E402

from ..kill import kill_if_asked  # noqa: E402
from .test_search import RECIPE, data, network, setting  # noqa: E402, F401


@pytest.fixture(scope="module")
def local():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", scheduler_port=0) as local:
        yield local


def test_it_gives_what_one_process_gives(local, data, tmp_path):     # noqa: F811
    options = Options("fast", 5.0, start=3)
    alone = search(setting(data), RECIPE, options, tmp_path / "alone")
    with workers(1, local.scheduler_address, tmp_path / "many") as executor:
        many = search(setting(data), RECIPE, options, tmp_path / "many", processes=executor)
    assert many == alone
    assert (tmp_path / "many/result/model.pt").read_bytes() == (tmp_path / "alone/result/model.pt").read_bytes()
    with workers(3, "", tmp_path) as processes:
        assert processes == 3


def mortal():
    """The toy network; the first process that trains it dies in its second epoch."""
    if not Path(os.environ["HWQ_TEST_DIED"]).exists():
        Path(os.environ["HWQ_TEST_DIED"]).touch()
        os.environ["HWQ_TEST_KILL_AT"] = "15"
        kill_if_asked()
    return network()


def test_a_job_outlives_its_worker(data, tmp_path, monkeypatch):     # noqa: F811
    monkeypatch.setenv("HWQ_TEST_DIED", str(tmp_path / "died"))
    where = replace(setting(data), factory="tests.search.test_cluster:mortal")
    jobs = [Job(seed, RECIPE.float_phase) for seed in (0, 1)]
    with (distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", scheduler_port=0) as one,
          cluster(one.scheduler_address, tmp_path) as executor):
        results = run_jobs(Store(where, tmp_path / "jobs"), jobs, executor)
    assert (tmp_path / "died").exists()
    alone = run_jobs(Store(where, tmp_path / "alone"), jobs)
    assert [result["search"] for result in results] == [result["search"] for result in alone]


def test_an_error_of_a_worker_is_ours(local, data, tmp_path):        # noqa: F811
    store = Store(setting(data), tmp_path / "jobs")
    wrong = [Job(0, RECIPE.float_phase, base="nowhere"), Job(1, RECIPE.float_phase, base="nowhere")]
    with cluster(local.scheduler_address, tmp_path) as executor, pytest.raises(FormatError, match="holds no finished job"):
        run_jobs(store, wrong, executor)


def test_refusals(local, tmp_path, monkeypatch):
    with pytest.raises(EnvironmentError_,
                       match="No Dask scheduler answers at 'tcp://127.0.0.1:9'"), workers(1, "tcp://127.0.0.1:9", tmp_path):
        pass
    with pytest.raises(ModelError, match="as many workers as were started"), workers(2, local.scheduler_address, tmp_path):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(module, "_versions", lambda: {"hwq": "0"})
        with pytest.raises(EnvironmentError_, match="results would differ"), cluster(local.scheduler_address, tmp_path / "new"):
            pass
    assert not list(tmp_path.iterdir())
    with (distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0",
                                   scheduler_port=0) as threads,
          pytest.raises(EnvironmentError_, match="--nthreads 1"), cluster(threads.scheduler_address, tmp_path)):
        pass
    with (distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0", scheduler_port=0) as empty,
          pytest.raises(EnvironmentError_, match="has no workers"), cluster(empty.scheduler_address, tmp_path)):
        pass


def test_without_dask(tmp_path, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EnvironmentError_, match=r"hwq\[cluster\]"), cluster("tcp://127.0.0.1:9", tmp_path):
        pass
