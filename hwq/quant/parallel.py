"""One training in several processes: what `torchrun` starts, each with its share of every batch.

All processes hold the same weights, draw the same order of images and the same augmentation, and take the same steps.
Outside of `torchrun` there is one process, and everything here does nothing.
"""

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ..errors import EnvironmentError_, ModelError

__all__ = ["team", "rank", "size", "lead", "refuse_team", "own_part", "wrap", "total", "same_everywhere", "average_batchnorms",
           "from_lead", "random_states", "set_random_states"]


def _launched() -> int:
    """Processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def refuse_team(what: str, instead: str) -> None:
    """Raise `ModelError` under torchrun, for commands that would do everything once a process."""
    if _launched() > 1:
        raise ModelError(f"{what} is no single training, so torchrun cannot share it out; {instead}")


@contextmanager
def team(device: str) -> Iterator[str]:
    """Join the processes that torchrun started, gloo on CPUs and nccl on GPUs, and yield the device of this one.

    Raises
    ------
    EnvironmentError_
        More processes than GPUs on this machine, or the processes do not find each other.
    """
    if _launched() == 1 or dist.is_initialized():
        yield device
        return
    gpu = device.startswith("cuda")
    if gpu:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise EnvironmentError_(f"torchrun started process {local + 1} on a machine with {torch.cuda.device_count()} GPUs; "
                                    "lower --nproc-per-node, or train with --device cpu")
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    try:
        dist.init_process_group("nccl" if gpu else "gloo")
    except (RuntimeError, ValueError) as error:
        raise EnvironmentError_(f"The processes of torchrun do not find each other: {str(error).splitlines()[0]}") from None
    try:
        yield device
        # Wrapped networks lie in reference cycles and hold the group: one that is collected while the process ends, its threads
        # at work, can abort it. And no process leaves while another still talks to it.
        gc.collect()
        dist.barrier()
    finally:
        dist.destroy_process_group()


def size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this one's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def lead() -> bool:
    """Return whether this process writes files and reports."""
    return rank() == 0


def own_part(count: int) -> tuple[slice, float]:
    """Return which of ``count`` images of a batch are this process's, and the weight of their mean loss.

    The processes' weighted means average to the mean over the batch. Where there are not two images a process, all take all.
    """
    if size() == 1 or count < 2 * size():
        return slice(None), 1.0
    part = slice(rank(), None, size())
    return part, len(range(*part.indices(count))) * size() / count


def wrap(module: nn.Module, device: torch.device | str) -> nn.Module:
    """Return the module whose backward pass averages gradients over the processes; itself where there is one."""
    if size() == 1:
        return module
    # A learned scale takes part only while it learns; torch warns where all parameters do.
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True,
                                   device_ids=[device] if torch.device(device).type == "cuda" else None)


def total(value: float, device: torch.device | str) -> float:
    """Return the sum over the processes, the same everywhere."""
    if size() == 1:
        return value
    summed = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(summed)
    return float(summed)


@torch.no_grad()
def same_everywhere(model: nn.Module) -> None:
    """Give all processes the first one's weights, scales and statistics, to the bit."""
    if size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


@torch.no_grad()
def average_batchnorms(model: nn.Module) -> None:
    """Replace running statistics, which every process took of its own images, by their means; those at rest stay."""
    if size() == 1:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats:
            for statistic in (module.running_mean, module.running_var):
                if statistic is not None:
                    dist.all_reduce(statistic)
                    statistic /= size()


def from_lead(value: Any) -> Any:
    """Return the first process's value."""
    if size() == 1:
        return value
    box = [value if lead() else None]
    dist.broadcast_object_list(box, 0)
    return box[0]


def random_states(device: torch.device | str) -> list[dict[str, torch.Tensor]]:
    """Return torch's global generators of every process: dropout draws from them."""
    own = {"cpu": torch.get_rng_state()}
    if torch.device(device).type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(device)
    if size() == 1:
        return [own]
    states: list[Any] = [None] * size()
    dist.all_gather_object(states, own)
    return states


def set_random_states(states: list[dict[str, torch.Tensor]], device: torch.device | str) -> None:
    """Set this process's generators as `random_states` found them."""
    torch.set_rng_state(states[rank()]["cpu"])
    if "cuda" in states[rank()] and torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(states[rank()]["cuda"], device)
