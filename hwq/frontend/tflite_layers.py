"""TFLite operators that compute: convolutions, fully connected layers, additions, averages, and their requantization.

Edges carry the file's raw codes, zero point included: zero points go into biases and pad values.
"""

from collections.abc import Callable

import numpy as np

from .. import ir
from ..errors import ModelError
from ..formats import FixedPoint
from ..passes.exact_plane import exact_plane
from ..passes.exact_scale import exact_line, threshold_table
from .builder import Builder, turn, weight_format
from .tflite_file import Op, Tensor
from .tflite_math import activation_range, mean_multiplier, multiply, quantize_multiplier, quantize_multipliers

__all__ = ["conv", "fully_connected", "add", "average", "mean", "rescale", "leaky", "activation", "padding", "image"]

_ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")
_INT32 = 1 << 31


def activation(op: Op) -> str:
    """Return the fused activation's name, or refuse it."""
    number = op.options.get("FusedActivationFunction", 0)
    if number not in (0, 1, 2, 3):
        raise ModelError(f"{op.text}: fused_activation_function = {({4: 'TANH', 5: 'SIGN_BIT'}.get(number, number))} is not "
                         f"supported; supported: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[number]


def image(b: Builder, source: str, x: Tensor) -> tuple[tuple[int, int], bool]:
    """Return height and width of a tensor, and whether its edge, a line of pixels, lies along the other axis."""
    height, width = (1, *x.shape)[-3:-1] if len(x.shape) == 3 else x.shape[1:3]
    return (height, width), b.edges[source].shape[:2] != (height, width)


def padding(op: Op, size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int],
            dilation: tuple[int, int] = (1, 1)) -> tuple[int, int, int, int]:
    """Return top, left, bottom, right of SAME (the odd pixel after) or VALID."""
    number = op.options.get("Padding", 0)
    if number not in (0, 1):
        raise ModelError(f"{op.text}: padding = {number} is not supported; supported: SAME (0), VALID (1)")
    if min(*kernel, *stride, *dilation) < 1:
        raise ModelError(f"{op.text}: kernel {kernel}, stride {stride}, dilation {dilation} must be positive")
    if number == 1:
        return 0, 0, 0, 0
    total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)]
    return total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2


def _clamp(op: Op, out: Tensor) -> tuple[int, int]:
    return activation_range(activation(op), out.scale[0], int(out.zero[0]))


def rescale(b: Builder, name: str, source: str, op: Op, factors: np.ndarray, zero: int, lo: int, hi: int,
            shift_in: int = 0) -> str:
    """Requantize as the reference kernels do: ``clamp(multiply(sum + shift_in, factor) + zero)``, ``factors`` (1 or channels,)."""
    mantissa, exponent = quantize_multipliers(factors)
    return _requantize(b, name, source, op, mantissa[:, None], exponent[:, None], zero, lo, hi, shift_in)


def _requantize(b: Builder, name: str, source: str, op: Op, mantissa: np.ndarray, exponent: np.ndarray, zero: int, lo: int, hi: int,
                shift_in: int) -> str:
    low, high = b.ranges(source)
    _within(op, max(abs(int(low.min()) + shift_in), abs(int(high.max()) + shift_in)), exponent)
    if hi < lo:
        raise ModelError(f"{op.text}: the activation leaves no value between {lo} and {hi}")
    if len(mantissa) == 1:
        low, high = low.min(keepdims=True), high.max(keepdims=True)
    table = threshold_table(lambda a: multiply(a + shift_in, mantissa, exponent) + zero, low, high, lo, hi)
    return b.requantize(name, source, table, lo, hi)


def _within(op: Op, reach: int, exponent: np.ndarray | int) -> None:
    """Refuse what the kernels cannot multiply without an overflow."""
    reach <<= max(0, int(np.max(exponent)))
    if reach >= _INT32:
        raise ModelError(f"{op.text}: sums of up to {reach:,} can overflow the 32 bits of the reference kernels")


def leaky(b: Builder, name: str, source: str, op: Op, x: Tensor, out: Tensor, slopes: np.ndarray, factor: float,
          identity: float) -> str:
    """LEAKY_RELU and PRELU: codes from the zero point on times ``identity``, those below times ``slopes`` and ``factor``."""
    if (slopes * np.sign(factor) < 0).any() or not np.isfinite([factor, identity]).all():
        least = float((slopes * factor).min() / identity)
        raise ModelError(f"{op.text}: a slope of {least:.6g} for negative values is not supported; supported: 0 and more")
    edge, zero = b.edges[source], int(out.zero[0])
    codes = np.arange(edge.lo, edge.hi + 1, dtype=np.int64) - int(x.zero[0])
    below, above = quantize_multiplier(factor), quantize_multiplier(identity)
    _within(op, int(np.abs(codes).max()), above[1])
    _within(op, int(np.abs(codes).max()) * int(slopes.max(initial=0)), below[1])
    slopes = slopes if len(np.unique(slopes)) > 1 else slopes[:1]
    table = np.where(codes >= 0, multiply(codes, *above), multiply(codes * slopes[:, None], *below)) + zero
    table = np.clip(table, -128, 127)              # (slopes, codes), none falls
    steps = np.arange(-127, 128)
    return b.requantize(name, source, edge.lo + (table[:, :, None] < steps).sum(axis=1), -128, 127)


def _weights(op: Op, w: Tensor, axis: int, outputs: int) -> np.ndarray:
    """Return the scale of every output, or refuse the weights by name."""
    if w.data is None or w.dtype != "INT8":
        raise ModelError(f"{op.text}: its weights '{w.name}' must be a constant of INT8, not {w.dtype}"
                         f"{'' if w.data is not None else ' made by the network'}")
    if w.scale.size not in (1, outputs) or (w.scale.size > 1 and w.axis != axis):
        raise ModelError(f"{op.text}: its weights have {w.scale.size} scales along axis {w.axis}; accepted: 1, or "
                         f"{outputs} along axis {axis}")
    if ((w.zero < -128) | (w.zero > 127)).any():
        raise ModelError(f"{op.text}: its weights have zero points that are no INT8")
    return np.broadcast_to(w.scale, outputs)


def _bias(op: Op, t: Tensor | None, outputs: int) -> np.ndarray:
    if t is None:
        return np.zeros(outputs, np.int64)
    if t.data is None or t.dtype != "INT32" or t.data.size != outputs:
        raise ModelError(f"{op.text}: its bias '{t.name}' must be a constant of {outputs} INT32 values, not {t.dtype} {t.shape}")
    return t.data.reshape(-1).astype(np.int64)


def _factors(x: Tensor, scales: np.ndarray, out: Tensor) -> np.ndarray:
    return float(x.scale[0]) * scales.astype(np.float64) / float(out.scale[0])


def _format(weight: np.ndarray) -> FixedPoint:
    fmt = weight_format(weight, 8)
    assert fmt is not None                         # codes and zero points of 8 bits: 9 bits hold them
    return fmt


def conv(b: Builder, name: str, op: Op, source: str, x: Tensor, w: Tensor, bias: Tensor | None, out: Tensor) -> str:
    """CONV_2D (with groups) and DEPTHWISE_CONV_2D."""
    size, turned = image(b, source, x)
    channels = b.edges[source].shape[-1]
    depthwise = op.kind == "DEPTHWISE_CONV_2D"
    if len(w.shape) != 4 or (depthwise and w.shape[0] != 1):
        raise ModelError(f"{op.text}: weights of the shape {w.shape} are not supported")
    outputs = w.shape[3] if depthwise else w.shape[0]
    scales = _weights(op, w, 3 if depthwise else 0, outputs)
    if w.zero.any():
        raise ModelError(f"{op.text}: weights with zero points ({w.zero[w.zero != 0][0]}) are not defined for "
                         "convolutions; they must be 0")
    assert w.data is not None
    weight = w.data.astype(np.int64)
    if depthwise:
        if outputs != channels * op.options["DepthMultiplier"]:
            raise ModelError(f"{op.text}: depth_multiplier = {op.options['DepthMultiplier']} does not fit {channels} "
                             f"channels in, {outputs} out")
        weight, groups = weight.transpose(3, 1, 2, 0), channels
    else:
        if w.shape[3] == 0 or channels % w.shape[3]:
            raise ModelError(f"{op.text}: {channels} channels do not match weights of the shape {w.shape}")
        groups = channels // w.shape[3]
    o = op.options
    stride, dilation = (o["StrideH"], o["StrideW"]), (o["DilationHFactor"], o["DilationWFactor"])
    pads = padding(op, size, weight.shape[1:3], stride, dilation)
    zero = int(x.zero[0])
    total = _bias(op, bias, outputs) - zero * weight.reshape(outputs, -1).sum(axis=1)
    weight = weight.swapaxes(1, 2) if turned else weight
    b.add(ir.Conv2d(name, (source,), weight, total, _format(weight), turn(stride, turned), turn(pads, turned),
                    turn(dilation, turned), groups, zero))
    return rescale(b, f"{name}.act", name, op, _factors(x, scales, out), int(out.zero[0]), *_clamp(op, out))


def fully_connected(b: Builder, name: str, op: Op, source: str, x: Tensor, w: Tensor, bias: Tensor | None, out: Tensor) -> str:
    """FULLY_CONNECTED on a flat edge, or of each pixel of another; a zero point of per-tensor weights counts."""
    if op.options.get("WeightsFormat", 0):
        raise ModelError(f"{op.text}: weights_format = {op.options['WeightsFormat']} is not supported; supported: DEFAULT (0)")
    if len(w.shape) != 2:
        raise ModelError(f"{op.text}: weights of the shape {w.shape} are not supported")
    outputs = w.shape[0]
    scales = _weights(op, w, 0, outputs)
    if w.zero.any() and w.scale.size > 1:
        raise ModelError(f"{op.text}: per-channel weights with zero points are not defined; they must be 0")
    assert w.data is not None
    weight = w.data.astype(np.int64) - int(w.zero[0])
    zero = int(x.zero[0])
    total = _bias(op, bias, outputs) - zero * weight.sum(axis=1)
    flat = len(b.edges[source].shape) == 1
    b.add(ir.Linear(name, (source,), weight, total, _format(weight)) if flat else
          ir.Conv2d(name, (source,), weight[:, None, None, :], total, _format(weight)))
    factors = _factors(x, scales[:1] if w.scale.size == 1 else scales, out)
    return rescale(b, f"{name}.act", name, op, factors, int(out.zero[0]), *_clamp(op, out))


def add(b: Builder, name: str, op: Op, sources: tuple[str, str], xs: tuple[Tensor, Tensor], out: Tensor) -> str:
    """ADD: one plane over both codes if there is one, else each operand at the kernels' 20 extra bits."""
    lo, hi = _clamp(op, out)
    zero = int(out.zero[0])
    scales = [float(t.scale[0]) for t in xs]
    twice = 2 * max(scales)
    codes, wide = [], []
    for source, t, scale in zip(sources, xs, scales, strict=True):
        edge = b.edges[source]
        code = np.arange(edge.lo, edge.hi + 1, dtype=np.int64)
        codes.append(code)
        wide.append(multiply((code - int(t.zero[0])) << 20, *quantize_multiplier(scale / twice)))
    factor = quantize_multiplier(twice / ((1 << 20) * float(out.scale[0])))
    total = wide[0][:, None] + wide[1][None, :]
    if int(np.abs(total).max()) << max(0, factor[1]) >= _INT32:
        raise ModelError(f"{op.text}: its sums can overflow the 32 bits of the reference kernels")
    if hi < lo:
        raise ModelError(f"{op.text}: the activation leaves no value between {lo} and {hi}")
    table = np.clip(multiply(total, *factor) + zero, lo, hi)
    plane = exact_plane(table, codes[0], codes[1], (scales[0] / float(out.scale[0]), scales[1] / float(out.scale[0])), lo, hi)
    if plane is not None:
        b.add(ir.Add(name, sources, plane.mult))
        return b.add(ir.Requantize(b.unique(f"{name}.act"), (name,), np.array([1]), np.array([plane.offset]), plane.shift, lo, hi))
    ends = []
    for source, code, values in zip(sources, codes, wide, strict=True):
        form = exact_line(int(code[0]), values.tolist())
        ends.append(b.add(ir.Requantize(b.unique(f"{name}.in"), (source,), form.mult, form.offset, form.shift, int(values[0]),
                                        int(values[-1]), form.offset_neg)))
    b.add(ir.Add(name, tuple(ends)))
    return _requantize(b, f"{name}.act", name, op, np.array([[factor[0]]]), np.array([[factor[1]]]), zero, lo, hi, 0)


def _divide(count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the kernels' average: half away from zero."""
    return lambda a: np.where(a >= 0, (a + count // 2) // count, -((-a + count // 2) // count))


def average(b: Builder, name: str, op: Op, source: str, x: Tensor, out: Tensor) -> str:
    """AVERAGE_POOL_2D: the mean of the raw codes that lie in the image, half away from zero."""
    size, turned = image(b, source, x)
    o = op.options
    kernel, stride = (o["FilterHeight"], o["FilterWidth"]), (o["StrideH"], o["StrideW"])
    pads, edge, count = padding(op, size, kernel, stride), name, kernel[0] * kernel[1]
    if any(pads):
        edge, count = b.real_mean(name, source, turn(kernel, turned), turn(stride, turned), turn(pads, turned))
    elif kernel == size:
        b.add(ir.GlobalAvgPool2d(name, (source,)))
    else:
        b.add(ir.AvgPool2d(name, (source,), turn(kernel, turned), turn(stride, turned)))
    lo, hi = _clamp(op, out)
    low, high = b.ranges(edge)
    table = threshold_table(_divide(count), low[:1], high[:1], lo, hi)
    return b.requantize(f"{name}.act", edge, table, lo, hi)


def mean(b: Builder, name: str, op: Op, source: str, x: Tensor, out: Tensor) -> str:
    """MEAN over height and width, with the kernel's own multiplier."""
    height, width, _ = b.edges[source].shape
    count = height * width
    b.add(ir.GlobalAvgPool2d(name, (source,)))
    mantissa, exponent = mean_multiplier(float(x.scale[0]) / float(out.scale[0]), count)
    return _requantize(b, f"{name}.act", name, op, np.array([[mantissa]]), np.array([[exponent]]), int(out.zero[0]), -128, 127,
                       -count * int(x.zero[0]))
