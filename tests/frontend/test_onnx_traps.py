"""Trap models for ONNX and QONNX, one attribute each: equal to the executor inside its error bound, or refused by name."""

from fractions import Fraction

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from hwq.frontend.importer import compare_source, import_file  # noqa: E402
from hwq.frontend.onnx_check import encode_floats, random_floats  # noqa: E402
from hwq.frontend.onnx_context import InputGrid  # noqa: E402
from hwq.interp import run  # noqa: E402

from .expected import EXACT, imported_or_refused  # noqa: E402

QONNX = "qonnx.custom_op.general"


class Net:
    """Writes a chain of nodes: ``add`` reads the last tensor and the constants given."""

    def __init__(self, shape=(1, 4, 7, 6), seed=0, opset=13):
        self.rng, self.opset, self.shape = np.random.default_rng(seed), opset, shape
        self.nodes, self.constants, self.last, self.count = [], [], "x", 0

    def const(self, value, kind=None):
        name = f"c{len(self.constants)}"
        self.constants.append(helper.make_tensor(name, kind, np.shape(value), np.asarray(value).reshape(-1)) if kind
                              else numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op, inputs, domain="", outputs=1, **attributes):
        self.count += 1
        names = [f"t{self.count}"] + [f"t{self.count}_{i}" for i in range(1, outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"n{self.count}", domain=domain, **attributes))
        return names[0]

    def add(self, op, *constants, domain="", outputs=1, **attributes):
        names = [c if isinstance(c, str) else self.const(c) for c in constants]
        self.last = self.node(op, [self.last, *names], domain, outputs, **attributes)
        return self

    def f32(self, *shape, lo=-1.0, hi=1.0):
        return self.rng.uniform(lo, hi, shape).astype(np.float32)

    # QuantizeLinear and DequantizeLinear
    def qdq(self, scale=0.05, zero=np.int8(3), axis=None, **attributes):
        more = {} if axis is None else {"axis": axis}
        scale = np.float32(scale) if np.ndim(scale) == 0 else np.asarray(scale, np.float32)
        return self.add("QuantizeLinear", scale, zero, **more, **attributes).add("DequantizeLinear", scale, zero, **more)

    def weights(self, *shape, zero=0, scale=None, axis=0, dtype=np.int8):
        info = np.iinfo(dtype)
        codes = self.const(self.rng.integers(info.min, info.max + 1, shape).astype(dtype))
        scale = self.f32(shape[axis], lo=0.002, hi=0.01) if scale is None else np.asarray(scale, np.float32)
        zero = np.full(scale.shape, zero, dtype)
        return self.node("DequantizeLinear", [codes, self.const(scale), self.const(zero)], axis=axis)

    def conv(self, out=5, kernel=(3, 3), group=1, channels=4, bias=True, weight=None, **attributes):
        weight = weight or self.weights(out, channels // group, *kernel)
        return self.add("Conv", weight, *([self.f32(out)] if bias else []), group=group, **attributes)

    # QONNX
    def quant(self, scale=0.25, zero=0.0, bits=4.0, signed=1, narrow=0, mode="ROUND", domain=QONNX, op="Quant"):
        attributes = {k: v for k, v in {"signed": signed, "narrow": narrow, "rounding_mode": mode}.items() if v is not None}
        return self.add(op, np.float32(scale) if np.ndim(scale) == 0 else np.asarray(scale, np.float32), np.float32(zero),
                        np.float32(bits), domain=domain, **attributes)

    def qweights(self, *shape, scale=0.25, bits=3.0, signed=1, narrow=1, value=None, op="Quant", domain=QONNX):
        value = self.const(self.f32(*shape) if value is None else value)
        if op == "BipolarQuant":
            return self.node(op, [value, self.const(np.float32(scale))], domain)
        return self.node(op, [value, self.const(np.asarray(scale, np.float32)), self.const(np.float32(0)),
                              self.const(np.float32(bits))], domain, signed=signed, narrow=narrow, rounding_mode="ROUND")

    def bn(self, channels, **attributes):
        return self.add("BatchNormalization", self.f32(channels), self.f32(channels), self.f32(channels),
                        self.f32(channels, lo=0.1, hi=2.0), **attributes)

    def bytes(self, output=None, shape=None, external=False, kind=TensorProto.FLOAT, version=2, input_kind=TensorProto.FLOAT):
        x = helper.make_tensor_value_info("x", input_kind, shape or self.shape)
        y = helper.make_tensor_value_info(output or self.last, kind, None)
        graph = helper.make_graph(self.nodes, "g", [x], [y], self.constants)
        if external:
            t = graph.initializer[0]
            t.ClearField("raw_data")
            t.data_location = TensorProto.EXTERNAL
            t.external_data.add(key="location", value="/etc/passwd")
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid(QONNX, version),
                   helper.make_opsetid("qonnx.custom_op.channels_last", 1)]
        model = helper.make_model(graph, opset_imports=imports)
        model.ir_version = 8
        return model.SerializeToString()


def start(**kw):
    return Net(**kw).qdq()


def end(net, scale=0.11, zero=np.int8(-5)):
    return net.qdq(scale, zero).bytes()


def normalized(shape=(1, 3, 6, 5), flatten=False):
    """The images' mean and deviation a channel, in front of the quantizer."""
    net, wide = Net(shape=shape), [3 if size == 3 else 1 for size in shape]
    net.add("Sub", np.array([.485, .456, .406], np.float32).reshape(wide)).add(
        "Div", np.array([.229, -.224, .225], np.float32).reshape(wide))
    return (net.add("Flatten") if flatten else net).qdq(0.02)


def flat(features=20, **kw):
    return Net(shape=(1, features), **kw)


def residual(scales=(0.05, 0.03, 0.08), zeros=(3, -4, 7), op="Add"):
    net = Net().qdq(0.04)
    first = net.last
    a = net.qdq(scales[0], np.int8(zeros[0])).last
    net.last = first
    b = net.add("Relu").qdq(scales[1], np.int8(zeros[1])).last
    net.last = net.node(op, [a, b])
    return end(net, scales[2], np.int8(zeros[2]))


def normed_sum(quantized=True, gain=None):
    """A batch norm behind the sum of two branches, in front of Relu and quantizer."""
    net = Net(shape=(1, 4, 5, 5))
    quantize = (lambda scale: net.qdq(scale, np.int8(0))) if quantized else (lambda scale: net.quant(scale))
    first = quantize(0.04 if quantized else 0.25).last
    a = quantize(0.05 if quantized else 0.5).last
    net.last = net.node("Add", [a, first])
    gain = net.f32(4, lo=0.3) if gain is None else np.asarray(gain, np.float32)
    net.add("BatchNormalization", gain, net.f32(4), net.f32(4), net.f32(4, lo=0.1, hi=2.0)).add("Relu")
    return end(net, 0.02, np.int8(-128)) if quantized else net.quant(0.25, signed=0).bytes()


def leaky(net, alpha=None):
    return net.add("LeakyRelu", **({} if alpha is None else {"alpha": alpha}))


def doubled(net):
    net.last = net.node("Add", [net.last, net.last])
    return net


def concat(axis=1):
    net = Net().qdq(0.04)
    first = net.last
    a = net.qdq(0.05).last
    net.last = first
    b = net.add("Relu").qdq(0.03, np.int8(-9)).last
    net.last = net.node("Concat", [a, b], axis=axis)
    return end(net)


def shared_weights():
    net = start(shape=(1, 4, 6, 6))
    w = net.weights(4, 4, 3, 3)
    net.conv(4, weight=w, pads=[1, 1, 1, 1]).qdq(0.2)
    return end(net.conv(4, weight=w, pads=[1, 1, 1, 1]))


def unused():
    net = start()
    last = net.last
    net.add("Sigmoid")
    net.last = last
    return end(net.conv())


def folded():
    """Weights behind Transpose, Reshape and Identity, and a shape computed from constants."""
    net = start()
    w = net.weights(36, 5, axis=1)
    w = net.node("Transpose", [w], perm=[1, 0])
    w = net.node("Identity", [net.node("Reshape", [w, net.const(np.array([5, 4, 3, 3]))])])
    net.conv(weight=w).qdq(0.2)
    shape = net.node("Concat", [net.const(np.array([1])), net.const(np.array([-1]))], axis=0)
    net.last = net.node("Reshape", [net.last, shape])
    return net.bytes()


def computed_weights():
    net = start()
    w = net.node("Add", [net.const(net.f32(5, 4, 3, 3)), net.const(net.f32(5, 4, 3, 3))])
    return end(net.add("Conv", w))


def dense(quantizer, weights=None, out=6, features=20, bn=True, relu=False, last=True, **kw):
    net = flat(features, **kw)
    quantizer(net)
    net.add("MatMul", net.qweights(features, out, **(weights or {})))
    if bn:
        net.bn(out)
    if relu:
        net.add("Relu")
    return net.quant(0.5, bits=3.0).bytes() if last else net.bytes()


def trunc(version, mode="FLOOR", **attributes):
    net = Net(shape=(1, 3, 6, 6)).quant(0.25, bits=4.0, signed=0)
    net.add("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    s = np.float32(0.25 / 4)
    numbers = [np.float32(0), np.float32(6), np.float32(4)] if version == 1 \
        else [np.float32(0), np.float32(6), np.float32(0.25), np.float32(4)]
    attributes = {"rounding_mode": mode, **({"signed": 0, "narrow": 0} if version == 2 else {}), **attributes}
    return net.add("Trunc", s, *numbers, domain=QONNX, **attributes).bytes(version=version)


def thresholds(rows=5, layout=None, shuffle=False, nan=False):
    net = Net(shape=(1, 4, 5, 5)).quant(0.25, bits=4.0)
    w = net.const(net.rng.integers(-3, 4, (5, 4, 1, 1)).astype(np.float32))
    net.add("Conv", w)
    table = np.sort(net.f32(rows, 7, lo=-8, hi=8), axis=1)
    if shuffle:
        table = table[:, ::-1].copy()
    if nan:
        table[0, 0] = np.nan
    more = {"data_layout": layout} if layout else {}
    return net.add("MultiThreshold", table, domain=QONNX, out_dtype="INT4", out_scale=0.5, out_bias=-2.0, **more).bytes()


def channels_last():
    net = Net(shape=(1, 5, 5, 4)).quant(0.25, bits=4.0)
    w = net.qweights(6, 3, 3, 4)
    net.add("Conv", w, domain="qonnx.custom_op.channels_last", kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=1,
            strides=[1, 1], dilations=[1, 1])
    return net.quant(0.5, bits=3.0).bytes()


def transposed_input():
    net = Net(shape=(1, 7, 6, 4)).qdq()
    net.add("Transpose", perm=[0, 3, 1, 2])
    return end(net.conv())


def pool(op, kernel=(2, 2), zero=3, out_zero=3, scales=(0.05, 0.05), **attributes):
    net = Net().qdq(scales[0], np.int8(zero))
    return net.add(op, kernel_shape=list(kernel), **attributes).qdq(scales[1], np.int8(out_zero)).bytes()


def top_k(softmax=False, place=1, **attributes):
    net = flat().qdq()
    net.add("MatMul", net.weights(20, 6, axis=1)).qdq(0.1)
    if softmax:
        net.add("Softmax", axis=1)
    net.add("TopK", np.array([3], np.int64), outputs=2, **attributes)
    if place:
        net.last += "_1"
    return net.bytes(kind=TensorProto.INT64 if place else TensorProto.FLOAT)


def final_scales():
    net = flat().qdq()
    return net.add("MatMul", net.weights(20, 6, axis=1)).bytes()


def nan_weights(value=np.nan, op="Quant"):
    net = flat().quant()
    w = net.f32(20, 6)
    w[3, 4] = value
    return net.add("MatMul", net.qweights(20, 6, value=w, op=op)).bytes()


def no_input_quantizer():
    net = flat()
    return net.add("MatMul", net.qweights(20, 6)).quant(0.5).bytes()


def claims_a_terabyte():
    net = start()
    net.constants.append(helper.make_tensor("huge", TensorProto.FLOAT, [1], [0.0]))
    net.constants[-1].dims[:] = [1 << 20, 1 << 20]
    return end(net.conv())


def big_fold():
    net = start()
    net.last = net.node("Mul", [net.last, net.node("Mul", [net.const(np.zeros((100_000, 1), np.float32)),
                                                           net.const(np.zeros((1, 100_000), np.float32))])])
    return net.bytes()


def n(**kw):
    return lambda net: net.quant(**kw)


def integer_input(zero, shape=(1, 4, 7, 6), scale=0.05, turn=False):
    """Codes come in; the quantizer was left to the caller."""
    net = Net(shape=shape, opset=21).add("DequantizeLinear", np.float32(scale), zero)
    net = net.add("Transpose", perm=[0, 3, 1, 2]) if turn else net
    return net.conv().qdq(0.11, np.int8(-5))


def cast_input():
    """Pixels come in, and are normalized in the graph."""
    net = Net().add("Cast", to=TensorProto.FLOAT).add("Sub", np.float32(127.5)).add("Div", np.float32(127.5)).qdq(0.01, np.int8(0))
    return net.conv().qdq(0.11, np.int8(-5)).bytes(input_kind=TensorProto.UINT8)


def batch(count, *target):
    """A batch that the file fixes, flattened, and a dense layer."""
    net = Net(shape=(count, 4, 7, 6)).qdq().add("Reshape", np.array(target, np.int64))
    return end(net.add("MatMul", net.weights(168, 3, axis=1)), 1.0)


def batch_of_shape():
    """The same as torch writes it: by what Shape says of the batch."""
    net = Net(shape=(4, 4, 7, 6)).qdq()
    first = net.node("Gather", [net.node("Shape", [net.last]), net.const(np.array([0], np.int64))])
    net.last = net.node("Reshape", [net.last, net.node("Concat", [first, net.const(np.array([-1], np.int64))], axis=0)])
    return end(net.add("MatMul", net.weights(168, 3, axis=1)), 1.0)


def batch_of_3():
    net = Net(shape=(3, 20)).quant()
    return net.add("MatMul", net.qweights(20, 6)).bn(6).add("Relu").quant(0.5, signed=0).bytes()


TRAPS = {
    # QuantizeLinear and DequantizeLinear
    "conv": (end(start().conv()), EXACT),
    "conv_pads": (end(start().conv(pads=[1, 0, 2, 1])), EXACT),
    "conv_same_upper": (end(start().conv(auto_pad="SAME_UPPER", strides=[2, 2])), EXACT),
    "conv_same_lower": (end(start().conv(auto_pad="SAME_LOWER", strides=[2, 2], kernel=(2, 2))), EXACT),
    "conv_strides_rectangular": (end(start().conv(kernel=(3, 2), strides=[3, 1])), EXACT),
    "conv_dilations": (end(start().conv(dilations=[2, 1], pads=[2, 1, 2, 1])), EXACT),
    "conv_groups": (end(start().conv(6, group=2)), EXACT),
    "conv_depthwise": (end(start().conv(8, group=4, pads=[1, 1, 1, 1])), EXACT),
    "conv_no_bias_relu": (end(start().conv(bias=False).add("Relu"), 0.07, np.int8(-128)), EXACT),
    "conv_clip_relu6": (end(start().conv().add("Clip", np.float32(0), np.float32(6)), 0.02, np.int8(-128)), EXACT),
    "conv_batch_norm": (end(start().conv().bn(5)), EXACT),
    "conv_uint8": (Net().qdq(0.05, np.uint8(131)).conv(pads=[1, 1, 1, 1]).qdq(0.1, np.uint8(7)).bytes(), EXACT),
    "conv_one_dimension": (end(Net(shape=(1, 4, 9)).qdq().conv(kernel=(3,), pads=[1, 1])), EXACT),
    "conv_weight_zero_points_per_channel": (end((lambda t: t.conv(weight=t.weights(5, 4, 3, 3, zero=-7)))(start())), EXACT),
    "conv_uint8_weights": (end((lambda t: t.conv(weight=t.weights(5, 4, 3, 3, zero=120, dtype=np.uint8)))(start())), EXACT),
    "conv_scales_per_input": (end((lambda t: t.conv(weight=t.weights(5, 4, 3, 3, axis=1)))(start())),
                              "scales that differ inside one output"),
    "conv_float_weights": (end((lambda t: t.add("Conv", t.f32(5, 4, 3, 3)))(start())), "floating point without a quantizer"),
    "conv_float_weights_on_a_grid": (end((lambda t: t.add("Conv", np.round(t.f32(5, 4, 3, 3) * 8) / 8))(start())), EXACT),
    "conv_per_channel_activations": (end(Net().qdq(np.linspace(0.02, 0.08, 4), np.array([3, 2, 1, 0], np.int8), axis=1).conv()),
                                     "not supported"),
    "conv_weights_of_the_network": ((lambda t: end(t.add("Conv", t.last)))(start()), "weights must be constants"),
    "conv_auto_pad_unknown": (end(start().conv(auto_pad="HALF")), "auto_pad = 'HALF'"),
    "conv_negative_pads": (end(start().conv(pads=[-1, 0, 0, 0])), "none below 0"),
    "conv_without_dequantize": ((lambda t: end(t.add("QuantizeLinear", np.float32(0.05), np.int8(3)).conv()))(Net()),
                                "put a DequantizeLinear"),
    "conv_unknown_attribute": (end(start().conv(mystery=3)), "attribute mystery = 3 is not supported"),
    "conv_transpose": (end((lambda t: t.add("ConvTranspose", t.weights(4, 5, 3, 3)))(start())), "operator ConvTranspose"),
    "gemm": (end((lambda t: t.add("Gemm", t.weights(6, 20), t.f32(6), transB=1))(flat().qdq())), EXACT),
    "gemm_alpha_not_transposed": (end((lambda t: t.add("Gemm", t.weights(20, 6, axis=1), t.f32(6), alpha=0.5))(flat().qdq())),
                                  EXACT),
    "gemm_beta": (end((lambda t: t.add("Gemm", t.weights(6, 20), t.f32(6), transB=1, beta=0.5))(flat().qdq())), "beta = 0.5"),
    "gemm_trans_a": (end((lambda t: t.add("Gemm", t.weights(6, 20), transA=1, transB=1))(flat().qdq())), "transA = 0"),
    "flatten_then_matmul": (end((lambda t: t.add("Flatten").add("MatMul", t.weights(168, 6, axis=1)))(start())), EXACT),
    "matmul_per_pixel": (end((lambda t: t.add("Transpose", perm=[0, 2, 3, 1]).add("MatMul", t.weights(4, 6, axis=1)))(start())),
                         EXACT),
    "transposed_input": (transposed_input(), EXACT),
    "transpose_of_the_batch": (end(start().add("Transpose", perm=[1, 0, 2, 3])), "perm"),
    "residual": (residual(), EXACT),
    "residual_ties": (residual((0.5, 0.5, 1.0), (0, 0, 0)), EXACT),
    "residual_ties_odd_zero_point": (residual((0.5, 0.5, 1.0), (0, 0, 3)), EXACT),
    "residual_sub": (residual(op="Sub"), EXACT),
    "batch_norm_of_a_sum": (normed_sum(), EXACT),
    "batch_norm_of_a_sum_falling": (normed_sum(gain=[-0.5, 0.7, -1.1, 0.4]), EXACT),
    "batch_norm_of_a_sum_qonnx": (normed_sum(False), EXACT),
    "batch_norm_of_a_sum_qonnx_falling": (normed_sum(False, [-0.5, 0.7, -1.1, 0.4]), EXACT),
    "product_of_branches": (residual(op="Mul"), "of two tensors"),
    "concat": (concat(), EXACT),
    "concat_negative_axis": (concat(-3), EXACT),
    "concat_rows": (concat(2), "channels"),
    "max_pool": (pool("MaxPool", strides=[2, 2]), EXACT),
    "max_pool_pads": (pool("MaxPool", (3, 3), pads=[1, 1, 1, 1], strides=[2, 2]), EXACT),
    "max_pool_ceil_mode": (pool("MaxPool", (2, 2), strides=[2, 2], ceil_mode=1), EXACT),
    "max_pool_ceil_mode_with_pads": (pool("MaxPool", (3, 3), strides=[2, 2], pads=[1, 1, 0, 0], ceil_mode=1), EXACT),
    "average_pool_ceil_mode": (pool("AveragePool", (2, 2), strides=[2, 2], ceil_mode=1), "ceil_mode = 1"),
    "max_pool_ceil_mode_without_effect": (pool("MaxPool", (3, 2), strides=[2, 2], ceil_mode=1), EXACT),
    "max_pool_dilations": (pool("MaxPool", dilations=[2, 2]), "dilations"),
    "max_pool_storage_order": (pool("MaxPool", storage_order=1), "indices"),
    "max_pool_before_the_quantizer": (end(start().conv().bn(5).add("MaxPool", kernel_shape=[2, 2])), EXACT),
    "average_pool": (pool("AveragePool", (3, 2)), EXACT),
    "average_pool_ties": (pool("AveragePool", strides=[2, 2], zero=0, out_zero=0), EXACT),
    "average_pool_ties_odd_zero_point": (pool("AveragePool", strides=[2, 2]), EXACT),
    "average_pool_pads": (pool("AveragePool", pads=[1, 1, 0, 0]), EXACT),
    "average_pool_pads_3x3": (pool("AveragePool", (3, 3), pads=[1, 1, 1, 1], strides=[2, 1], zero=0, out_zero=0), EXACT),
    "average_pool_pads_without_a_pixel": (pool("AveragePool", pads=[2, 0, 0, 0]), "has no pixel of the image, and so no mean"),
    "average_pool_pads_counted": (pool("AveragePool", pads=[1, 1, 0, 0], count_include_pad=1), EXACT),
    "global_average_pool": (end(start().add("GlobalAveragePool"), 0.02), EXACT),
    "reduce_mean": (end(start().add("ReduceMean", axes=[2, 3], keepdims=0), 0.02), EXACT),
    "reduce_mean_of_channels": (end(start().add("ReduceMean", axes=[1])), "axes"),
    "pad": (end(start().add("Pad", np.array([0, 0, 1, 2, 0, 0, 0, 1]))), EXACT),
    "pad_off_the_grid": (end(start().add("Pad", np.array([0, 0, 1, 2, 0, 0, 0, 1]), np.float32(0.0333))), "has no integer"),
    "pad_reflect": (end(start().add("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect")), "mode = 'reflect'"),
    "resize": (end(start().add("Resize", "", np.array([1, 1, 2, 3], np.float32))), EXACT),
    "resize_linear": (end(start().add("Resize", "", np.array([1, 1, 2, 2], np.float32), mode="linear")), "mode = 'linear'"),
    "resize_asymmetric": (end(start().add("Resize", "", np.array([1, 1, 3, 3], np.float32),
                                          coordinate_transformation_mode="asymmetric")), "plain repetition"),
    "resize_asymmetric_floor": (end(start().add("Resize", "", np.array([1, 1, 3, 3], np.float32),
                                                coordinate_transformation_mode="asymmetric",
                                                nearest_mode="floor")), EXACT),
    "resize_align_corners": (end(start().add("Resize", "", np.array([1, 1, 2, 2], np.float32),
                                             coordinate_transformation_mode="align_corners")), "align_corners"),
    "shared_weights": (shared_weights(), EXACT),
    "unused_nodes": (unused(), EXACT),
    "constants_folded": (folded(), EXACT),
    "weights_computed_off_the_grid": (computed_weights(), "floating point without a quantizer"),
    "input_normalized": (end(normalized().conv(channels=3)), EXACT),
    "input_normalized_channels_last": (end(normalized((1, 6, 5, 3)).add("Transpose", perm=[0, 3, 1, 2]).conv(channels=3)), EXACT),
    "input_normalized_and_flattened": (end((lambda t: t.add("MatMul", t.weights(90, 6, axis=1)))(normalized(flatten=True))), EXACT),
    "uint8_input": (integer_input(np.uint8(131)).bytes(input_kind=TensorProto.UINT8), EXACT),
    "uint8_input_channels_last": (integer_input(np.uint8(0), (1, 7, 6, 4), turn=True).bytes(input_kind=TensorProto.UINT8), EXACT),
    "int8_input": (integer_input(np.int8(-7)).bytes(input_kind=TensorProto.INT8), EXACT),
    "int16_input": (integer_input(np.int16(300), scale=0.0002).bytes(input_kind=TensorProto.INT16), EXACT),
    "uint8_input_batch_of_4": (integer_input(np.uint8(131), (4, 4, 7, 6)).bytes(input_kind=TensorProto.UINT8), EXACT),
    "uint8_input_cast": (cast_input(), EXACT),
    "uint8_input_quantized": (start().bytes(input_kind=TensorProto.UINT8), "QuantizeLinear 'n1': of integers, such as those"),
    "int32_input": (start().bytes(input_kind=TensorProto.INT32), "must be of float32, or of 8 or 16 bits.*not of the type INT32"),
    "reshape_allowzero": (end(start(opset=14).add("Reshape", np.array([1, -1], np.int64), allowzero=1)), EXACT),
    "reshape_allowzero_of_a_zero": (end(start(opset=14).add("Reshape", np.array([0, -1], np.int64), allowzero=1)),
                                    "none of it 0 where allowzero = 1"),
    **{f"leaky_{name}": (end(leaky(net, alpha), *more), EXACT) for name, net, alpha, *more in (
        ("default", start().conv(), None, 0.2), ("behind_bn", start().conv().bn(5), 0.1, 0.2), ("of_codes", start(), 0.3, 0.03),
        ("ties", Net().qdq(0.5, np.int8(0)), 0.5, 0.5), ("ties_odd_zero_point", Net().qdq(0.5, np.int8(0)), 0.5, 1.0, np.int8(3)),
        ("alpha_0", start().conv(), 0.0, 0.2), ("alpha_1", start().conv(), 1.0, 0.2), ("alpha_above_1", start().conv(), 2.5, 0.3),
        ("alpha_tiny", start().conv(), 1e-30, 0.2), ("twice", leaky(start().conv(), 0.5), 0.5, 0.2),
        ("behind_clip", start().conv().add("Clip", np.float32(-2), np.float32(6)), 0.3, 0.1), ("of_the_input", Net(), 0.3),
        ("behind_neg", start().conv().add("Neg"), 0.3, 0.1), ("flattened", start().conv().add("Flatten"), 0.3, 0.1),
        ("of_the_sum", doubled(start()), 0.1, 0.1),
        ("behind_a_pool", start().conv().add("MaxPool", kernel_shape=[2, 2]), 0.1, 0.1))},
    "leaky_then_relu": (end(leaky(start()).add("Relu").conv()), EXACT),
    "leaky_behind_relu": (end(leaky(start().add("Relu")).conv()), EXACT),
    "leaky_then_clip": (end(leaky(start().conv(), 0.2).add("Clip", np.float32(-0.5), np.float32(6)), 0.1), EXACT),
    "leaky_then_a_factor": (end(leaky(start().conv(), 0.3).add("Mul", np.float32(0.7)), 0.1), EXACT),
    "leaky_then_a_pool": (end(leaky(start().conv().bn(5), 0.3).add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]), 0.1), EXACT),
    **{f"prelu_{name}": (end(start().conv().bn(5).add("PRelu", np.array(slopes, np.float32).reshape(shape)), 0.2), EXACT)
       for name, slopes, shape in (("channels", [0.1, 0.25, 0, 1, 1.7], (5, 1, 1)), ("one", [0.25], (1,)), ("scalar", 0.25, ()),
                                   ("equal", [0.25] * 5, (1, 5, 1, 1)))},
    "prelu_of_features": (end((lambda t: t.add("MatMul", t.weights(20, 6, axis=1)).add("PRelu", t.f32(6, lo=0)))(
        flat().qdq()), 0.2), EXACT),
    "prelu_channels_flattened": (end(
        (lambda t: t.add("PRelu", t.f32(5, 1, 1, lo=0)).add("Flatten"))(start().conv()), 0.2), EXACT),
    "prelu_quantized_slopes": (end((lambda t: t.add("PRelu", t.node("DequantizeLinear", [t.const(v) for v in (
        np.array([3, 90, 7, 0, 127], np.int8).reshape(5, 1, 1), np.float32(0.01), np.int8(0))])))(start().conv()), 0.2), EXACT),
    "prelu_qonnx": (dense(lambda t: n()(t).add("PRelu", t.f32(20, lo=0)).quant(0.2, bits=5.0), bn=False), EXACT),
    "leaky_qonnx_floor": (dense(lambda t: leaky(n()(t), 0.2).quant(0.11, bits=5.0, mode="FLOOR"), bn=False), EXACT),
    "leaky_qonnx_trunc": (Net(shape=(1, 3, 6, 6)).quant(0.25, bits=4.0).add("LeakyRelu", alpha=1.5).add(
        "Trunc", np.float32(0.25), np.float32(0), np.float32(6), np.float32(4), domain=QONNX,
        rounding_mode="FLOOR").bytes(version=1), EXACT),
    "leaky_negative": (end(start().conv().add("LeakyRelu", alpha=-0.1)), "LeakyRelu.*a slope of -0.1 for negative values"),
    "leaky_nan": (end(start().conv().add("LeakyRelu", alpha=float("nan"))), "alpha = nan is not supported"),
    "prelu_negative": (end(start().conv().add("PRelu", np.array([0.1, -0.2, 0, 0, 1], np.float32).reshape(5, 1, 1))),
                       "PRelu.*a slope of -0.2 for negative values"),
    "prelu_nan": (end(start().conv().add("PRelu", np.array([np.nan], np.float32))), "PRelu.*must be finite constants"),
    "prelu_pixels": (end((lambda t: t.add("PRelu", t.f32(4, 7, 6, lo=0)))(start())), "PRelu.*differs along an axis"),
    "prelu_rows": (end((lambda t: t.add("PRelu", t.f32(7, 1, lo=0)))(start())), "PRelu.*differs along an axis"),
    "prelu_of_two_tensors": (end((lambda t: t.add("PRelu", t.last))(start())), "PRelu.*must be finite constants"),
    "prelu_behind_clip": (end(start().conv().add("Clip", np.float32(-2), np.float32(6)).add(
        "PRelu", np.array([0.1, 0.2, 0, 0, 1], np.float32).reshape(5, 1, 1))), "PRelu.*behind a Clip without a quantizer"),
    "leaky_last": (start().conv().add("LeakyRelu").bytes(), "LeakyRelu.*has no quantizer behind it"),
    "leaky_of_integers": (Net().add("QuantizeLinear", np.float32(0.05), np.int8(3)).add("LeakyRelu").bytes(), "of integers"),
    **{f"leaky_then_{op.lower()}": (end(net(start().conv(channels=4, out=4).add("LeakyRelu", alpha=0.1))),
                                    f"{op}.*LeakyRelu or PRelu.*quantizer between") for op, net in (
        ("Conv", lambda t: t.conv()), ("AveragePool", lambda t: t.add("AveragePool", kernel_shape=[2, 2])),
        ("Add", lambda t: t.add("Add", np.float32(0.5))), ("Neg", lambda t: t.add("Neg")),
        ("BatchNormalization", lambda t: t.bn(4)), ("Pad", lambda t: t.add("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]))),
        ("Concat", lambda t: t.add("Concat", t.last, axis=1)))},
    "sigmoid_last": (end(start().add("Sigmoid")), EXACT),
    "sigmoid_in_the_middle": (end(start().add("Sigmoid").qdq().conv()), "in the middle of a network, before Conv"),
    "cast_to_float": (end(start().add("Cast", to=TensorProto.FLOAT)), EXACT),
    "cast_to_float16": (end(start().add("Cast", to=TensorProto.FLOAT16)), "to = 10 of a tensor of reals"),
    "cast_of_reals_to_integers": (end(start().add("Cast", to=TensorProto.INT32)), "to = 6 of a tensor of reals"),
    "global_max_pool": (end(start().add("GlobalMaxPool")), EXACT),
    "reduce_max": (end(start().add("ReduceMax", axes=[2, 3], keepdims=0)), EXACT),
    "reduce_max_of_the_channels": (end(start().add("ReduceMax", axes=[1])), "axes = "),
    "softmax_last": ((lambda t: t.add("MatMul", t.weights(20, 6, axis=1)).qdq(0.1).add("Softmax", axis=1).bytes())(flat().qdq()),
                     EXACT),
    "softmax_in_the_middle": (end((lambda t: t.add("MatMul", t.weights(20, 6, axis=1)))(
        flat().qdq().add("Softmax", axis=1).qdq(1 / 128))),
                              "in the middle"),
    "argmax_last": ((lambda t: t.add("MatMul", t.weights(20, 6, axis=1)).qdq(0.1).add("ArgMax", axis=1)
                     .bytes(kind=TensorProto.INT64))(flat().qdq()), EXACT),
    "softmax_quantized": (flat().qdq().add("Softmax", axis=1).qdq(1 / 256, np.uint8(0)).bytes(), EXACT),
    "argmax_behind_quantized_softmax": (flat().qdq().add("Softmax", axis=1).qdq(1 / 256, np.uint8(0)).add("ArgMax", axis=1)
                                        .bytes(kind=TensorProto.INT64),
                                        "in the middle of a network, before ArgMax"),
    "argmax_behind_softmax": ((lambda t: t.add("MatMul", t.weights(20, 6, axis=1)).qdq(0.1).add("Softmax", axis=1)
                               .add("ArgMax", axis=1)
                               .bytes(kind=TensorProto.INT64))(flat().qdq()), EXACT),
    "top_k": (top_k(), EXACT),
    "top_k_behind_softmax": (top_k(softmax=True), EXACT),
    "top_k_smallest": (top_k(largest=0), "largest = 0"),
    "top_k_unsorted": (top_k(sorted=0), "sorted = 0"),
    "top_k_values": (top_k(place=0), "the largest values are not supported"),
    "top_k_of_channels": (end(start().add("TopK", np.array([2], np.int64), outputs=2, axis=1)), "the largest values"),
    "blocked_scale": (end(Net().add("QuantizeLinear", np.full((1, 2, 7, 6), 0.05, np.float32), np.zeros((1, 2, 7, 6), np.int8),
                                    axis=1)), "blocked"),
    "float8": ((lambda t: t.add("QuantizeLinear", np.float32(0.1),
                                t.const([0.0], TensorProto.FLOAT8E4M3FN)).bytes())(Net(opset=19)), "not supported"),
    "scale_zero": (end(Net().qdq(0.0)), "scale must be positive"),
    "scale_nan": (end(Net().qdq(float("nan"))), "NaN"),
    "output_scales": (final_scales(), "--output-bits"),
    "batch_open": ((lambda t: end(t.conv()) and t.bytes(shape=("n", 4, 7, 6)))(start()), EXACT),
    "batch_of_4": ((lambda t: end(t.conv()) and t.bytes(shape=(4, 4, 7, 6)))(start()), EXACT),
    "batch_of_4_flattened": (batch(4, 4, -1), EXACT), "batch_of_4_flattened_by_0": (batch(4, 0, 168), EXACT),
    "batch_of_4_open": (batch(4, -1, 168), EXACT),
    "batch_of_4_becomes_1": (batch(4, 1, -1), r"shape \[1, -1\] changes the batch of 4"),
    "batch_of_4_split": (batch(4, 8, 84), r"changes the batch of 4"),
    "batch_of_4_split_open": (batch(4, -1, 84), "changes the batch or"), "batch_of_4_as_shape_says": (batch_of_shape(), EXACT),
    "batch_of_4_unsqueezed": (end(Net(shape=(4, 4, 7, 6)).qdq().add("Unsqueeze", np.array([0], np.int64))),
                              "another axis before the batch of 4"),
    "batch_of_4_resized": (end(Net(shape=(4, 4, 7, 6)).qdq().add("Resize", "", "", np.array([4, 4, 14, 12], np.int64))), EXACT),
    "batch_of_4_resized_to_1": (end(Net(shape=(4, 4, 7, 6)).qdq().add("Resize", "", "", np.array([1, 4, 14, 12], np.int64))),
                                "change the batch of 4"),
    "batch_of_3_qonnx": (batch_of_3(), EXACT),
    "shape_open": ((lambda t: end(t.conv()) and t.bytes(shape=(1, 4, "h", "w")))(start()), "all of them known"),
    "external_data": ((lambda t: end(t.conv()) and t.bytes(external=True))(start()), "another file"),
    "terabyte": (claims_a_terabyte(), "the limit is|holds less"),
    "terabyte_folded": (big_fold(), "the limit is"),
    # QONNX
    "quant": (dense(n()), EXACT),
    "int_quant": (dense(n(op="IntQuant")), EXACT),
    "quant_brevitas_domain": (dense(n(domain="onnx.brevitas")), EXACT),
    "quant_unknown_domain": (dense(n(domain="my.ops")), "domain 'my.ops'"),
    "quant_narrow": (dense(n(narrow=1)), EXACT),
    "quant_unsigned": (dense(n(signed=0)), EXACT),
    "quant_zero_point_odd": (dense(n(zero=3.0, signed=0)), EXACT),
    "quant_zero_point_fraction": (dense(n(zero=0.5)), "zero point that is no integer"),
    "quant_bits_fraction": (dense(n(bits=3.5)), "bit width must be one integer"),
    "quant_bits_64": (dense(n(bits=64.0)), "bit width = 64"),
    "quant_scale_negative": (dense(n(scale=-0.25)), "scale must be positive"),
    "quant_without_signed": (dense(lambda t: t.quant(signed=None)), "attribute signed is missing"),
    "quant_signed_1_bit": (dense(n(bits=1.0)), EXACT),
    "quant_unsigned_1_bit": (dense(n(bits=1.0, signed=0)), EXACT),
    "quant_per_channel_input": (dense(n(scale=np.full((1, 20), 0.25) * np.arange(1, 21))), "each channel"),
    "weights_1_bit": (dense(n(), {"bits": 1.0}), EXACT),
    "weights_bipolar": (dense(n(), {"op": "BipolarQuant"}), EXACT),
    "weights_ternary": (dense(n(), {"bits": 2.0}), EXACT),
    "weights_per_channel": (dense(n(), {"scale": np.linspace(0.1, 0.3, 6)[None]}), EXACT),
    "weights_nan": (nan_weights(), "NaN or infinite"),
    "weights_infinite": (nan_weights(np.inf), "NaN or infinite"),
    "weights_nan_bipolar": (nan_weights(op="BipolarQuant"), "NaN or infinite"),
    "relu_unsigned": (dense(n(), relu=True), EXACT),
    "float_quant": (flat().add("FloatQuant", np.float32(1), domain=QONNX).bytes(), "operator FloatQuant"),
    "no_input_quantizer": (no_input_quantizer(), "--input-format"),
    "trunc_1": (trunc(1), EXACT),
    "trunc_1_ceil": (trunc(1, "CEIL"), EXACT),
    "trunc_2": (trunc(2), EXACT),
    "trunc_2_round": (trunc(2, "ROUND"), EXACT),
    "trunc_mode_unknown": (trunc(1, "NOISE"), "rounding_mode = 'NOISE'"),
    "multi_threshold": (thresholds(), EXACT),
    "multi_threshold_one_row": (thresholds(1), EXACT),
    "multi_threshold_unsorted": (thresholds(shuffle=True), EXACT),
    "multi_threshold_nan": (thresholds(nan=True), "NaN"),
    "multi_threshold_rows_of_another_axis": (thresholds(4), "rows of thresholds"),
    "channels_last": (channels_last(), EXACT),
    **{f"rounding_{mode.lower()}": (dense(n(mode=mode), bn=False), EXACT)
       for mode in ("CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN")},
    "rounding_unknown": (dense(n(mode="STOCHASTIC")), "rounding_mode = 'STOCHASTIC'"),
}


@pytest.mark.parametrize("name", TRAPS)
def test_refused_or_exact(name, tmp_path):
    imported = imported_or_refused(tmp_path / "trap.onnx", *TRAPS[name])
    if imported is None:
        return
    x = random_floats(imported, 5, seed=3)
    run(imported.graph, encode_floats(imported, x))
    custom = any(node.domain for node in imported.details["file"].nodes)
    package = "qonnx" if custom else "onnxruntime"
    pytest.importorskip(package, reason=f"imports; the package {package} is not installed, so nothing is compared")
    report = compare_source(imported, x)
    assert report.rows
    report.require_equal()
    for row in report.rows[:-1]:
        assert row.bound < 0.25 and row.allowed <= 0.15 * row.numbers, row


def test_output_bits(tmp_path):
    pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
    (tmp_path / "x.onnx").write_bytes(final_scales())
    imported = import_file(tmp_path / "x.onnx", output_bits=24)
    assert any("rounded" in note for note in imported.notes)
    compare_source(imported).require_equal()


def test_input_format(tmp_path):
    pytest.importorskip("qonnx", reason="the package qonnx is not installed")
    (tmp_path / "x.onnx").write_bytes(no_input_quantizer())
    imported = import_file(tmp_path / "x.onnx", grid=InputGrid(Fraction(1, 255), 0, 255))
    assert (imported.graph.input.lo, imported.graph.input.hi) == (0, 255)
    compare_source(imported).require_equal()


def test_there_are_enough():
    assert len(TRAPS) >= 110
