"""TensorFlow Lite operators that take some of the channels, rows or columns: SLICE, STRIDED_SLICE, SPLIT, SPLIT_V."""

import numpy as np

from .. import ir
from ..errors import ModelError
from . import tflite_layers as layers
from .builder import turn
from .tflite_context import Importer, edge_shape
from .tflite_file import Op, Tensor

__all__ = ["piece", "part"]


def _constant(self: Importer, op: Op, position: int) -> list[int]:
    """Return the integers of a constant input."""
    t = self.tensor(op, op.inputs[position] if position < len(op.inputs) else -1)
    if t.data is None or t.dtype not in ("INT32", "INT64"):
        raise ModelError(f"{op.text}: its bounds '{t.name}' must be a constant of INT32 or INT64")
    return [int(v) for v in t.data.reshape(-1)]


def _chosen(self: Importer, op: Op, position: int, out: Tensor, name: str, kept: list[np.ndarray]) -> str:
    """Return the edge of what is kept along each axis, the batch included, of an operator's input."""
    x, source = self.tensor(op, op.inputs[position]), self.source(op, position)
    self.same_scale(op, x, out)
    whole = [np.array_equal(each, np.arange(size)) for each, size in zip(kept, x.shape, strict=True)]
    if all(whole):
        return source
    space, channels, shape = kept[1:-1], kept[-1], self.b.edges[source].shape
    if not whole[0] or x.shape[-1] != shape[-1] or any(not each.size for each in kept) or (np.diff(channels) < 0).any() \
            or any((np.diff(each) != 1).any() for each in space) or len(space) > 2 or (len(shape) == 1 and not all(whole[:-1])):
        raise ModelError(f"{op.text} takes {tuple(map(len, kept))} of {x.shape}, which is not supported; supported: some of the "
                         "channels, the last axis, ascending, of rows and columns in steps of 1")
    if not all(whole[:-1]):
        ends = [(-int(each[0]), int(each[-1]) + 1 - size) for each, size in zip(space, x.shape[1:], strict=False)]
        (top, bottom), (left, right) = [(0, 0), *ends][-2:]
        pads = turn((top, left, bottom, right), layers.image(self.b, source, x)[1])
        source = self.b.add(ir.Pad(name if whole[-1] else self.b.unique(f"{name}.crop"), (source,), pads))
    return source if whole[-1] else self.b.add(ir.Select(name, (source,), channels))


def part(self: Importer, op: Op, out: Tensor, name: str) -> str:
    """SLICE, STRIDED_SLICE."""
    x = self.tensor(op, op.inputs[0])
    begin, end = _constant(self, op, 1), _constant(self, op, 2)
    steps, o, gone = [1] * len(begin), op.options, 0
    if op.kind == "SLICE":
        ends: list[int | None] = [None if size == -1 else start + size for start, size in zip(begin, end, strict=True)]
        starts: list[int | None] = list(begin)
    else:
        steps = _constant(self, op, 3)
        gone = o["ShrinkAxisMask"]
        if o["EllipsisMask"] or o["NewAxisMask"] or o["Offset"] or gone & 1 or gone >> len(x.shape) - 1:
            raise ModelError(f"{op.text}: masks of ellipsis, new and shrunk axes ({o['EllipsisMask']}, {o['NewAxisMask']}, {gone}) "
                             f"and offset = {o['Offset']} are not supported; supported: 0, and shrunk axes of height and width")
        starts = [None if o["BeginMask"] >> k & 1 else v for k, v in enumerate(begin)]
        ends = [None if o["EndMask"] >> k & 1 or gone >> k & 1 else v for k, v in enumerate(end)]
    if not len(starts) == len(ends) == len(steps) == len(x.shape) or 0 in steps:
        raise ModelError(f"{op.text}: bounds {begin} and {end} in steps of {steps} do not go with {x.shape}")
    kept = [np.arange(size)[slice(a, b, s)] for size, a, b, s in zip(x.shape, starts, ends, steps, strict=True)]
    kept = [each[:1] if gone >> k & 1 else each for k, each in enumerate(kept)]
    edge = _chosen(self, op, 0, out, name, kept)
    one_pixel = gone and len(edge_shape(out.shape)) == 1
    return self.b.add(ir.Flatten(self.b.unique(f"{name}.flat"), (edge,))) if one_pixel else edge


def piece(self: Importer, op: Op, out: Tensor, name: str) -> str:
    """SPLIT, SPLIT_V: the part that ``out`` is."""
    position, at = (1, 0) if op.kind == "SPLIT" else (0, 2)
    x, rank = self.tensor(op, op.inputs[position]), len(self.tensor(op, op.inputs[position]).shape)
    axis = _constant(self, op, at)[0] % max(rank, 1)
    size, count = x.shape[axis], len(op.outputs)
    sizes = [size // count] * count if op.kind == "SPLIT" else _constant(self, op, 1)
    if -1 in sizes:
        sizes[sizes.index(-1)] = size - sum(sizes) - 1
    if len(sizes) != count or sum(sizes) != size or min(sizes) < 0:
        raise ModelError(f"{op.text}: parts of {sizes} do not go with axis {axis} of {x.shape} and {count} outputs")
    ends = np.cumsum([0, *sizes])
    k = op.outputs.index(out.index)
    return _chosen(self, op, position, out, name,
                   [np.arange(n) if a != axis else np.arange(ends[k], ends[k + 1]) for a, n in enumerate(x.shape)])
