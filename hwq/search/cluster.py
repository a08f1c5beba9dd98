"""Workers on other machines: a Dask cluster that the user started, as an executor for `hwq.search.pool.run_jobs`."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from ..errors import EnvironmentError_, ModelError

__all__ = ["workers", "cluster"]


def _versions() -> dict[str, str]:
    """Return what must be the same everywhere for results to be."""
    return {"Python": ".".join(map(str, sys.version_info[:2]))} | {name: version(name) for name in ("hwq", "torch", "numpy")}


def _look(path: str) -> tuple[dict[str, str], str]:
    """On a worker: its versions, and what it finds in a file."""
    return _versions(), Path(path).read_text() if os.path.exists(path) else ""


@contextmanager
def workers(processes: int, address: str, folder: Path) -> Iterator[int | Executor]:
    """Yield what `hwq.search.pool.run_jobs` is to run jobs with: the cluster at an address, or with none so many processes."""
    if not address:
        yield processes
        return
    if processes > 1:
        raise ModelError(f"A cluster has as many workers as were started; {processes} processes of this machine cannot help it")
    with cluster(address, folder) as executor:
        yield executor


@contextmanager
def cluster(address: str, folder: Path) -> Iterator[Executor]:
    """Connect to a Dask scheduler and yield an executor that runs each job in one of its workers.

    Parameters
    ----------
    address : str
        ``tcp://host:8786``.
    folder : path
        Of the experiment. All workers must see it under this path.

    Raises
    ------
    EnvironmentError_
        Dask is not installed, nobody answers, there are no workers, one has several threads (torch's random state belongs to
        the process), other versions, or does not see the folder.
    """
    try:
        from distributed import Client
    except ImportError:
        raise EnvironmentError_("A cluster needs Dask, which is not installed: pip install 'hwq[cluster]'") from None
    try:
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, ValueError, ImportError) as error:
        raise EnvironmentError_(f"No Dask scheduler answers at {address!r} ({type(error).__name__}: {error}); start one with "
                                "'dask scheduler', and workers with 'dask worker ADDRESS --nthreads 1'") from None
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())
    marker = there / f".{uuid4().hex}"
    with client:
        threads = client.nthreads()
        if not threads:
            raise EnvironmentError_(f"The cluster at {address} has no workers; start some with 'dask worker "
                                    f"{address} --nthreads 1'")
        busy = [name for name, count in threads.items() if count != 1]
        if busy:
            raise EnvironmentError_(f"Worker {busy[0]} runs {threads[busy[0]]} jobs in one process, which would share torch's "
                                    "random state; start workers with --nthreads 1 (and more of them: --nworkers N)")
        try:
            marker.write_text(marker.name)
            seen = client.run(_look, str(marker))
        finally:
            marker.unlink(missing_ok=True)
        for name, (versions, text) in seen.items():
            if versions != _versions():
                raise EnvironmentError_(f"Worker {name} runs {versions}, this process {_versions()}: results would differ")
            if text != marker.name:
                raise EnvironmentError_(f"Worker {name} does not see {there}: a cluster needs a folder that all its machines share")
        yield client.get_executor(pure=False)
