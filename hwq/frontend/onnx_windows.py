"""ONNX operators on windows of images: pools, borders, enlargement."""

import math
from collections.abc import Sequence
from fractions import Fraction

from .. import ir
from .builder import turn
from .onnx_context import Context, LayoutError, refuse
from .onnx_file import OnnxNode
from .onnx_linear import image, laid_out, window
from .onnx_shapes import flat, ints
from .onnx_values import ULP, Const, View

__all__ = ["max_pool", "average_pool", "global_pool", "reduce", "pad", "resize"]

Values = Sequence["Const | View | None"]


def _pooled(ctx: Context, node: OnnxNode, view: View, last: bool):
    """Return kernel, stride and pads of a pool as its edge needs them, the number of axes, and whether the edge is turned."""
    sizes, turned = image(node, view, last)
    kernel = [int(k) for k in node.attributes.get("kernel_shape", ())]
    if len(kernel) != len(sizes):
        refuse(node, f"kernel_shape = {kernel} does not go with an input of the shape {view.shape}")
    stride, dilation, pads = window(node, tuple(kernel), sizes)
    if dilation != (1, 1):
        refuse(node, f"dilations = {node.attributes['dilations']} is not supported; supported: 1")
    size, wide = (sizes if len(sizes) == 2 else (1, sizes[0])), (kernel if len(kernel) == 2 else [1, *kernel])
    if node.attributes.get("ceil_mode", 0):
        more = []
        for n, k, s, before, after in zip(size, wide, stride, pads[:2], pads[2:], strict=True):
            count = -(-(n + before + after - k) // s) + 1
            count -= (count - 1) * s >= n + before              # a window that starts behind the image does not count
            more.append(max((count - 1) * s + k - n - before, after))
            if more[-1] != after and node.op == "AveragePool":
                refuse(node, f"ceil_mode = 1 is not supported where it makes a window that leaves the image ({n} pixels, kernel "
                       f"{k}, stride {s}); use explicit pads")
        pads = (pads[0], pads[1], more[0], more[1])
    return (*(turn(part, turned) for part in ((wide[0], wide[1]), stride, pads)), len(sizes), turned)


def max_pool(ctx: Context, node: OnnxNode, values: Values) -> View:
    """MaxPool; the padding never wins."""
    view = values[0]
    assert isinstance(view, View)
    last = "channels_last" in node.domain or node.op == "MaxPoolNHWC"
    if len([o for o in node.outputs if o]) > 1 or node.attributes.get("storage_order", 0):
        refuse(node, "indices of the largest elements are not supported")
    kernel, stride, pads, axes, turned = _pooled(ctx, node, view, last)
    view = ctx.rising(node, view)
    edge = ctx.b.add(ir.MaxPool2d(ctx.b.unique(node.name or node.outputs[0]), (ctx.edge(node, view),), kernel, stride, pads))
    return view.but(edge=edge, dims=laid_out(ctx, edge, axes, last, turned))


def average_pool(ctx: Context, node: OnnxNode, values: Values) -> View:
    """AveragePool: the sum of the codes, at a scale that divides."""
    view = values[0]
    assert isinstance(view, View)
    kernel, stride, pads, axes, turned = _pooled(ctx, node, view, False)
    count = kernel[0] * kernel[1]
    view = ctx.plain(node, view)
    source, divisor = ctx.edge(node, view), count
    if any(pads) and not node.attributes.get("count_include_pad", 0):
        edge, divisor = ctx.b.real_mean(node.name or node.outputs[0], source, kernel, stride, pads)
    else:
        if any(pads):
            source, pads = _border(ctx, node, view, source, pads, Fraction(0)), (0, 0, 0, 0)
        edge = ctx.b.add(ir.AvgPool2d(ctx.b.unique(node.name or node.outputs[0]), (source,), kernel, stride, pads))
    return _averaged(ctx, view.but(edge=edge, dims=laid_out(ctx, edge, axes, False, turned)), count, divisor)


def _averaged(ctx: Context, view: View, count: int, divisor: int | None = None) -> View:
    """Return the view of sums of up to ``count`` codes as their mean; ``divisor``: of sums that are as much larger."""
    made = view.but(scale=tuple(s / (divisor or count) for s in view.scale), integer=False)
    peak = float(ctx.peak(made).max())
    return made.but(error=tuple(e + (count + 2) * ULP * peak for e in view.error))


def _whole(ctx: Context, node: OnnxNode, view: View, axes: Sequence[int | None] = (0, 1)) -> View:
    """Append the sum or the largest along the edge's height, width or both; the dims are still the image's."""
    view = ctx.rising(node, view) if "Max" in node.op else ctx.plain(node, view)
    name, source = ctx.b.unique(node.name or node.outputs[0]), ctx.edge(node, view)
    height, width, _ = ctx.b.edges[source].shape
    size = height if 0 in axes else 1, width if 1 in axes else 1
    made: ir.Node = ir.MaxPool2d(name, (source,), size, size) if "Max" in node.op else ir.GlobalAvgPool2d(name, (source,)) \
        if size == (height, width) else ir.AvgPool2d(name, (source,), size, size)
    return view.but(edge=ctx.b.add(made))


def global_pool(ctx: Context, node: OnnxNode, values: Values) -> View:
    """GlobalAveragePool, GlobalMaxPool."""
    view = values[0]
    assert isinstance(view, View)
    sizes, _ = image(node, view, False)
    view = _whole(ctx, node, view)
    assert view.edge is not None
    made = view.but(dims=laid_out(ctx, view.edge, len(sizes), False, False))
    return made if "Max" in node.op else _averaged(ctx, made, math.prod(sizes))


def reduce(ctx: Context, node: OnnxNode, values: Values) -> View:
    """ReduceMean and ReduceMax over height, width or both."""
    view = values[0]
    assert isinstance(view, View)
    axes = ints(node, values, 1, "axes")
    rank, shape = len(view.shape), view.shape
    found = {a % rank for a in axes} if axes else set()
    space = {i + 1 for i, (_, axis) in enumerate(view.dims) if axis != 2}
    if not found or not found <= space or rank < 3 or not any(axis == 2 for _, axis in view.dims):
        refuse(node, f"axes = {axes} of {shape} is not supported; supported: height, width or both")
    view = _whole(ctx, node, view, [view.dims[i - 1][1] for i in found])
    made = view.but(dims=tuple((1, None) if i + 1 in found else dim for i, dim in enumerate(view.dims)))
    made = made if "Max" in node.op else _averaged(ctx, made, math.prod(shape[i] for i in found))
    if node.attributes.get("keepdims", 1):
        return made
    kept = tuple(d for i, d in enumerate(made.dims) if i + 1 not in found)
    return flat(ctx, node, made) if len(kept) == 1 else made.but(dims=kept)


def _border(ctx: Context, node: OnnxNode, view: View, source: str, pads: tuple[int, int, int, int], value: Fraction) -> str:
    codes = {(value - t) / s for s, t in zip(view.per_channel(ctx.channels(view)).scale,
                                             view.per_channel(ctx.channels(view)).shift, strict=True) if s}
    if len(codes) != 1 or next(iter(codes)).denominator != 1:
        refuse(node, f"it pads with {float(value)}, for which its input has no integer; use a quantizer that has one")
    return ctx.b.add(ir.Pad(ctx.b.unique(f"{node.name or node.outputs[0]}.pad"), (source,), pads, int(next(iter(codes)))))


def pad(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Pad with a constant, on the spatial axes; below 0 it is a crop."""
    view = values[0]
    assert isinstance(view, View)
    mode = node.attributes.get("mode", "constant")
    if mode != "constant":
        refuse(node, f"mode = {mode!r} is not supported; supported: 'constant'")
    pads, axes = ints(node, values, 1, "pads"), ints(node, values, 3, "axes")
    rank = len(view.shape)
    if axes is not None:
        wide = [0] * 2 * rank
        for i, a in enumerate(axes):
            wide[a % rank], wide[a % rank + rank] = (pads or [])[i], (pads or [])[i + len(axes)]
        pads = wide
    if pads is None or len(pads) != 2 * rank:
        refuse(node, f"pads = {pads} of {view.shape} are not supported; supported: constants")
    assert pads is not None
    value = values[2] if len(values) > 2 else None
    number = Fraction(float(value.value.reshape(-1)[0])) if isinstance(value, Const) \
        else Fraction(float(node.attributes.get("value", 0.0)))
    if not any(pads):
        return view
    ends = {0: (0, 0), 1: (0, 0)}
    for i, (_, axis) in enumerate(view.dims):
        both = pads[i + 1], pads[i + 1 + rank]
        if any(both) and axis not in (0, 1) or pads[0] or pads[rank]:
            refuse(node, f"pads = {pads} of {view.shape} are not supported; supported: on height and width")
        if axis in (0, 1):
            ends[axis] = both
    around = ends[0][0], ends[1][0], ends[0][1], ends[1][1]
    if max(around) > 0:
        view = ctx.plain(node, view)
        edge = _border(ctx, node, view, ctx.edge(node, view), around, number)
    else:
        edge = ctx.b.add(ir.Pad(ctx.b.unique(node.name or node.outputs[0]), (ctx.edge(node, view),), around))
    shape = ctx.b.edges[edge].shape
    return view.but(edge=edge, dims=tuple((shape[axis] if axis is not None else 1, axis) for _, axis in view.dims))


def resize(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Resize and Upsample: nearest neighbour by integer factors, in every coordinate mode that comes to that."""
    view, a = values[0], node.attributes
    assert isinstance(view, View)
    if a.get("mode", "nearest") != "nearest" or a.get("antialias", 0) or a.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        refuse(node, f"mode = {a.get('mode')!r} is not supported; supported: 'nearest'")
    old, new = view.shape, None
    old_form = node.op == "Upsample" or ctx.file.opset < 11         # Resize of opset 10 is Upsample by another name
    place = 1 if old_form else 2
    scales = values[place] if len(values) > place else None
    sizes = values[3] if len(values) > 3 else None
    if isinstance(sizes, Const) and sizes.value.size:
        new = [int(v) for v in sizes.value.reshape(-1)]
        if new[:1] != [ctx.batch]:
            refuse(node, f"sizes {new} change the batch of {ctx.batch}, which is not supported")
        new[0] = 1
    else:
        factors = scales.value.reshape(-1).tolist() if isinstance(scales, Const) and scales.value.size else a.get("scales")
        if factors is None or len(factors) != len(old) or any(f != int(f) for f in factors):
            refuse(node, f"scales = {factors} are not supported; supported: constant integers, one for each axis")
        assert factors is not None
        new = [int(s * f) for s, f in zip(old, factors, strict=True)]
    if a.get("axes") or len(new) != len(old) or any(n % o for n, o in zip(new, old, strict=True)):
        refuse(node, f"{old} to {new} is not supported; supported: integer factors")
    mode, nearest = a.get("coordinate_transformation_mode", "asymmetric" if old_form else "half_pixel"), \
        a.get("nearest_mode", "round_prefer_floor")
    if old_form:
        nearest = "floor"
    factor = {0: 1, 1: 1}
    for (size, axis), to in zip(view.dims, new[1:], strict=True):
        if to != size and axis not in (0, 1):
            raise LayoutError(f"{node.text}: {old} to {new} enlarges the channels, which is not supported")
        if axis in (0, 1):
            factor[axis] = to // size
            _check_nearest(node, size, to, mode, nearest)
    if new[0] != 1:
        refuse(node, f"{old} to {new} changes the batch")
    edge = ctx.b.add(ir.Upsample(ctx.b.unique(node.name or node.outputs[0]), (ctx.edge(node, view),), (factor[0], factor[1])))
    return view.but(edge=edge, dims=tuple((to, axis) for (_, axis), to in zip(view.dims, new[1:], strict=True)))


def _check_nearest(node: OnnxNode, size: int, to: int, mode: str, nearest: str) -> None:
    """Refuse coordinates that do not come to ``i // factor``."""
    f = Fraction(to, size)
    place = {"asymmetric": lambda i: i / f, "half_pixel": lambda i: (i + Fraction(1, 2)) / f - Fraction(1, 2),
             "pytorch_half_pixel": lambda i: (i + Fraction(1, 2)) / f - Fraction(1, 2) if to > 1 else Fraction(0)}.get(mode)
    rounds = {"floor": math.floor, "ceil": math.ceil, "round_prefer_floor": lambda x: math.ceil(x - Fraction(1, 2)),
              "round_prefer_ceil": lambda x: math.floor(x + Fraction(1, 2))}.get(nearest)
    if place is None or rounds is None or any(min(max(rounds(place(Fraction(i))), 0), size - 1) != i // f for i in range(to)):
        refuse(node, f"coordinate_transformation_mode = {mode!r} with nearest_mode = {nearest!r} is not plain repetition for "
               f"{size} to {to}, which is not supported; supported: 'half_pixel', or 'asymmetric' with 'floor'")
