"""ONNX operators that the quantizer behind them takes up: Relu, Clip, Min and Max with a constant, LeakyRelu, PRelu."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from .onnx_context import Context, refuse
from .onnx_file import OnnxNode
from .onnx_values import ULP, Const, View

__all__ = ["relu", "clip", "least_or_most", "leaky_relu", "prelu"]

Values = Sequence["Const | View | None"]


def _clipped(view: View, lo: Fraction | None, hi: Fraction | None) -> View:
    """Return the view clipped once more: the limits of the clip before are clipped themselves."""
    def bound(v: Fraction | None, default: Fraction | None) -> Fraction | None:
        if v is None:
            return default
        v = v if lo is None else max(v, lo)
        return v if hi is None else min(v, hi)
    return view.but(lo=bound(view.lo, lo if hi is None or lo is None else min(lo, hi)), hi=bound(view.hi, hi))


def relu(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Relu: taken up by the quantizer behind it."""
    assert isinstance(values[0], View)
    return _clipped(values[0], Fraction(0), None)


def clip(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Clip: its limits are attributes (to opset 6) or constants."""
    view = values[0]
    assert isinstance(view, View)
    limits: list[Fraction | None] = []
    for position, key in ((1, "min"), (2, "max")):
        value = values[position] if position < len(values) else None
        number = value.value.reshape(-1) if isinstance(value, Const) else [node.attributes[key]] if key in node.attributes else []
        if value is not None and not isinstance(value, Const) or len(number) > 1 or any(math.isnan(float(v)) for v in number):
            refuse(node, "its limits must be single constants")
        limits.append(Fraction(float(number[0])) if len(number) and math.isfinite(float(number[0])) else None)
    return _clipped(view, *limits)


def least_or_most(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Min and Max of a tensor and one constant number."""
    views = [v for v in values if isinstance(v, View)]
    numbers = [v.value.reshape(-1) for v in values if isinstance(v, Const)]
    if len(views) != 1 or len(numbers) != 1 or numbers[0].size != 1 or not math.isfinite(float(numbers[0][0])):
        refuse(node, "supported: a tensor of the network and one constant number")
    if max(v.value.ndim for v in values if isinstance(v, Const)) > len(views[0].shape):
        refuse(node, f"its constant has more axes than its input {views[0].shape}")
    number = Fraction(float(numbers[0][0]))
    return _clipped(views[0], *((number, None) if node.op == "Max" else (None, number)))


def _leaked(ctx: Context, node: OnnxNode, view: View, slopes: list[Fraction]) -> View:
    """Return the view with negative values times a slope, or one for each channel."""
    if min(slopes) < 0:
        refuse(node, f"a slope of {float(min(slopes)):.6g} for negative values is not supported; supported: 0 and more")
    if view.lo is not None and view.lo >= 0:
        return view
    if view.clipped and len(set(slopes)) > 1:
        refuse(node, "a slope for each channel behind a Clip without a quantizer is not supported; put a quantizer between them")
    ends = (v * slopes[0] if v is not None and v < 0 else v for v in (view.lo, view.hi))
    count = max(len(slopes), len(view.slope))
    if count > 1:
        view, slopes = view.per_channel(count), slopes * (count // len(slopes))
    made = view.but(slope=tuple(a * b for a, b in zip(view.slope, slopes * (len(view.slope) // len(slopes)), strict=True)))
    made = made.but(**dict(zip(("lo", "hi"), ends, strict=True)))
    if view.edge is None:
        return made
    steepest, peak = max(1.0, float(max(slopes))), float(ctx.peak(made).max())
    return made.but(error=tuple(e * steepest + 2 * ULP * peak for e in view.error))


def leaky_relu(ctx: Context, node: OnnxNode, values: Values) -> View:
    """LeakyRelu: negative values times alpha."""
    view, alpha = values[0], float(np.float32(node.attributes.get("alpha", 0.01)))
    assert isinstance(view, View)
    if not math.isfinite(alpha):
        refuse(node, f"alpha = {alpha} is not supported")
    return _leaked(ctx, node, view, [Fraction(alpha)])


def prelu(ctx: Context, node: OnnxNode, values: Values) -> View:
    """PRelu: negative values times a constant, one or one for each channel."""
    view, slope = values[0], values[1]
    assert isinstance(view, View)
    if not isinstance(slope, Const) or not np.isfinite(slope.value).all():
        refuse(node, "its slopes must be finite constants")
    assert isinstance(slope, Const)
    return _leaked(ctx, node, view, ctx.per_channel(node, view, slope))
