"""Run independent jobs: one after another in this process, in several of this machine, or wherever an executor does."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from .experiment import Store
from .jobs import Job, Setting

__all__ = ["run_jobs"]


# Kept between calls: a process imports torch and reads the data once, not once a round of candidates.
_POOLS: dict[int, ProcessPoolExecutor] = {}


def _pool(processes: int) -> ProcessPoolExecutor:
    if processes not in _POOLS:
        _POOLS[processes] = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
    return _POOLS[processes]


def _work(setting: Setting, folder: Path, job: Job) -> dict[str, Any]:
    return Store(setting, folder).run(job)


def run_jobs(store: Store, jobs: Sequence[Job], processes: int | Executor = 1,
             report: Callable[[Job, dict[str, Any]], None] = lambda job, result: None) -> list[dict[str, Any]]:
    """Return the jobs' results in their order; the same results whatever ``processes`` is: their number, or an executor.

    An executor's processes must see the store's folder under the same path, and work on one job at a time (see
    `hwq.search.cluster`). Finished jobs are not run again. On an interruption what runs is given up after its last whole epoch.
    """
    results: dict[int, dict[str, Any]] = {}
    open_jobs = []
    for at, job in enumerate(jobs):
        done = store.result(job)
        if done is None:
            open_jobs.append(at)
        else:
            results[at] = done
            report(job, done)
    if isinstance(processes, int) and (processes <= 1 or len(open_jobs) <= 1):
        for at in open_jobs:
            results[at] = store.run(jobs[at])
            report(jobs[at], results[at])
        return [results[at] for at in range(len(jobs))]
    pool = processes if isinstance(processes, Executor) else _pool(processes)
    waiting = {pool.submit(_work, store.setting, store.folder.resolve(), jobs[at]): at for at in open_jobs}
    try:
        for future in as_completed(waiting):
            at = waiting[future]
            results[at] = future.result()
            report(jobs[at], results[at])
    except BaseException:
        for future in waiting:
            future.cancel()
        if isinstance(processes, int):
            _POOLS.pop(processes).shutdown(wait=False, cancel_futures=True)
        raise
    return [results[at] for at in range(len(jobs))]
