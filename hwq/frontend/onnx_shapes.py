"""ONNX operators that move elements: reshapes, transposes, joins, the largest ones.

Nothing moves until something reads an image: till then a view says where the elements stand (`View.order`), and `gathered` moves
them once.
"""

import math
from collections.abc import Sequence

import numpy as np

from .. import ir
from .onnx_context import Context, LayoutError, refuse
from .onnx_file import OnnxNode
from .onnx_values import Const, View

__all__ = ["ints", "flat", "gathered", "reshaped", "reshape", "transpose", "squeeze", "unsqueeze", "same", "cast", "concat",
           "argmax", "top_k"]

Values = Sequence["Const | View | None"]


def ints(node: OnnxNode, values: Values, position: int, key: str) -> list[int] | None:
    """Return integers that are an attribute in old opsets and a constant input in new ones."""
    value = values[position] if position < len(values) else None
    if isinstance(value, Const):
        return [int(v) for v in value.value.reshape(-1)]
    if value is not None:
        refuse(node, f"its {key} must be a constant")
    found = node.attributes.get(key)
    return None if found is None else [int(v) for v in np.atleast_1d(found)]


def _shape(ctx: Context, view: View) -> tuple[int, ...]:
    return ctx.input_shape if view.edge is None else ctx.b.edges[view.edge].shape


def _places(ctx: Context, view: View) -> np.ndarray:
    """Return the place in the edge of each element of the tensor."""
    if view.order is not None:
        return view.order
    shape = _shape(ctx, view)
    wide = [axis for _, axis in view.dims if axis is not None]
    rest = [axis for axis in range(len(shape)) if axis not in wide]
    return np.arange(math.prod(shape)).reshape(shape).transpose(wide + rest).reshape(-1)


def flat(ctx: Context, node: OnnxNode, view: View) -> View:
    """Return the view with one axis behind the batch, in the tensor's own order of elements."""
    if len(view.dims) == 1 and not view.scattered:
        return view
    shape, order = _shape(ctx, view), _places(ctx, view)
    total, channels = len(order), shape[-1]
    def tile(values: tuple) -> tuple:
        return tuple(values) * (total // channels) if len(values) > 1 else values
    edge = view.edge
    if edge is not None and len(shape) > 1:
        edge = ctx.b.add(ir.Flatten(ctx.b.unique(node.name or "flatten"), (edge,)))
    return view.but(edge=edge, dims=((total, 0),), order=None if (order == np.arange(total)).all() else order,
                    scale=tile(view.scale), shift=tile(view.shift), slope=tile(view.slope), error=tile(view.error))


def gathered(ctx: Context, node: OnnxNode, view: View, channels_last: bool = False) -> View:
    """Return a view as an image or a line of pixels, channels first or last, if its elements are scattered or its edge is flat."""
    if view.edge is None or not view.scattered and (len(view.dims) < 2 or len(ctx.b.edges[view.edge].shape) > 1):
        return view
    sizes = [size for size, _ in view.dims]
    if len(sizes) not in (2, 3):
        refuse(node, f"its input {view.shape} has its elements in another order than the hardware's; supported: 1 or 2 axes "
               "beside batch and channels")
    shape = (*([1] if len(sizes) == 2 else []), *(sizes if channels_last else [*sizes[1:], sizes[0]]))
    places = _places(ctx, view).reshape(sizes)
    order = (places if channels_last else np.moveaxis(places, 0, -1)).reshape(-1)
    rows, old = order.reshape(-1, shape[-1]), ctx.b.edges[view.edge].shape[-1]
    edge = ctx.b.arrange(node.inputs[0], view.edge, order, shape)

    def moved(values: tuple) -> tuple:
        each = np.array(values, object)[rows % old] if len(values) > 1 else np.array([values])
        if (each != each[0]).any():
            refuse(node, "its input has scales or slopes of their own for elements that are one channel here; put a quantizer for "
                   "the tensor before it is reshaped")
        return tuple(each[0])
    axes = range(3 - len(sizes), 3) if channels_last else [2, *range(3 - len(sizes), 2)]
    return view.but(edge=edge, dims=tuple(zip(sizes, axes, strict=True)), order=None, scale=moved(view.scale),
                    shift=moved(view.shift), slope=moved(view.slope), error=(max(view.error),))


def reshaped(ctx: Context, node: OnnxNode, view: View, shape: Sequence[int]) -> View:
    """Return the view in another shape, the batch included; nothing moves."""
    if math.prod(shape) != math.prod(view.shape) or not shape or shape[0] != 1:
        refuse(node, f"{view.shape} to {tuple(shape)} changes the batch or the number of elements, which is not supported")
    new = list(shape[1:])
    if view.scattered and len(new) > 1:
        return view.but(dims=tuple((size, None) for size in new))
    if [s for s in new if s != 1] == [s for s, _ in view.dims if s != 1] and len(new) >= 1:
        kept = iter([d for d in view.dims if d[0] != 1])
        dims = [next(kept) if s != 1 else (1, None) for s in new]
        if view.edge is not None and len(ctx.b.edges[view.edge].shape) == 3 and len(dims) == 1:
            return flat(ctx, node, view)
        return view.but(dims=tuple(dims))
    if len(new) == 1:
        return flat(ctx, node, view)
    if view.edge is None and view.order is None and len(ctx.input_dims) == 1:
        axes: tuple[int, ...] = (2, 0, 1) if len(new) == 3 else (2, 1)
        if ctx.channels_last:
            axes = tuple(range(3 - len(new), 3))
        if len(new) in (2, 3):
            ctx.input_dims = tuple(zip(new, axes, strict=True))
            return view.but(dims=ctx.input_dims)
    if view.edge is None:
        refuse(node, f"{view.shape} to {tuple(shape)} is not supported in front of the input's quantizer; supported there: "
               "flattening, axes of 1, and an image from a flat input")
    return view.but(dims=tuple((size, None) for size in new), order=_places(ctx, view))


def reshape(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Reshape, Flatten."""
    view = values[0]
    assert isinstance(view, View)
    if node.op == "Flatten":
        axis = int(node.attributes.get("axis", 1))
        if axis % len(view.shape) != 1:
            refuse(node, f"axis = {axis} is not supported; supported: 1")
        return flat(ctx, node, view)
    target = ints(node, values, 1, "shape")
    if target is None or node.attributes.get("allowzero", 0) and 0 in target:
        refuse(node, f"its shape must be a constant, and none of it 0 where allowzero = 1, not {target}")
    assert target is not None
    shape = [view.shape[i] if t == 0 and i < len(view.shape) else t for i, t in enumerate(target)]
    if ctx.batch > 1 and target[:1] not in ([ctx.batch], [0], [-1]):
        refuse(node, f"shape {target} changes the batch of {ctx.batch}, which is not supported")
    if shape[:1] == [ctx.batch]:
        shape[0] = 1                               # views are of one input
    if shape.count(-1) > 1 or min(shape, default=0) < -1:
        refuse(node, f"shape {target} is malformed")
    if -1 in shape:
        rest = -math.prod(shape)
        if rest == 0 or math.prod(view.shape) % rest:
            refuse(node, f"shape {target} does not go with {view.shape}")
        shape[shape.index(-1)] = math.prod(view.shape) // rest
    return reshaped(ctx, node, view, shape)


def transpose(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Transpose that leaves the batch in front: no data move, the axes get other names."""
    view = values[0]
    assert isinstance(view, View)
    perm = list(node.attributes.get("perm", range(len(view.shape))[::-1]))
    if sorted(perm) != list(range(len(view.shape))) or perm[0] != 0:
        refuse(node, f"perm = {perm} is not supported; supported: any that leaves the batch in front")
    order = _places(ctx, view).reshape(view.shape[1:]).transpose([p - 1 for p in perm[1:]]).reshape(-1) \
        if view.scattered else view.order
    return view.but(dims=tuple(view.dims[p - 1] for p in perm[1:]), order=order)


def squeeze(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Squeeze of axes of 1 other than the batch."""
    view = values[0]
    assert isinstance(view, View)
    axes = ints(node, values, 1, "axes")
    rank = len(view.shape)
    drop = {a % rank for a in axes} if axes is not None else {i for i, s in enumerate(view.shape) if s == 1 and i}
    if 0 in drop or any(view.shape[a] != 1 for a in drop):
        refuse(node, f"axes = {axes} of {view.shape} is not supported; supported: axes of 1 behind the batch")
    return reshaped(ctx, node, view, [s for i, s in enumerate(view.shape) if i not in drop])


def unsqueeze(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Unsqueeze behind the batch."""
    view = values[0]
    assert isinstance(view, View)
    axes = ints(node, values, 1, "axes") or []
    rank = len(view.shape) + len(axes)
    if ctx.batch > 1 and 0 in {a % rank for a in axes}:
        refuse(node, f"axes = {axes} put another axis before the batch of {ctx.batch}, which is not supported")
    shape, old = [], iter(view.shape)
    for i in range(rank):
        shape.append(1 if i in {a % rank for a in axes} else next(old, 1))
    return reshaped(ctx, node, view, shape)


def same(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Identity, and Dropout as it is outside of training."""
    assert isinstance(values[0], View)
    if node.op == "Dropout" and isinstance(values[2] if len(values) > 2 else None, Const) and values[2].value.any():       # type: ignore[union-attr]
        refuse(node, "training_mode = True is not supported")
    return values[0]


_INTEGERS = {2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767), 6: (-(1 << 31), (1 << 31) - 1),
             7: (-(1 << 63), (1 << 63) - 1), 12: (0, (1 << 32) - 1)}               # numbers of TensorProto.DataType


def cast(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Cast that changes no value."""
    view, to = values[0], int(node.attributes.get("to", 0))
    assert isinstance(view, View)
    if to in (1, 11):                              # float32, float64
        return view.but(integer=False)
    edge = None if view.edge is None else ctx.b.edges[view.edge]
    base = int(view.shift[0])
    if not view.integer or edge is None or to not in _INTEGERS \
            or not _INTEGERS[to][0] <= edge.lo + base <= edge.hi + base <= _INTEGERS[to][1]:
        refuse(node, f"to = {to} of a tensor of {'integers' if view.integer else 'reals'} is not supported; supported: float32 and "
               "float64, and integers to types that hold them")
    return view


def concat(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Concat along the channels; the parts may have scales of their own, which the quantizer behind takes up."""
    views = [ctx.plain(node, v) for v in values if isinstance(v, View)]
    if len(views) != len(values):
        refuse(node, "of constants and tensors is not supported")
    axis = int(node.attributes.get("axis", 1)) % len(views[0].shape)
    if any(len(v.dims) != len(views[0].dims) for v in views) or axis < 1 \
            or any(v.dims[axis - 1][1] != views[0].dims[axis - 1][1] for v in views):
        refuse(node, f"axis = {axis} of shapes {[v.shape for v in views]} is not supported")
    last = len(ctx.b.edges[ctx.edge(node, views[0])].shape) - 1
    if views[0].dims[axis - 1][1] != last or any(v.integer != views[0].integer for v in views):
        raise LayoutError(f"{node.text}: axis = {axis} of {views[0].shape} is not the channels; supported: the channels")
    edge = ctx.b.add(ir.Concat(ctx.b.unique(node.name or node.outputs[0]), tuple(ctx.edge(node, v) for v in views)))
    full = [v.per_channel(ctx.channels(v)) for v in views]
    order = None
    if any(v.order is not None for v in views):
        parts, base = [], 0
        for v in views:
            size = ctx.channels(v)
            parts.append((np.arange(size) if v.order is None else v.order) + base)
            base += size
        order = np.concatenate(parts)
    dims = list(views[0].dims)
    dims[axis - 1] = (sum(v.dims[axis - 1][0] for v in views), last)
    return View(edge, tuple(dims), tuple(s for v in full for s in v.scale), tuple(s for v in full for s in v.shift), order=order,
                error=(max(max(v.error) for v in views),), integer=views[0].integer).uniform()


def argmax(ctx: Context, node: OnnxNode, values: Values) -> View:
    """ArgMax over a flat tensor of one scale, the lowest index where several are largest."""
    view = values[0]
    assert isinstance(view, View)
    axis = int(node.attributes.get("axis", 0))
    if len(view.dims) != 1 or axis % len(view.shape) != 1 or node.attributes.get("select_last_index", 0):
        refuse(node, f"axis = {axis} of {view.shape} is not supported; supported: the only axis behind the "
               "batch, select_last_index = 0")
    view = ctx.common(node, ctx.plain(node, view))
    if view.order is not None:
        refuse(node, "its input has its elements in another order than the hardware's")
    edge = ctx.b.add(ir.ArgMax(ctx.b.unique(node.name or node.outputs[0]), (ctx.edge(node, view),)))
    return View(edge, ((1, 0),) if node.attributes.get("keepdims", 1) else (), integer=True)


def top_k(ctx: Context, node: OnnxNode, values: Values) -> View:
    """TopK over a flat tensor of one scale: the indices, of equals the lowest first."""
    view, count = values[0], ints(node, values, 1, "k")
    assert isinstance(view, View)
    a = node.attributes
    axis, largest, ordered = (int(a.get(key, default)) for key, default in (("axis", -1), ("largest", 1), ("sorted", 1)))
    if len(view.dims) != 1 or axis % len(view.shape) != 1 or not largest or not ordered or count is None or len(count) != 1:
        refuse(node, f"axis = {axis} of {view.shape}, largest = {largest}, sorted = {ordered}, k = {count} is not supported; "
                     "supported: the only axis behind the batch, largest = 1, sorted = 1, a constant k")
    assert count is not None
    view = ctx.common(node, ctx.plain(node, view))
    if view.order is not None:
        refuse(node, "its input has its elements in another order than the hardware's")
    edge = ctx.b.add(ir.TopK(ctx.b.unique(node.name or node.outputs[1]), (ctx.edge(node, view),), count[0]))
    return View(edge, ((count[0], 0),), integer=True)
