"""ONNX operators that take some of the channels, rows or columns: Slice, Split, Gather."""

from collections.abc import Sequence

import numpy as np

from .. import ir
from .onnx_context import Context, LayoutError, refuse
from .onnx_file import OnnxNode
from .onnx_shapes import ints, reshaped
from .onnx_values import Const, View

__all__ = ["part", "pieces", "gather"]

Values = Sequence["Const | View | None"]


def _chosen(ctx: Context, node: OnnxNode, view: View, axis: int, indices: np.ndarray) -> View:
    """Return the elements ``indices`` along an axis; of rows and columns all from one to another."""
    size = view.shape[axis]
    if np.array_equal(indices, np.arange(size)):
        return view
    source = ctx.edge(node, view)
    if not indices.size or len(np.unique(indices)) < len(indices) or axis == 0:
        refuse(node, f"it takes {len(indices)} of {size} along axis {axis} of {view.shape}, which is not supported; supported: "
               "some of the channels, each at most once, and rows and columns in steps of 1")
    along, last = view.dims[axis - 1][1], len(ctx.b.edges[source].shape) - 1
    if along != last:
        if along is None or (np.diff(indices) != 1).any():
            raise LayoutError(f"{node.text}: a slice along axis {axis} of {view.shape} is not supported; supported: of the "
                              "channels, and of rows and columns in steps of 1")
        pads = [0, 0, 0, 0]
        pads[along], pads[along + 2] = -int(indices[0]), int(indices[-1]) + 1 - size
        edge = ctx.b.add(ir.Pad(ctx.b.unique(node.name or node.outputs[0]), (source,), (pads[0], pads[1], pads[2], pads[3])))
        return view.but(edge=edge, dims=tuple((len(indices), place) if place == along else (other, place)
                                              for other, place in view.dims))
    places = indices if view.order is None else view.order[indices]
    kept, order = np.sort(places), np.argsort(np.argsort(places))
    edge = ctx.b.add(ir.Select(ctx.b.unique(node.name or node.outputs[0]), (source,), kept))
    plain = bool((order == np.arange(len(order))).all())
    if len(view.dims) > 1 and not plain:           # an image has its channels in order
        edge, kept, plain = ctx.b.add(ir.Permute(ctx.b.unique(f"{edge}.order"), (edge,), order=order)), places, True

    def of(values: tuple) -> tuple:
        return tuple(values[k] for k in kept) if len(values) > 1 else values
    dims = tuple((len(indices), place) if k == axis - 1 else (other, place) for k, (other, place) in enumerate(view.dims))
    return view.but(edge=edge, dims=dims, order=None if plain else order, scale=of(view.scale),
                    shift=of(view.shift), slope=of(view.slope), error=of(view.error))


def part(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Slice by constants."""
    view = values[0]
    assert isinstance(view, View)
    starts, ends = (ints(node, values, k + 1, key) for k, key in enumerate(("starts", "ends")))
    axes, steps = (ints(node, values, k + 3, key) for k, key in enumerate(("axes", "steps")))
    if starts is None or ends is None:
        refuse(node, "it lacks starts or ends")
    assert starts is not None and ends is not None
    axes, steps = list(range(len(starts))) if axes is None else axes, [1] * len(starts) if steps is None else steps
    rank = len(view.shape)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps or any(not -rank <= axis < rank for axis in axes):
        refuse(node, f"starts {starts}, ends {ends}, axes {axes} and steps {steps} do not go with {view.shape}")
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        view = _chosen(ctx, node, view, axis % rank, np.arange(view.shape[axis % rank])[start:end:step])
    return view


def pieces(ctx: Context, node: OnnxNode, values: Values) -> list[View | None]:
    """Split: a view for each output that something reads."""
    view, count = values[0], len(node.outputs)
    assert isinstance(view, View)
    rank, axis, sizes = len(view.shape), int(node.attributes.get("axis", 0)), ints(node, values, 1, "split")
    size = view.shape[axis] if -rank <= axis < rank else 0
    if sizes is None:
        each = -(-size // count)                   # the last may be smaller
        sizes = [*[each] * (count - 1), size - each * (count - 1)]
    if len(sizes) != count or int(node.attributes.get("num_outputs", count)) != count or min(sizes) < 1 or sum(sizes) != size:
        refuse(node, f"parts of {sizes} do not go with axis {axis} of {view.shape} and {count} outputs")
    bounds = np.cumsum([0, *sizes])
    read = {ctx.file.output, *(name for other in ctx.file.nodes for name in other.inputs)}
    return [_chosen(ctx, node, view, axis % rank, np.arange(a, b)) if name in read else None
            for name, a, b in zip(node.outputs, bounds, bounds[1:], strict=False)]


def gather(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Gather by a constant: a list, or one row or column, whose axis goes."""
    view, indices = values[0], values[1] if len(values) > 1 else None
    assert isinstance(view, View)
    axis = int(node.attributes.get("axis", 0))
    size = view.shape[axis] if -len(view.shape) <= axis < len(view.shape) else 0
    if not isinstance(indices, Const) or indices.value.ndim > 1 or ((indices.value < -size) | (indices.value >= size)).any():
        refuse(node, f"its indices along axis {axis} of {view.shape} must be a constant list of places there, or one")
    assert isinstance(indices, Const)
    axis, one = axis % len(view.shape), indices.value.ndim == 0
    if one and (axis == 0 or view.dims[axis - 1][1] in ((2,) if len(view.dims) > 1 else (0,))):
        refuse(node, f"one index, which takes the axis {axis} of {view.shape} away, is not supported; supported: a list, or one "
               "row or column")
    view = _chosen(ctx, node, view, axis, indices.value.astype(np.int64).reshape(-1) % size)
    return reshaped(ctx, node, view, [s for i, s in enumerate(view.shape) if i != axis]) if one else view
