"""Slices of channels as torch's users write them: ``x[:, a:b]``, ``chunk``, ``split``, ``narrow``."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ..errors import ModelError

__all__ = ["slice_of", "PARTS"]

PARTS = ("chunk", "split", "tensor_split", torch.chunk, torch.split, torch.tensor_split)         # what gives several tensors
_NARROW = ("narrow", torch.narrow)

Shape = tuple[int, ...]


def slice_of(node: fx.Node, shape_of: Callable[[fx.Node], Shape]) -> tuple[fx.Node, tuple[int, ...]] | None:
    """Return the tensor that a slice reads and the channels that it takes; None for another node.

    Parameters
    ----------
    node : fx.Node
        Makes a tensor; the nodes of its bounds have ``meta["value"]``.
    shape_of : function
        Shape of a node's tensor without the batch; empty where it makes none.

    Raises
    ------
    ModelError
        It takes a part of the pixels or the batch, or channels in another order or more than once.
    """
    if node.op not in ("call_function", "call_method") or (node.target is not operator.getitem and node.target not in _NARROW):
        return None
    source, steps = node.all_input_nodes[0], [node]
    if source.target in PARTS:
        source, steps = source.all_input_nodes[0], [source, node]
    shape = shape_of(source)
    if not shape:
        return None
    places = torch.arange(torch.Size(shape).numel()).reshape(1, *shape)
    taken: Any = places
    for step in steps:
        given = step.args[1:], {key: value for key, value in step.kwargs.items() if key != "input"}
        arguments, named = fx.node.map_arg(given, lambda each: each.meta["value"])
        call = getattr(type(taken), step.target) if isinstance(step.target, str) else step.target
        taken = call(taken, *arguments, **named)
    channels = _channels(places[0], taken)
    if channels is None:
        raise ModelError(f"Node '{node.name}' takes {tuple(taken.shape[1:])} of {shape}; supported: a slice of the channels, "
                         "ascending and each once, of all pixels: x[:, a:b], or chunk, split and narrow along dim 1")
    return source, channels


def _channels(places: torch.Tensor, taken: torch.Tensor) -> tuple[int, ...] | None:
    """Return the channels taken, or None where it is anything else."""
    if taken.dim() != places.dim() + 1 or taken.shape[0] != 1 or not taken.numel():
        return None
    each = places[0].numel()
    starts = taken.reshape(taken.shape[1], -1)[:, 0]
    whole = (starts[:, None] + torch.arange(each)).reshape(len(starts), *places.shape[1:])
    if taken.shape[1:] != whole.shape or not torch.equal(taken[0], whole) or bool((starts % each).any()) \
            or bool((starts.diff() <= 0).any()):
        return None
    return tuple((starts // each).tolist())
