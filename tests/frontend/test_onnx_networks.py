"""Small networks as exporters write them, in ONNX QDQ and QONNX: equal to executors inside their error bound, and in hardware."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from hwq.frontend.importer import compare_source, import_file  # noqa: E402
from hwq.interp import run  # noqa: E402
from tests.plan.test_corners import exact  # noqa: E402

from .expected import EXACT, imported_or_refused  # noqa: E402
from .test_onnx_traps import Net  # noqa: E402

INT8, UINT8 = np.int8, np.uint8


class Qdq(Net):
    """As onnxruntime's quantize_static writes: uint8 or int8 activations, int8 weights a channel, biases of int32."""

    def __init__(self, shape, kind=UINT8, scale=0.02, zero=128, **more):
        super().__init__(shape=shape, **more)
        self.kind = kind
        self.q(scale, zero if kind is UINT8 else zero - 128)

    def q(self, scale=0.03, zero=0):
        self.scale = scale
        return self.qdq(scale, self.kind(zero))

    def bias(self, scales, outputs):
        codes = self.const(self.rng.integers(-300, 300, outputs).astype(np.int32))
        scale = (np.asarray(scales) * self.scale).astype(np.float32)
        return self.node("DequantizeLinear", [codes, self.const(scale), self.const(np.zeros(scale.shape, np.int32))],
                         **({"axis": 0} if scale.ndim else {}))

    def layer(self, op, shape, fan, axis=0, reduce=False, **attributes):
        """Append a Conv, Gemm or MatMul with quantized weights; Gemm and Conv have a bias."""
        outputs, top = shape[axis], 63 if reduce else 127
        scales = self.f32(outputs, lo=1.5, hi=4.5) / np.float32(top * fan ** 0.5)
        codes = self.const(self.rng.integers(-top, top + 1, shape).astype(np.int8))
        if self.opset < 13:                        # one scale for the tensor: the axis came with 13
            scales = scales[:1].reshape(())
        more = {} if scales.ndim == 0 else {"axis": axis}
        weight = self.node("DequantizeLinear", [codes, self.const(scales), self.const(np.zeros(scales.shape, np.int8))], **more)
        bias = [] if op == "MatMul" else [self.bias(scales, outputs)]
        return self.add(op, weight, *bias, **attributes)

    def conv(self, channels, out, kernel=(3, 3), group=1, relu="Relu", scale=0.03, zero=None, **attributes):
        """Conv, Relu or Clip, quantizer; pads that keep the size unless given."""
        attributes.setdefault("pads", [*(k // 2 for k in kernel), *(k // 2 for k in kernel)])
        low = 0 if self.kind is UINT8 else -128
        self.layer("Conv", (out, channels // group, *kernel), channels // group * int(np.prod(kernel)), group=group,
                   kernel_shape=list(kernel), **attributes)
        if relu == "Clip":
            self.add("Clip", np.float32(0), np.float32(6))
        elif relu:
            self.add(relu)
        return self.q(scale, low + (0 if relu else 128) if zero is None else zero)

    def join(self, op, *others, scale=0.05, zero=None, **attributes):
        self.last = self.node(op, [self.last, *others], **attributes)
        return self.q(scale, (120 if self.kind is UINT8 else -8) if zero is None else zero)

    def head(self, channels, out, transposed=True):
        self.add("GlobalAveragePool").q(0.02).add("Flatten", axis=1)
        shape = (out, channels) if transposed else (channels, out)
        return self.layer("Gemm", shape, channels, 0 if transposed else 1, transB=int(transposed)).q(
            0.03, 125 if self.kind is UINT8 else -3)


def mobilenet_v2(kind=UINT8):
    net = Qdq((1, 3, 8, 8), kind).conv(3, 4, strides=[2, 2], pads=[0, 0, 1, 1], relu="Clip", scale=6 / 255)
    for inputs, wide, out, stride in ((4, 8, 4, 1), (4, 8, 6, 2)):
        shortcut = net.last
        net.conv(inputs, wide, (1, 1), relu="Clip", scale=6 / 255).conv(wide, wide, group=wide, strides=[stride, stride],
                                                                        relu="Clip", scale=6 / 255)
        net.conv(wide, out, (1, 1), relu="")
        if stride == 1:
            net.join("Add", shortcut)
    return net.head(6, 4).add("Softmax", axis=1).q(1 / 256).bytes()


def reduced_range():
    net = Qdq((1, 2, 7, 7)).layer("Conv", (4, 2, 3, 3), 18, reduce=True, auto_pad="SAME_UPPER", strides=[2, 2]).add("Relu").q()
    net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).q(net.scale)
    net.add("Reshape", np.array([-1, 16], np.int64))
    net.layer("MatMul", (16, 5), 16, 1, reduce=True).add("Add", net.f32(5)).q(0.05, 128)
    return net.bytes()


def batch_norm_between():
    """Conv, BatchNormalization, Relu, quantizer, as torch without folding writes it."""
    net = Qdq((1, 2, 6, 6), INT8)
    net.layer("Conv", (4, 2, 3, 3), 18).bn(4).add("Relu").q(0.03, -128)
    return net.head(4, 3, False).bytes()


def keywords(kind=INT8):
    net = Qdq((1, 6, 20), kind).layer("Conv", (8, 6, 5), 30, strides=[2], pads=[2, 2]).bn(8).add("Relu").q(0.03, -128)
    net.layer("Conv", (8, 1, 3), 3, group=8, pads=[1, 1],
              dilations=[1]).bn(8).add("Relu").q(0.03, -128).add("MaxPool", kernel_shape=[2], strides=[2])
    net.layer("Conv", (6, 8, 1), 8).add("Relu").q(0.03, -128)
    net.add("GlobalAveragePool").q(0.02, -128).add("Squeeze", np.array([2], np.int64))
    return net.layer("Gemm", (4, 6), 6, transB=1).q(0.05, 3).bytes()


def keywords_unsqueezed(column=False):
    """A 1-D network as tf2onnx writes it: 2-D layers between Unsqueeze and Squeeze, along the width or the height."""
    axis, kernel = (3, (3, 1)) if column else (2, (1, 3))
    pads = [1, 0, 1, 0] if column else [0, 1, 0, 1]
    net = Qdq((1, 6, 12), INT8).add("Unsqueeze", np.array([axis], np.int64))
    net.layer("Conv", (8, 6, *kernel), 18, pads=pads).add("Relu").q(0.03, -128)
    net.add("MaxPool", kernel_shape=[2, 1] if column else [1, 2], strides=[2, 1] if column else [1, 2])
    net.add("Squeeze", np.array([axis], np.int64)).layer("Conv", (5, 8, 3), 24).add("Relu").q(0.03, -128)
    return net.add("ReduceMean", axes=[2], keepdims=0).q(0.02, -128).layer("Gemm", (3, 5), 5, transB=1).q(0.05, 3).bytes()


def keras_image():
    """As tf2onnx writes a Keras network: channels last outside, a Transpose around every layer."""
    net = Qdq((1, 6, 6, 3))
    net.add("Transpose", perm=[0, 3, 1, 2]).conv(3, 4, strides=[2, 2], pads=[0, 0, 1, 1]).add("Transpose", perm=[0, 2, 3, 1])
    net.add("Transpose", perm=[0, 3, 1, 2]).conv(4, 5, (1, 1)).add("Transpose", perm=[0, 2, 3, 1])
    net.add("Reshape", np.array([-1, 45], np.int64)).layer("MatMul", (45, 4), 45, 1).add("Add", net.f32(4)).q(0.05, 128)
    return net.add("Softmax", axis=-1).bytes(shape=("batch", 6, 6, 3))


def unet(opset=13):
    net = Qdq((1, 2, 8, 8), opset=opset).conv(2, 4)
    skips = []
    for channels in (4, 5):
        skips.append((net.last, channels))
        net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).q(net.scale).conv(channels, channels + 1)
    for channels, (skip, other) in zip((6, 4), skips[::-1], strict=True):
        if opset == 10:
            net.add("Resize", np.array([1, 1, 2, 2], np.float32), mode="nearest")
        elif opset == 9:
            net.add("Upsample", np.array([1, 1, 2, 2], np.float32), mode="nearest")
        else:
            net.last = net.node("Resize", [net.last, "", net.const(np.array([1, 1, 2, 2], np.float32))], mode="nearest",
                                coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        net.q(net.scale).join("Concat", skip, axis=1, scale=0.03, zero=0).conv(channels + other, 4)
    return net.conv(4, 2, (1, 1), relu="").bytes()


def darknet(kind=INT8):
    """As YOLO-tiny: Conv, BatchNormalization, LeakyRelu, quantizer, MaxPool; and one slope a channel."""
    net, zero = Qdq((1, 3, 8, 8), kind), 20 if kind is UINT8 else -108
    net.layer("Conv", (4, 3, 3, 3), 27, pads=[1, 1, 1, 1]).bn(4).add("LeakyRelu", alpha=0.1).q(0.03, zero)
    net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).q(net.scale, zero)
    net.layer("Conv", (6, 4, 3, 3), 36, pads=[1, 1, 1, 1]).bn(6).add("PRelu", net.f32(6, 1, 1, lo=0)).q(0.03, zero)
    net.layer("Conv", (5, 6, 1, 1), 6).q(0.03, zero + 100).add("LeakyRelu", alpha=0.1).q(0.02, zero)         # onnxruntime's way
    return net.head(5, 3).bytes()


def squeezenet():
    """Fire modules, and pools with ceil_mode as torchvision has them."""
    net = Qdq((1, 3, 9, 9)).conv(3, 4, strides=[2, 2], pads=[0, 0, 0, 0])
    net.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1).q(net.scale)
    for inputs, squeeze, expand in ((4, 2, 3), (6, 3, 4)):
        net.conv(inputs, squeeze, (1, 1))
        from_here, scale = net.last, net.scale
        a = net.conv(squeeze, expand, (1, 1)).last
        net.last, net.scale = from_here, scale
        net.conv(squeeze, expand).join("Concat", a, axis=1, scale=0.04, zero=0)
    net.add("Dropout").conv(8, 4, (1, 1))
    return net.add("GlobalAveragePool").q(0.02).add("Flatten", axis=1).add("Softmax", axis=1).bytes()


def densenet():
    net = Qdq((1, 3, 6, 6))
    channels = 3
    for _ in range(2):
        before = net.last
        net.conv(channels, 3).join("Concat", before, axis=1, scale=0.03, zero=100)
        channels += 3
    net.bn(channels).add("Relu").q(0.02)           # a batch norm in front of the layer, as DenseNet has
    return net.conv(channels, 4, (1, 1)).add("AveragePool", kernel_shape=[2, 2], strides=[2, 2]).q(0.02).head(4, 3).bytes()


def gap_flattened_by_shape():
    """Flatten as old exporters write it, by Shape, Gather, Unsqueeze and Concat; the class by ArgMax and Cast."""
    net = Qdq((1, 3, 5, 5)).conv(3, 4).add("GlobalAveragePool").q(0.02)
    shape = net.node("Shape", [net.last])
    batch = net.node("Unsqueeze", [net.node("Gather", [shape, net.const(np.int64(0))], axis=0), net.const(np.array([0], np.int64))])
    target = net.node("Concat", [batch, net.const(np.array([-1], np.int64))], axis=0)
    net.last = net.node("Reshape", [net.last, target])
    net.layer("Gemm", (4, 4), 4, transB=1).q(0.03, 125).add("ArgMax", axis=1, keepdims=0).add("Cast", to=TensorProto.INT32)
    return net.bytes(kind=TensorProto.INT32)


def padded():
    """F.pad of old exporters, whose pads are computed."""
    net = Qdq((1, 2, 5, 5), zero=0)
    zeros = net.node("ConstantOfShape", [net.const(np.array([4], np.int64))],
                     value=helper.make_tensor("v", TensorProto.INT64, [1], [0]))
    pairs = net.node("Reshape", [net.node("Concat", [net.const(np.array([0, 1, 0, 1], np.int64)), zeros], axis=0),
                                 net.const(np.array([-1, 2], np.int64))])
    turned = net.node("Transpose", [net.node("Slice", [pairs, *(net.const(np.array([v], np.int64))
                                                                for v in (-1, -9223372036854775807, 0, -1))])], perm=[1, 0])
    pads = net.node("Cast", [net.node("Reshape", [turned, net.const(np.array([-1], np.int64))])], to=TensorProto.INT64)
    net.last = net.node("Pad", [net.last, pads, net.const(np.float32(0))], mode="constant")
    return net.q(net.scale, 0).conv(2, 3, strides=[2, 2], pads=[0, 0, 0, 0]).head(3, 3).bytes()


def global_max():
    return Qdq((1, 3, 5, 4)).conv(3, 5).add("GlobalMaxPool").q(0.03).add("Flatten").layer(
        "Gemm", (3, 5), 5, transB=1).q(0.05, 128).bytes()


def sigmoid():
    return Qdq((1, 3, 5, 4)).conv(3, 5).head(5, 1).add("Sigmoid").bytes()


def channel_shuffle():
    net = Qdq((1, 4, 5, 5)).conv(4, 6, group=2).add("Reshape", np.array([1, 2, 3, 5, 5], np.int64)).add(
        "Transpose", perm=[0, 2, 1, 3, 4])
    return net.add("Reshape", np.array([1, 6, 5, 5], np.int64)).q(net.scale).conv(6, 4, group=2).bytes()


def hard_swish():
    net = Qdq((1, 3, 5, 5)).conv(3, 4)
    before = net.last
    gate = net.add("HardSigmoid", alpha=1 / 6, beta=0.5).last
    return net.join("Mul", before, gate).bytes()


def shift(value):
    return np.float32(2.0 ** -value)


class Brevitas(Net):
    """As Brevitas exports QONNX: weights and activations behind Quant nodes with scales of their own."""

    def bn(self, channels):
        gain, bias, mean = self.f32(channels, lo=-0.3, hi=1.5), self.f32(channels, lo=-0.1, hi=0.4), \
            self.f32(channels, lo=-0.2, hi=0.2)
        return self.add("BatchNormalization", gain, bias, mean, self.f32(channels, lo=0.1, hi=0.5))

    def block(self, inputs, out, kernel=(3, 3), bits=2.0, act=2.0, bn=True, scale=0.25, **attributes):
        weight = self.qweights(out, inputs, *kernel, bits=bits, scale=self.f32(out, 1, 1, 1, lo=0.3, hi=0.6))
        self.add("Conv", weight, kernel_shape=list(kernel), **attributes)
        if bn:
            self.bn(out)
        return self.add("Relu").quant(scale=scale, bits=act, signed=0)


def leaky_4_bits():
    net = Brevitas((1, 2, 7, 7)).quant(scale=shift(4), bits=6.0)
    for inputs, out in ((2, 4), (4, 5)):
        net.add("Conv", net.qweights(out, inputs, 3, 3, bits=4.0, scale=net.f32(out, 1, 1, 1, lo=0.1, hi=0.2)))
        net.bn(out).add("LeakyRelu", alpha=0.1).quant(scale=0.1, bits=4.0)
    net.add("GlobalAveragePool").quant(scale=shift(6), bits=6.0).add("Flatten", axis=1)
    return net.add("MatMul", net.qweights(5, 3, bits=4.0, scale=0.25)).bytes()


def cnv():
    """CNV at small size: 8 bits in, 2 bits inside, batch norms, MaxPool, TopK."""
    net = Brevitas((1, 3, 10, 10), seed=3).quant(scale=1 / 128, bits=8.0, narrow=1)
    net.block(3, 4).block(4, 4).add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).block(4, 6).add(
        "Reshape", np.array([1, -1], np.int64))
    weight = net.qweights(8, 6, bits=2.0, scale=0.4)
    net.last = net.node("MatMul", [net.last, net.node("Transpose", [weight], perm=[1, 0])])
    net.bn(8).add("Relu").quant(scale=0.1, bits=2.0, signed=0)
    net.add("MatMul", net.node("Transpose", [net.qweights(5, 8, bits=2.0, scale=0.3)], perm=[1, 0])).add("Mul", np.float32(0.5))
    net.last = net.node("TopK", [net.last, net.const(np.array([1], np.int64))], outputs=2, axis=-1)
    return net.bytes(f"{net.last}_1", kind=TensorProto.INT64)


def thresholds():
    """As FINN writes the same: MultiThreshold, channels first."""
    net = Brevitas((1, 3, 8, 8)).quant(scale=1 / 128, bits=8.0, narrow=1)
    for inputs, out in ((3, 4), (4, 4)):
        net.add("Conv", net.qweights(out, inputs, 3, 3, bits=2.0, scale=0.5))
        net.add("MultiThreshold", np.sort(net.f32(out, 3, lo=-2, hi=2), axis=1),
                domain="qonnx.custom_op.general", out_dtype="UINT2")
    net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).add("Flatten", axis=1)
    return net.add("MatMul", net.qweights(16, 4, bits=2.0, scale=0.5)).add("Mul", np.float32(0.3)).bytes()


def concat_and_average(scales=(0.25, 0.25), requantized=True):
    """Two branches concatenated, an average pool, a Trunc; the branches' scales may differ."""
    net = Brevitas((1, 2, 6, 6)).quant(scale=shift(4), bits=6.0)
    first = net.last
    a = net.block(2, 3, act=4.0, scale=scales[0], pads=[1, 1, 1, 1]).last
    net.last = first
    b = net.block(2, 3, (1, 1), act=4.0, scale=scales[1]).last
    net.last = net.node("Concat", [a, b], axis=1)
    if requantized:
        net.quant(scale=scales[0], bits=4.0, signed=0).add("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
        net.add("Trunc", np.float32(scales[0] / 4), np.float32(0), np.float32(6), np.float32(4),
                domain="qonnx.custom_op.general", rounding_mode="FLOOR")
    net.block(6, 4, (1, 1), act=4.0, scale=0.1).add("GlobalAveragePool").quant(
        scale=shift(6), bits=6.0, signed=0).add("Flatten", axis=1)
    net.add("MatMul", net.qweights(4, 3, bits=4.0, scale=0.25)).add("Add", net.f32(3))
    return net.bytes(version=1)


def qkeras():
    """As qonnx writes a QKeras network: channels last, a Transpose around the layers, HALF_UP and powers of two."""
    net = Net((1, 6, 6, 2)).quant(scale=shift(6), bits=8.0, mode="HALF_UP")
    net.add("Transpose", perm=[0, 3, 1, 2]).add("Conv", net.qweights(4, 2, 3, 3, bits=4.0, scale=shift(3)), auto_pad="SAME_UPPER")
    net.add("Add", net.node("Reshape", [net.qweights(4, bits=6.0, scale=shift(4)), net.const(np.array([1, 4, 1, 1], np.int64))]))
    net.add("Relu").quant(scale=shift(4), bits=6.0, signed=0, mode="FLOOR").add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    net.add("Transpose", perm=[0, 2, 3, 1]).add("Reshape", np.array([-1, 36], np.int64))
    return net.add("MatMul", net.qweights(36, 4, bits=4.0, scale=shift(3))).add(
        "Add", net.qweights(4, bits=6.0, scale=shift(4))).add("Softmax").bytes()


def brevitas_1d():
    net = Brevitas((1, 4, 16)).quant(scale=shift(5), bits=8.0)
    for inputs, out in ((4, 6), (6, 6)):
        net.add("Conv", net.qweights(out, inputs, 3, bits=4.0, scale=net.f32(out, 1, 1, lo=0.1, hi=0.2)),
                kernel_shape=[3], pads=[1, 1])
        net.bn(out).add("Relu").quant(scale=0.2, bits=4.0, signed=0).add("MaxPool", kernel_shape=[2], strides=[2])
    net.add("AveragePool", kernel_shape=[4]).quant(scale=0.1, bits=6.0, signed=0).add("Flatten")
    return net.add("Gemm", net.qweights(3, 6, bits=4.0, scale=0.2), transB=1).bytes()


def old_file(content):
    """The same as an old exporter writes it: constants are inputs too, and the IR version is 3."""
    model = onnx.load_from_string(content)
    model.ir_version = 3
    for t in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, t.dims))
    return model.SerializeToString()


def constant_nodes(content):
    """The same with its constants in Constant nodes."""
    model = onnx.load_from_string(content)
    nodes = [helper.make_node("Constant", [], [t.name], value=numpy_helper.from_array(numpy_helper.to_array(t)))
             for t in model.graph.initializer]
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


NETWORKS = {
    "mobilenet_v2_uint8": (mobilenet_v2(), EXACT), "mobilenet_v2_int8": (mobilenet_v2(INT8), EXACT),
    "reduced_range": (reduced_range(), EXACT), "batch_norm_between": (batch_norm_between(), EXACT), "keywords": (keywords(), EXACT),
    "keywords_unsqueezed": (keywords_unsqueezed(), EXACT),
    "keywords_column": (keywords_unsqueezed(True), EXACT), "keras_image": (keras_image(), EXACT), "unet": (unet(), EXACT),
    "unet_opset_10": (unet(10), EXACT), "squeezenet": (squeezenet(), EXACT),
    "darknet_int8": (darknet(), EXACT), "darknet_uint8": (darknet(UINT8), EXACT), "leaky_4_bits": (leaky_4_bits(), EXACT),
    "densenet": (densenet(), EXACT),
    "gap_flattened_by_shape": (gap_flattened_by_shape(), EXACT), "padded": (padded(), EXACT), "global_max": (global_max(), EXACT),
    "sigmoid": (sigmoid(), EXACT), "cnv": (cnv(), EXACT), "thresholds": (thresholds(), EXACT),
    "concat_and_average": (concat_and_average(), EXACT), "concat_of_two_scales": (concat_and_average((0.25, 0.125), False), EXACT),
    "concat_of_odd_scales": (concat_and_average((0.7, 0.41), False), "as behind a Concat of several quantizers"),
    "qkeras": (qkeras(), EXACT), "brevitas_1d": (brevitas_1d(), EXACT), "old_file": (old_file(squeezenet()), EXACT),
    "constant_nodes": (constant_nodes(mobilenet_v2()), EXACT),
    "channel_shuffle": (channel_shuffle(), EXACT),
    "hard_swish": (hard_swish(), "HardSigmoid .* is not supported"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_their_source(name, tmp_path):
    imported = imported_or_refused(tmp_path / f"{name}.onnx", *NETWORKS[name])
    if imported is None:
        return
    report = compare_source(imported, count=10, seed=1)
    assert report.wrong == 0
    x = np.random.default_rng(0).integers(imported.graph.input.lo, imported.graph.input.hi + 1, (40, *imported.graph.input.shape))
    found = len(np.unique(run(imported.graph, x)[imported.graph.output.name].reshape(40, -1), axis=0))
    assert found > (1 if imported.graph.ranks else 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, expected) in NETWORKS.items() if expected is EXACT])
def test_networks_are_exact_in_hardware(name, tmp_path):
    (tmp_path / "n.onnx").write_bytes(NETWORKS[name][0])
    exact(import_file(tmp_path / "n.onnx").graph, count=2)
