"""ONNX operators that are linear: Conv, MatMul, Gemm, BatchNormalization, arithmetic with constants, Add."""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from .. import ir
from ..formats import Bipolar, Format
from .builder import turn, weight_format
from .onnx_context import Context, LayoutError, frac_bits, refuse
from .onnx_file import OnnxNode
from .onnx_values import ULP, Const, View
from .rounding import sqrt_fraction

__all__ = ["conv", "matmul", "gemm", "batch_norm", "arithmetic", "negate", "sum_of", "window", "image", "laid_out"]

Values = Sequence["Const | View | None"]


def image(node: OnnxNode, view: View, channels_last: bool) -> tuple[tuple[int, ...], bool]:
    """Return the sizes of a view's 1 or 2 spatial axes, and whether its edge, a line of pixels, lies along the other axis.

    Its channels must be where the operator has them.
    """
    count = len(view.dims) - 1
    if count not in (1, 2):
        refuse(node, f"its input has the shape {view.shape}; supported: 1 or 2 axes beside batch and channels")
    space = view.dims[:-1] if channels_last else view.dims[1:]
    size, axis = view.dims[-1 if channels_last else 0]
    wide = [(found, want) for (n, found), want in zip(space, (0, 1)[2 - count:], strict=True) if n != 1]
    if axis != 2 and (axis is not None or size != 1) or any(found not in (0, 1) for found, _ in wide) or \
            len(wide) == 2 and any(found != want for found, want in wide):
        raise LayoutError(f"{node.text}: the channels of its input {view.shape} are not axis "
                          f"{len(view.dims) if channels_last else 1}")
    return tuple(size for size, _ in space), any(found != want for found, want in wide)


def laid_out(ctx: Context, edge: str, axes: int, channels_last: bool, turned: bool) -> tuple[tuple[int, int], ...]:
    """Return the dims of the tensor that a window operator over 1 or 2 axes makes; its edge lies as `image` says of the input."""
    height, width, channels = ctx.b.edges[edge].shape
    space = [(width, 1), (height, 0)] if turned else [(height, 0), (width, 1)]
    space = space[2 - axes:]
    return tuple([*space, (channels, 2)] if channels_last else [(channels, 2), *space])


def window(node: OnnxNode, kernel: tuple[int, ...],
           sizes: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int, int, int]]:
    """Return stride, dilation and pads (top, left, bottom, right) of a window operator over 1 or 2 axes."""
    n, a = len(kernel), node.attributes
    stride, dilation = list(a.get("strides", [1] * n)), list(a.get("dilations", [1] * n))
    pads = list(a.get("pads", [0] * 2 * n))
    if len(stride) != n or len(dilation) != n or len(pads) != 2 * n or min(*kernel, *stride, *dilation) < 1:
        refuse(node, f"kernel {kernel}, strides {stride}, dilations {dilation}, pads {pads} do not go together")
    auto = a.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
                 for size, s, k, d in zip(sizes, stride, kernel, dilation, strict=True)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = small + large if auto == "SAME_UPPER" else large + small
    elif auto == "VALID":
        pads = [0] * 2 * n
    elif auto != "NOTSET":
        refuse(node, f"auto_pad = {auto!r} is not supported; supported: NOTSET, SAME_UPPER, SAME_LOWER, VALID")
    if min(pads) < 0:
        refuse(node, f"pads = {pads} are not supported; supported: none below 0")
    if n == 1:
        return (1, stride[0]), (1, dilation[0]), (0, pads[0], 0, pads[1])
    return (stride[0], stride[1]), (dilation[0], dilation[1]), (pads[0], pads[1], pads[2], pads[3])


def _format(ctx: Context, node: OnnxNode, name: str, weight: np.ndarray, scales: list[Fraction]) -> Format:
    fl = frac_bits(scales[0]) if len(scales) == 1 else None
    if fl is None:
        ctx.unscaled.add(name)
    if weight.size and np.isin(weight, (-1, 1)).all():
        return Bipolar(fl or 0)
    fmt = weight_format(weight)
    if fmt is None:
        refuse(node, f"weights {weight.min()}..{weight.max()} take more than 16 bits")
    assert fmt is not None
    return replace(fmt, frac_bits=fl or 0)


def _per_output(node: OnnxNode, scale: np.ndarray) -> list[Fraction]:
    """Return the scale of each output of weights (outputs, ...), or refuse scales that differ inside one."""
    flat = scale.reshape(scale.shape[0], -1)
    if (flat != flat[:, :1]).any():
        refuse(node, "its weights have scales that differ inside one output; supported: one scale, or one for each output channel")
    values = [Fraction(float(v)) for v in flat[:, 0]]
    return values[:1] if all(v == values[0] for v in values) else values


def _weighted(ctx: Context, node: OnnxNode, view: View, weight: np.ndarray, scales: list[Fraction], groups: int = 1,
              geometry: tuple | None = None) -> View:
    """Append the Conv2d (weights (out, kh, kw, in/groups)) or Linear (out, in), and return its view without dims."""
    view = ctx.plain(node, view).uniform()
    outputs = weight.shape[0]
    if not (groups > 1 and weight.shape[-1] == 1):
        view = ctx.common(node, view, most_bits=16)
    source = ctx.edge(node, view)
    per_input = len(view.scale) > 1 or len(view.shift) > 1
    full = view.per_channel(ctx.channels(view)) if per_input else view
    of_input = [c * groups // outputs for c in range(outputs)] if per_input else [0] * outputs
    sums = [int(v) for v in weight.reshape(outputs, -1).sum(axis=1)]
    scale = [full.scale[of_input[o]] * scales[o % len(scales)] for o in range(outputs)]
    shift = [full.shift[of_input[o]] * scales[o % len(scales)] * sums[o] for o in range(outputs)]
    name, zeros = ctx.b.unique(node.name or node.outputs[0]), np.zeros(outputs, np.int64)
    peak = float(ctx.peak(view).max())
    if geometry is None:
        made: ir.Node = ir.Linear(name, (source,), weight, zeros, _format(ctx, node, name, weight, scales))
    else:
        stride, dilation, pads = geometry
        pad = 0
        if any(pads):
            codes = {-t / s for s, t in zip(full.scale, full.shift, strict=True)} if per_input else {-view.shift[0] / view.scale[0]}
            if len(codes) != 1 or next(iter(codes)).denominator != 1:
                refuse(node, "it pads with zeros, but no integer of its input stands for zero; use a symmetric quantizer, or one "
                       "whose zero point is an integer")
            pad = int(next(iter(codes)))
        made = ir.Conv2d(name, (source,), weight, zeros, _format(ctx, node, name, weight, scales), stride,
                         pads, dilation, groups, pad)
    ctx.b.add(made)
    terms = weight.size // outputs
    gross = np.abs(weight).reshape(outputs, -1).sum(axis=1) * np.array([float(scales[o % len(scales)]) for o in range(outputs)])
    error = gross * (max(view.error) + (terms + 3) * ULP * peak)
    return View(name, (), tuple(scale), tuple(shift), error=tuple(error.tolist())).uniform()


def _biased(ctx: Context, node: OnnxNode, view: View, bias: "Const | View | None") -> View:
    if bias is None:
        return view
    if not isinstance(bias, Const):
        refuse(node, "its bias must be a constant")
    assert isinstance(bias, Const)
    if bias.value.size not in (1, ctx.channels(view)) or bias.value.size != max(bias.value.shape, default=1):
        refuse(node, f"a bias of the shape {bias.value.shape} does not go with {ctx.channels(view)} outputs")
    return _affine(ctx, node, view, [Fraction(1)], list(bias.reals().reshape(-1)))


def conv(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Conv over 1 or 2 axes, with groups, dilation and any padding; channels first, or last in QONNX's domain."""
    x, w = values[0], values[1]
    if not isinstance(x, View) or not isinstance(w, Const):
        refuse(node, "its weights must be constants, and its input must come from the network's")
    assert isinstance(x, View) and isinstance(w, Const)
    last = "channels_last" in node.domain
    sizes, turned = image(node, x, last)
    weight, scale = w.codes(f"{node.text}: its weights")
    if weight.ndim != len(sizes) + 2:
        refuse(node, f"weights of the shape {weight.shape} do not go with an input of the shape {x.shape}")
    if last:                                           # so are its weights': outputs, kernel, inputs
        weight, scale = (np.moveaxis(values, -1, 1) if values.ndim == weight.ndim else values for values in (weight, scale))
    kernel = weight.shape[2:]
    if list(node.attributes.get("kernel_shape", kernel)) != list(kernel):
        refuse(node, f"kernel_shape = {node.attributes['kernel_shape']} does not go with weights of the shape {weight.shape}")
    geometry = tuple(turn(part, turned) for part in window(node, kernel, sizes))
    if len(kernel) == 1:
        weight, scale = weight[:, :, None], scale[:, :, None]
    groups = int(node.attributes.get("group", 1))
    scales = _per_output(node, scale)
    view = _weighted(ctx, node, x, weight.transpose(0, 3, 2, 1) if turned else weight.transpose(0, 2, 3, 1),
                     scales, groups, geometry)
    view = _biased(ctx, node, view, values[2] if len(values) > 2 else None)
    assert view.edge is not None
    return view.but(dims=laid_out(ctx, view.edge, len(sizes), last, turned))


def _product(ctx: Context, node: OnnxNode, x: View, weight: np.ndarray, scale: np.ndarray) -> View:
    """Multiply by weights (out, in): a Linear on a flat view, a 1x1 Conv2d where the channels are the last axis."""
    if x.dims and x.dims[-1][0] != weight.shape[1]:
        refuse(node, f"weights of the shape {weight.shape} do not go with an input of the shape {x.shape}")
    scales = _per_output(node, scale)
    if len(x.dims) == 1:
        if x.edge is not None and len(ctx.b.edges[x.edge].shape) != 1:
            x = x.but(edge=ctx.b.add(ir.Flatten(ctx.b.unique("flatten"), (x.edge,))))
        if x.order is not None:
            moved = np.empty_like(weight)
            moved[:, x.order] = weight
            weight, x = moved, x.but(order=None)
        return _weighted(ctx, node, x, weight, scales).but(dims=((weight.shape[0], 0),))
    if x.dims[-1][1] != 2:
        raise LayoutError(f"{node.text}: it sums over the last axis of {x.shape}, which is not the channels")
    view = _weighted(ctx, node, x, weight[:, None, None, :], scales, 1, ((1, 1), (1, 1), (0, 0, 0, 0)))
    return view.but(dims=(*x.dims[:-1], (weight.shape[0], 2)))


def matmul(ctx: Context, node: OnnxNode, values: Values) -> View:
    """MatMul of a tensor by constant weights (in, out)."""
    x, w = values[0], values[1]
    if not isinstance(x, View) or not isinstance(w, Const) or w.value.ndim < 2:
        refuse(node, "supported: a tensor of the network times a constant matrix")
    assert isinstance(x, View) and isinstance(w, Const)
    weight, scale = w.codes(f"{node.text}: its weights")
    if weight.ndim > len(x.shape) or any(size != 1 for size in weight.shape[:-2]):
        refuse(node, f"weights of the shape {weight.shape} for {x.shape} are not supported; supported: a matrix, with axes of 1 in "
               "front of it up to as many axes as its input has")
    matrix = weight.shape[-2:]
    return _product(ctx, node, x, weight.reshape(matrix).T, scale.reshape(matrix).T)


def gemm(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Gemm with alpha and beta, the weights transposed or not."""
    x, w = values[0], values[1]
    if not isinstance(x, View) or not isinstance(w, Const) or w.value.ndim != 2 or node.attributes.get("transA", 0):
        refuse(node, "supported: a tensor of the network times a constant matrix, transA = 0")
    assert isinstance(x, View) and isinstance(w, Const)
    weight, scale = w.codes(f"{node.text}: its weights")
    if not node.attributes.get("transB", 0):
        weight, scale = weight.T, scale.T
    view = _product(ctx, node, x, weight, scale)
    alpha, beta = (Fraction(float(node.attributes.get(key, 1.0))) for key in ("alpha", "beta"))
    view = _affine(ctx, node, view, [alpha], [Fraction(0)]) if alpha != 1 else view
    bias = values[2] if len(values) > 2 else None
    if isinstance(bias, Const) and bias.value.ndim == 2 and bias.value.shape[0] == 1:
        bias = bias.moved(lambda a: a.reshape(-1))
    if isinstance(bias, Const) and beta != 1:
        refuse(node, f"beta = {float(beta)} is not supported; supported: 1")
    return _biased(ctx, node, view, bias)


def _affine(ctx: Context, node: OnnxNode, view: View, factor: list[Fraction], term: list[Fraction]) -> View:
    """Return ``view * factor + term``, one or one for each channel."""
    channels = ctx.channels(view)
    if max(len(factor), len(term), len(view.scale), len(view.shift), len(view.slope)) == 1:
        channels = 1
    if view.leaky and (any(term) or any(v <= 0 for v in factor)):
        refuse(node, "a constant added to the result of a LeakyRelu or PRelu, or a factor that is not positive, is not supported; "
               "put a quantizer between them, or the values before it")
    full = view.per_channel(channels)
    f, t = factor * (channels if len(factor) == 1 else 1), term * (channels if len(term) == 1 else 1)
    scale, shift = tuple(a * b for a, b in zip(full.scale, f, strict=True)), \
        tuple(a * b + c for a, b, c in zip(full.shift, f, t, strict=True))
    made = full.but(scale=scale, shift=shift, integer=False)
    if view.edge is not None:
        peak = ctx.peak(view) if channels != 1 else np.array([float(ctx.peak(view).max())])
        size = np.array([abs(float(v)) for v in f]) * peak + np.array([abs(float(v)) for v in t])
        error = np.array([abs(float(v)) for v in f]) * np.array(full.error) + 4 * ULP * size
        made = made.but(error=tuple(error.tolist()))
    if view.clipped:
        if all(v == f[0] for v in f) and all(v == t[0] for v in t):
            ends = [None if v is None else v * f[0] + t[0] for v in (view.lo, view.hi)]
            made = made.but(lo=ends[f[0] < 0], hi=ends[f[0] >= 0])
        elif view.lo != 0 or view.hi is not None or any(t) or any(v <= 0 for v in f):
            refuse(node, "a value for each channel behind a Relu or Clip without a quantizer is not supported; put a quantizer "
                   "between them, or the values before it")
    return made.uniform() if len(made.error) == 1 else made


def batch_norm(ctx: Context, node: OnnxNode, values: Values) -> View:
    """BatchNormalization with running statistics."""
    x, last = values[0], "channels_last" in node.domain
    constants = values[1:5]
    if not isinstance(x, View) or len(constants) != 4 or not all(isinstance(c, Const) for c in constants):
        refuse(node, "its four parameters must be constants")
    assert isinstance(x, View)
    if len(node.outputs) > 1 and any(node.outputs[1:]) or node.attributes.get("training_mode", 0):
        refuse(node, "training mode is not supported")
    axis = len(x.dims) if last else 1
    shape = [1] * len(x.shape)
    shape[axis] = x.shape[axis]
    rows = []
    for what, c in zip(("scale", "bias", "mean", "variance"), constants, strict=True):
        assert isinstance(c, Const)
        if c.value.size != shape[axis]:
            refuse(node, f"its {what} has {c.value.size} values; the input has {shape[axis]} channels")
        if not np.isfinite(c.value).all():
            refuse(node, f"its {what} holds NaN or infinity")
        rows.append(ctx.per_channel(node, x, c.moved(lambda a: a.reshape(shape))))
    epsilon = Fraction(float(np.float32(node.attributes.get("epsilon", 1e-5))))
    gain, offset = [], []
    for g, b, mean, var in zip(*(r * (max(map(len, rows)) // len(r)) for r in rows), strict=True):
        if var + epsilon <= 0:
            refuse(node, "a variance plus epsilon is not positive")
        a = g / sqrt_fraction(var + epsilon)
        gain.append(a)
        offset.append(b - a * mean)
    made = _affine(ctx, node, x, gain, offset)
    if x.edge is not None:                         # its inner steps are larger than the result
        inner = np.array([abs(float(a * m)) + abs(float(b))
                          for a, m, b in zip(gain, rows[2] * (len(gain) // len(rows[2])), rows[1] * (len(gain) // len(rows[1])),
                                             strict=True)])
        error = np.array(made.error) + 6 * ULP * inner
        made = made.but(error=tuple(np.broadcast_to(error, max(len(made.error), len(inner))).tolist()))
    return made


def arithmetic(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Add, Sub, Mul, Div of a tensor and a constant, and Add and Sub of two branches."""
    a, b = values[0], values[1]
    if isinstance(a, View) and isinstance(b, View):
        if node.op not in ("Add", "Sub"):
            refuse(node, "of two tensors of the network is not supported; supported: Add, Sub")
        return _join(ctx, node, a, b)
    view, constant = (a, b) if isinstance(a, View) else (b, a)
    assert isinstance(view, View) and isinstance(constant, Const)
    if not np.isfinite(constant.value.astype(np.float64)).all():
        refuse(node, "its constant holds NaN or infinity")
    numbers, one, zero = ctx.per_channel(node, view, constant), [Fraction(1)], [Fraction(0)]
    if node.op == "Add":
        return _affine(ctx, node, view, one, numbers)
    if node.op == "Sub":
        factor, term = (one, [-v for v in numbers]) if view is a else ([Fraction(-1)], numbers)
        return _affine(ctx, node, view, factor, term)
    if node.op == "Mul":
        return _affine(ctx, node, view, numbers, zero)
    if view is not a or any(v == 0 for v in numbers):
        refuse(node, "of a constant by a tensor, or by zero, is not supported")
    return _affine(ctx, node, view, [1 / v for v in numbers], zero)


def _join(ctx: Context, node: OnnxNode, a: View, b: View) -> View:
    if a.shape != b.shape:
        refuse(node, f"shapes {a.shape} and {b.shape} differ; broadcasting of two branches is not supported")
    a, b = ctx.plain(node, a).uniform(), ctx.plain(node, b).uniform()
    edges = ctx.edge(node, a), ctx.edge(node, b)
    same = a.order is b.order or (a.order is not None and b.order is not None and (a.order == b.order).all())
    if [axis for size, axis in a.dims if size > 1] != [axis for size, axis in b.dims if size > 1] or not same:
        refuse(node, "its two branches have their elements in different orders")
    if len(a.scale) > 1 or len(b.scale) > 1:
        refuse(node, "a branch has a scale for each channel and no quantizer; put a quantizer for the tensor before the sum")
    sb = -b.scale[0] if node.op == "Sub" else b.scale[0]
    unit = Fraction(math.gcd(a.scale[0].numerator * sb.denominator, sb.numerator * a.scale[0].denominator),
                    a.scale[0].denominator * sb.denominator)
    mult = int(a.scale[0] / unit), int(sb / unit)
    name = ctx.b.add(ir.Add(ctx.b.unique(node.name or node.outputs[0]), edges, mult))
    count = max(len(a.shift), len(b.shift))
    sign = -1 if node.op == "Sub" else 1
    shift = tuple(a.shift[c % len(a.shift)] + sign * b.shift[c % len(b.shift)] for c in range(count))
    error = max(a.error) + max(b.error) + 2 * ULP * float(ctx.peak(a).max() + ctx.peak(b).max())
    return View(name, a.dims, (unit,), shift, order=a.order, error=(error,))


def sum_of(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Sum of one tensor or two."""
    if len(values) > 2:
        refuse(node, f"of {len(values)} tensors is not supported; supported: 1 or 2. Put a quantizer behind the sum of two")
    if len(values) == 1:
        assert isinstance(values[0], View)
        return values[0]
    return arithmetic(ctx, replace(node, op="Add", told=node.text), values)


def negate(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Neg."""
    assert isinstance(values[0], View)
    return _affine(ctx, node, values[0], [Fraction(-1)], [Fraction(0)])
