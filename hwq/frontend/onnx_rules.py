"""Which rule imports which operator, and the attributes that it takes into account."""

from collections.abc import Callable, Sequence
from typing import Any

from . import onnx_clamps as clamps
from . import onnx_linear as linear
from . import onnx_qoperator as codes
from . import onnx_quant as quant
from . import onnx_shapes as shapes
from . import onnx_slices as slices
from . import onnx_windows as windows
from .onnx_context import Context, refuse
from .onnx_file import OnnxNode
from .onnx_values import Const, View

__all__ = ["Rule", "Value", "rule_of", "QONNX", "LAST", "MICROSOFT"]

Value = Const | View
Rule = Callable[[Context, OnnxNode, Sequence[Any]], Value | list[View | None]]           # several: of a Split

QONNX = ("onnx.brevitas", "finn.custom_op.general", "qonnx.custom_op.general")
LAST = ("qonnx.custom_op.channels_last", "finn.custom_op.channels_last")
MICROSOFT = ("com.microsoft",)

_WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")
# Operator -> rule and the attributes that it takes into account; any other attribute is refused.
_RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "Conv": (linear.conv, (*_WINDOW, "group")), "MatMul": (linear.matmul, ()),
    "Gemm": (linear.gemm, ("alpha", "beta", "transA", "transB")),
    "BatchNormalization": (linear.batch_norm, ("epsilon", "momentum", "training_mode", "spatial")),
    "Add": (linear.arithmetic, ()), "Sub": (linear.arithmetic, ()), "Mul": (linear.arithmetic, ()), "Div": (linear.arithmetic, ()),
    "Sum": (linear.sum_of, ()), "Neg": (linear.negate, ()), "Relu": (clamps.relu, ()), "Clip": (clamps.clip, ("min", "max")),
    "LeakyRelu": (clamps.leaky_relu, ("alpha",)), "PRelu": (clamps.prelu, ()),
    "Min": (clamps.least_or_most, ()), "Max": (clamps.least_or_most, ()),
    "MaxPool": (windows.max_pool, (*_WINDOW, "ceil_mode", "storage_order")),
    "AveragePool": (windows.average_pool, (*_WINDOW, "ceil_mode", "count_include_pad")),
    "GlobalAveragePool": (windows.global_pool, ()), "GlobalMaxPool": (windows.global_pool, ()),
    "ReduceMean": (windows.reduce, ("axes", "keepdims", "noop_with_empty_axes")),
    "ReduceMax": (windows.reduce, ("axes", "keepdims", "noop_with_empty_axes")), "Pad": (windows.pad, ("mode", "pads", "value")),
    "Resize": (windows.resize, ("mode", "nearest_mode", "coordinate_transformation_mode", "antialias", "axes",
                                "keep_aspect_ratio_policy", "cubic_coeff_a", "exclude_outside", "extrapolation_value")),
    "Upsample": (windows.resize, ("mode", "scales")), "Concat": (shapes.concat, ("axis",)),
    "ArgMax": (shapes.argmax, ("axis", "keepdims", "select_last_index")),
    "TopK": (shapes.top_k, ("axis", "k", "largest", "sorted")),
    "Reshape": (shapes.reshape, ("allowzero",)), "Flatten": (shapes.reshape, ("axis",)), "Transpose": (shapes.transpose, ("perm",)),
    "Slice": (slices.part, ("starts", "ends", "axes")), "Split": (slices.pieces, ("axis", "split", "num_outputs")),
    "Gather": (slices.gather, ("axis",)), "Squeeze": (shapes.squeeze, ("axes",)), "Unsqueeze": (shapes.unsqueeze, ("axes",)),
    "Identity": (shapes.same, ()), "Cast": (shapes.cast, ("to", "saturate", "round_mode")),
    "Dropout": (shapes.same, ("ratio", "seed")),
    "QLinearConv": (codes.conv, (*_WINDOW, "group")), "QLinearMatMul": (codes.matmul, ()),
    "QuantizeLinear": (quant.quantize_linear, ("axis", "block_size", "output_dtype", "saturate", "precision")),
    "DequantizeLinear": (quant.dequantize_linear, ("axis", "block_size", "output_dtype")),
}
_QUANT_RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "Quant": (quant.int_quant, ("signed", "narrow", "rounding_mode")),
    "IntQuant": (quant.int_quant, ("signed", "narrow", "rounding_mode")),
    "BipolarQuant": (quant.bipolar_quant, ()), "Trunc": (quant.trunc, ("rounding_mode", "signed", "narrow")),
    "MultiThreshold": (quant.multi_threshold, ("out_scale", "out_bias", "out_dtype", "data_layout")),
    "MaxPoolNHWC": (windows.max_pool, (*_WINDOW, "ceil_mode")),
}
_LAST_RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    key: (_RULES[key][0], (*_RULES[key][1], "data_format")) for key in ("Conv", "MaxPool", "BatchNormalization")}
_POOL = (*_WINDOW, "ceil_mode", "count_include_pad", "channels_last")
_MICROSOFT_RULES: dict[str, tuple[Rule, tuple[str, ...]]] = {
    "QuantizeLinear": (quant.quantize_linear, ("axis",)), "DequantizeLinear": (quant.dequantize_linear, ("axis",)),
    "QGemm": (codes.gemm, ("alpha", "transA", "transB")),
    "QLinearAdd": (codes.arithmetic, ()), "QLinearMul": (codes.arithmetic, ()), "QLinearConcat": (codes.concat, ("axis",)),
    "QLinearAveragePool": (codes.pool, _POOL), "QLinearGlobalAveragePool": (codes.pool, ("channels_last",)),
}


def rule_of(node: OnnxNode) -> Rule:
    """Return the rule of a node, or refuse its domain, its operator or one of its attributes by name."""
    table = _RULES if node.domain == "" else _QUANT_RULES if node.domain in QONNX else _LAST_RULES if node.domain in LAST \
        else _MICROSOFT_RULES if node.domain in MICROSOFT else None
    if table is None:
        refuse(node, f"domain {node.domain!r} is not supported; supported: ONNX's own, {', '.join((*QONNX, *LAST, *MICROSOFT))}")
    assert table is not None
    if node.op not in table:
        refuse(node, f"operator {node.op} of {node.domain or 'ONNX'} is not supported; supported: {', '.join(sorted(table))}")
    rule, attributes = table[node.op]
    for key, value in node.attributes.items():
        if key not in attributes:
            refuse(node, f"attribute {key} = {value!r} is not supported; supported: {', '.join(attributes) or 'none'}")
    return rule
