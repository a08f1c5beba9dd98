"""ONNX operators that clip: Relu, Clip, and Min and Max with a constant."""

import math
from collections.abc import Sequence
from fractions import Fraction

from .onnx_context import Context, refuse
from .onnx_file import OnnxNode
from .onnx_values import Const, View

__all__ = ["relu", "clip", "least_or_most"]

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
