"""``torchrun``: one training in two processes, against the same in one; killed in the middle of an epoch, and resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from hwq.data import write_npz  # noqa: E402
from hwq.errors import ModelError  # noqa: E402
from hwq.quant import load_checkpoint, parallel  # noqa: E402
from hwq.quant.run import load_run, train_run  # noqa: E402

from ..kill import kill_if_asked  # noqa: E402
from .test_train import toy  # noqa: E402

ROOT = Path(__file__).parents[2]
RECIPE = """
validation = 20
calibration = 40
weights = { "0" = "dfp:b=4,rule=learned", "*" = "dfp:b=4" }
[float]
epochs = 3
batch = 15
lr = 0.02
flip = true
shift = 1
[tune]
epochs = 3
batch = 15
lr = 0.01
calibrate_until = 1
[penalty]
kind = "wqr"
strength = 0.01
"""


def network(batchnorm=False):
    kill_if_asked()
    torch.manual_seed(3)
    norm = [nn.BatchNorm2d(4)] if batchnorm else []
    return nn.Sequential(nn.Conv2d(1, 4, 3), *norm, nn.ReLU(), nn.Dropout(0.2 if batchnorm else 0.0), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(36, 2))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "toy.npz"
    write_npz(path, toy())
    return path


def train(data, folder, *words, batchnorm=False, processes=2, kill=None):
    """Run ``hwq train``, under torchrun where there are several processes."""
    (data.parent / "recipe.toml").write_text(RECIPE)
    start = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"] if processes > 1 else []
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} \
        | ({"HWQ_TEST_KILL_AT": str(kill)} if kill else {})
    return subprocess.run([sys.executable, "-m", *start, "hwq", "train",
                           f"tests.quant.test_parallel:network(batchnorm={batchnorm})", "-o", str(folder),
                           "--data", str(data), "--config", str(data.parent / "recipe.toml"), *words], cwd=ROOT, env=environment,
                          capture_output=True, text=True, timeout=300)


def _state(path):
    return load_checkpoint(path / "model.pt")


def test_two_processes_equal_one_up_to_rounding(data, tmp_path):
    """Equal: order, augmentation, rates, epochs, calibrated scales. Close: weights and losses.

    For the mean gradient is summed in another order. Without batch norm and dropout, which see a share of the batch; nets with them
    are only alike.
    """
    done = train(data, tmp_path / "two", "--json")
    assert done.returncode == 0, done.stderr
    # the first process alone speaks
    assert len(done.stdout.splitlines()) == 1 and done.stderr.count("float epoch 1:") == 1
    one = train_run("tests.quant.test_parallel:network(batchnorm=False)", toy(), RECIPE, tmp_path / "one")
    two = json.loads((tmp_path / "two" / "log.json").read_text())
    for phase in ("float", "tune"):
        for a, b in zip(one["log"][phase], two["log"][phase], strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-3) and a["epoch"] == b["epoch"]
            # one image of 20 on the edge
            assert abs(a["accuracy"] - b["accuracy"]) <= 0.05 + 1e-9
    a, b = _state(tmp_path / "one"), _state(tmp_path / "two")
    assert set(a) == set(b)
    for key, value in a.items():
        if value.is_floating_point():
            assert torch.allclose(value, b[key], atol=2e-3), key
        else:
            assert torch.equal(value, b[key]), key
    first, second = (load_checkpoint(tmp_path / name / "float.pt")["model"] for name in ("one", "two"))
    for key, value in first.items():
        assert torch.allclose(value, second[key], atol=1e-5), key
    model, run = load_run(tmp_path / "two")
    assert bool(model.frozen) and run.classes == ("top", "bottom")


def test_killed_in_the_middle_of_an_epoch_it_goes_on_to_the_same_bytes(data, tmp_path):
    whole = train(data, tmp_path / "whole", batchnorm=True)
    assert whole.returncode == 0, whole.stderr
    # 7 steps an epoch: in the fifth, of 6
    killed = train(data, tmp_path / "killed", batchnorm=True, kill=7 * 4 + 3)
    assert killed.returncode != 0 and not (tmp_path / "killed" / "model.pt").exists() and (tmp_path / "killed" / "tune.pt").exists()
    alone = train(data, tmp_path / "killed", "--resume", batchnorm=True, processes=1)
    assert alone.returncode == 1 and "was written by 2 processes, not 1" in alone.stderr
    again = train(data, tmp_path / "killed", "--resume", batchnorm=True)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "killed" / "model.pt").read_bytes() == (tmp_path / "whole" / "model.pt").read_bytes()


def test_shares_of_a_batch(monkeypatch):
    losses = torch.arange(13.0)
    for size in (1, 2, 3, 5):
        monkeypatch.setattr(parallel, "size", lambda size=size: size)
        for count in range(1, 14):
            means, seen = [], []
            for rank in range(size):
                monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
                part, share = parallel.own_part(count)
                means.append(float(losses[:count][part].mean()) * share)
                seen += losses[:count][part].tolist()
            assert sum(means) / size == pytest.approx(float(losses[:count].mean()))
            assert sorted(seen) == list(range(count)) or (count < 2 * size and sorted(seen) == sorted([*range(count)] * size))


@pytest.mark.parametrize("words", [["search", "hwq.models.fashion:network"], ["reproduce", "wess2018"]])
def test_what_is_no_single_training_is_refused(words, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from hwq.cli import app
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "x")])
    assert isinstance(done.exception, ModelError) and "--jobs" in str(done.exception) and not (tmp_path / "x").exists()
