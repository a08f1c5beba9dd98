"""Operators on codes, as the QOperator format has them: each is the operator on reals between DequantizeLinear and QuantizeLinear.

onnxruntime's kernels with weights add up integers and multiply the sum once, by a quotient of scales in float32. That is nearer to
real arithmetic than floats all the way, whose bound holds for them, too. For the others see `_rounded`.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from . import onnx_linear as linear
from . import onnx_quant as quant
from . import onnx_shapes as shapes
from . import onnx_windows as windows
from .onnx_context import Context, refuse
from .onnx_file import OnnxNode
from .onnx_values import ULP, Const, View

__all__ = ["conv", "matmul", "gemm", "arithmetic", "concat", "pool", "reals", "grid_of"]

Values = Sequence["Const | View | None"]


def _part(node: OnnxNode, op: str, attributes: dict[str, Any], inputs: Sequence[str] = (), name: str = "") -> OnnxNode:
    """Return a part of a node as a node of its own; messages tell of the whole."""
    return replace(node, op=op, domain="", name=f"{node.name or node.outputs[0]}{name}", inputs=tuple(inputs) or node.inputs,
                   attributes=attributes, told=node.text)


def _at(node: OnnxNode, values: Values, place: int, what: str) -> "Const | View":
    value = values[place] if place < len(values) else None
    if value is None:
        refuse(node, f"its {what} (input {place}) is missing; write it into the file")
    assert value is not None
    return value


def grid_of(node: OnnxNode, values: Values, place: int) -> tuple[Fraction, int]:
    """Return the scale and the zero point at ``place`` and behind it, of a whole tensor."""
    scale, zero = _at(node, values, place, "scale"), values[place + 1] if place + 1 < len(values) else None
    for what, value in (("scale", scale), ("zero point", zero)):
        if isinstance(value, View) or value is not None and (value.value.size != 1 or not np.isfinite(value.value).all()):
            refuse(node, f"its {what} (of input {place - 1}) must be one constant number for the whole tensor")
    assert isinstance(scale, Const)
    return Fraction(float(scale.value.reshape(-1)[0])), int(zero.value.reshape(-1)[0]) if isinstance(zero, Const) else 0


def reals(ctx: Context, node: OnnxNode, values: Values, place: int, axis: int | None = None) -> "Const | View":
    """Return what the codes at ``place`` stand for; scale and zero point follow them, one, or for weights one along an axis."""
    codes = _at(node, values, place, "tensor")
    if axis is None:
        grid_of(node, values, place + 1)
    three = [codes, _at(node, values, place + 1, "scale"), values[place + 2] if place + 2 < len(values) else None]
    part = _part(node, "DequantizeLinear", {} if axis is None else {"axis": axis}, node.inputs[place:place + 3])
    return quant.dequantize_linear(ctx, part, three)


def _bias(node: OnnxNode, values: Values, place: int, x: int, w: int) -> Const | None:
    """Return the bias, whose scale is the product of those of input and weights."""
    bias = values[place] if place < len(values) else None
    if bias is None:
        return None
    if not isinstance(bias, Const) or bias.value.dtype != np.int32:
        refuse(node, "its bias must be a constant of int32")
    assert isinstance(bias, Const)
    scales = [_at(node, values, at, "scale") for at in (x, w)]
    factor = np.ones(1)
    for scale in scales:
        assert isinstance(scale, Const)            # as `reals` has seen
        factor = factor * scale.value.astype(np.float64).reshape(-1)         # two of float32 are exact
    ints, factor = np.broadcast_arrays(bias.value.astype(np.int64).reshape(-1), factor)
    return Const(ints * factor, ints, factor)


def _codes(ctx: Context, node: OnnxNode, values: Values, place: int, view: View, sums_zero: bool = False) -> View:
    """Quantize by the scale and zero point at ``place``."""
    grid_of(node, values, place)
    _at(node, values, place + 1, "zero point of the output, which says the type,")
    part = _part(node, "QuantizeLinear", {}, (node.inputs[0], *node.inputs[place:place + 2]), ".codes")
    made = quant.quantize_linear(ctx, part, [view, *values[place:place + 2]], sums_zero)
    assert isinstance(made, View)
    return made


def _rounded(ctx: Context, node: OnnxNode, values: Values, inputs: Sequence[int], place: int, view: View) -> View:
    """Quantize what a kernel computes that scales codes and zero points apart, and adds the output's zero point before it rounds.

    So a tie goes to the even code, and the sum is as large as the zero points are. On ARM the quotients of the scales are
    integers of 22 bits, the largest at least 2**21, which is twice a float's error for each code.
    """
    (scale, zero), reach, largest = grid_of(node, values, place), 0.0, 0.0
    for at in inputs:
        codes, (each, origin) = _at(node, values, at, "tensor"), grid_of(node, values, at + 1)
        size = float(ctx.peak(codes).max()) if isinstance(codes, View) else float(np.abs(codes.value.astype(np.int64)).max())
        reach, largest = reach + size + abs(origin), max(largest, float(each))
    more = 8 * ULP * (largest * reach + float(scale) * abs(zero))
    return _codes(ctx, node, values, place, view.but(error=tuple(e + more for e in view.error)), True)


def conv(ctx: Context, node: OnnxNode, values: Values) -> View:
    """QLinearConv, with one scale for the weights or one for each output."""
    x, w = reals(ctx, node, values, 0), reals(ctx, node, values, 3, 0)
    made = linear.conv(ctx, _part(node, "Conv", node.attributes), [x, w, _bias(node, values, 8, 1, 4)])
    return _codes(ctx, node, values, 6, made)


def matmul(ctx: Context, node: OnnxNode, values: Values) -> View:
    """QLinearMatMul, with one scale for the weights or one for each output."""
    x, w = reals(ctx, node, values, 0), reals(ctx, node, values, 3, -1)
    return _codes(ctx, node, values, 6, linear.matmul(ctx, _part(node, "MatMul", {}), [x, w]))


def gemm(ctx: Context, node: OnnxNode, values: Values) -> View:
    """QGemm: alpha times the product and the bias; without a scale for the output it stays real."""
    turned, alpha = int(node.attributes.get("transB", 0)), float(node.attributes.get("alpha", 1.0))
    x, w = reals(ctx, node, values, 0), reals(ctx, node, values, 3, 0 if turned else 1)
    part = _part(node, "Gemm", {"transA": node.attributes.get("transA", 0), "transB": turned})
    made = linear.gemm(ctx, part, [x, w, _bias(node, values, 6, 1, 4)])
    if alpha != 1:
        made = linear.arithmetic(ctx, _part(node, "Mul", {}), [made, Const(np.array(alpha))])
    return made if len(values) < 8 or values[7] is None else _codes(ctx, node, values, 7, made)


def arithmetic(ctx: Context, node: OnnxNode, values: Values) -> View:
    """QLinearAdd of two tensors, one of them perhaps constant, and QLinearMul by a constant."""
    made = linear.arithmetic(ctx, _part(node, node.op.removeprefix("QLinear"), {}), [reals(ctx, node, values, at) for at in (0, 3)])
    return _rounded(ctx, node, values, (0, 3), 6, made)


def concat(ctx: Context, node: OnnxNode, values: Values) -> View:
    """QLinearConcat: scale and zero point of the output, then tensor, scale and zero point of each part."""
    parts = range(2, len(values), 3)
    made = shapes.concat(ctx, _part(node, "Concat", node.attributes), [reals(ctx, node, values, at) for at in parts])
    return _codes(ctx, node, values, 0, made)


def pool(ctx: Context, node: OnnxNode, values: Values) -> View:
    """QLinearAveragePool and QLinearGlobalAveragePool."""
    attributes = {key: value for key, value in node.attributes.items() if key != "channels_last"}
    if node.attributes.get("channels_last", 0):
        refuse(node, "channels_last = 1 is not supported; supported: 0")
    x = reals(ctx, node, values, 0)
    if "Global" in node.op:
        return _codes(ctx, node, values, 3, windows.global_pool(ctx, _part(node, "GlobalAveragePool", {}), [x]))
    made = windows.average_pool(ctx, _part(node, "AveragePool", attributes), [x])
    return _rounded(ctx, node, values, (0,), 3, made)
