"""Slices as torch's users write them: ``x[:, a:b]``, ``x[:, :, :-k]``, ``x[..., -1]``, ``chunk``, ``split``, ``narrow``."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..errors import ModelError
from .lines import wide

__all__ = ["Part", "slice_of", "PARTS"]

PARTS = ("chunk", "split", "tensor_split", torch.chunk, torch.split, torch.tensor_split)         # what gives several tensors
_NARROW = ("narrow", torch.narrow, "select", torch.select)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """What a slice takes.

    Attributes
    ----------
    source : fx.Node
        Makes the tensor that it reads.
    channels : tuple of int
        That it takes, of an image or a flat tensor, ascending.
    pads : (top, left, bottom, right)
        Rows and columns that it leaves out, as negative numbers.
    flat : bool
        Whether the axes of the one pixel that is left go, too.
    """

    source: fx.Node
    channels: tuple[int, ...]
    pads: tuple[int, int, int, int]
    flat: bool


def slice_of(node: fx.Node, shape_of: Callable[[fx.Node], Shape]) -> Part | None:
    """Return what a slice takes; None for another node.

    Parameters
    ----------
    node : fx.Node
        Makes a tensor; the nodes of its bounds have ``meta["value"]``.
    shape_of : function
        Shape of a node's tensor without the batch; empty where it makes none.

    Raises
    ------
    ModelError
        It takes a part of the batch, rows or columns with gaps, or anything in another order or more than once.
    """
    if node.op not in ("call_function", "call_method") or (node.target is not operator.getitem and node.target not in _NARROW):
        return None
    source, steps = node.all_input_nodes[0], [node]
    if source.target in PARTS:
        source, steps = source.all_input_nodes[0], [source, node]
    shape = shape_of(source)
    if not shape:
        return None
    # two images, so that a slice of the batch is none of an image
    places = torch.arange(2 * torch.Size(shape).numel()).reshape(2, *shape)
    taken: Any = places
    for step in steps:
        given = step.args[1:], {key: value for key, value in step.kwargs.items() if key != "input"}
        arguments, named = fx.node.map_arg(given, lambda each: each.meta["value"])
        call = getattr(type(taken), step.target) if isinstance(step.target, str) else step.target
        taken = call(taken, *arguments, **named)
    part = _part(source, places, taken)
    if part is None:
        raise ModelError(f"Node '{node.name}' takes {tuple(taken.shape[1:])} of {shape}; supported: channels, ascending and each "
                         "once, of rows and columns without gaps: x[:, a:b], x[:, :, a:b], x[..., -1] of a line, or chunk, split, "
                         "narrow and select")
    return part


def _part(source: fx.Node, places: torch.Tensor, taken: torch.Tensor) -> Part | None:
    """Return what is taken, or None where it is anything else."""
    count, out = places[0].numel(), tuple(taken.shape[1:])
    if taken.dim() < 2 or taken.shape[0] != 2 or not taken.numel() or not torch.equal(taken[1], taken[0] + count):
        return None
    _, height, width = (*wide(tuple(places.shape[1:])), 1, 1)[:3]
    flat = taken[0].reshape(-1)
    channels, rows, cols = (each.unique() for each in (flat // (height * width), flat // width % height, flat % width))
    whole = (channels[:, None, None] * height + rows[:, None]) * width + cols
    if not torch.equal(flat, whole.reshape(-1)) or any(int(each[-1] - each[0]) >= len(each) for each in (rows, cols)):
        return None
    pixel, image = len(rows) == len(cols) == 1, (len(channels), len(rows), len(cols))
    gone = pixel and out == image[:1]
    if not gone and wide(out) != image:
        return None
    pads = -int(rows[0]), -int(cols[0]), int(rows[-1]) + 1 - height, int(cols[-1]) + 1 - width
    return Part(source, tuple(channels.tolist()), pads, gone and places.dim() > 2)
