"""Small networks as the TensorFlow Lite converter writes them: equal to the reference kernels on every tensor, and in hardware."""

import numpy as np
import pytest

pytest.importorskip("tflite", reason="the package tflite is not installed")

from hwq.frontend.importer import compare_source, import_file
from hwq.frontend.tflite_worker import run_micro
from hwq.interp import run
from tests.plan.test_corners import exact

from .expected import EXACT, imported_or_refused
from .tflite_writer import Writer

RELU, RELU6 = 1, 3


class Net(Writer):
    """Appends layers to the last tensor, ``at``; random weights, one scale an output channel."""

    def __init__(self, shape, seed=0, scale=0.03, zero=-1):
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.x = self.at = self.tensor(shape, np.int8, scale, zero)

    def shape(self, t=None):
        return tuple(self.tensors[self.at if t is None else t][0])

    def grid(self, t=None):
        found = self.tensors[self.at if t is None else t]
        return (found[2] or [0])[0], (found[3] or [0])[0]

    def layer(self, kind, constants, shape, table=None, scale=None, zero=None, dtype=np.int8, **fields):
        """Append an operator of the last tensor and these constants; scale and zero are the input's unless given."""
        before = self.grid()
        y = self.tensor(shape, dtype, before[0] if scale is None else scale, before[1] if zero is None else zero)
        self.op(kind, (self.at, *constants), (y,), table, **fields)
        self.at = y
        return self

    def weights(self, shape, axis, fan):
        rng, outputs = self.rng, shape[axis]
        scales = rng.uniform(1.5, 4.5, outputs) / (127 * fan ** 0.5)
        weight = self.const(rng.integers(-127, 128, shape).astype(np.int8), scales, [0] * outputs, axis)
        bias = self.const(rng.integers(-500, 501, outputs).astype(np.int32), scales * self.grid()[0], [0] * outputs)
        return weight, bias

    def conv(self, out, kernel=(3, 3), stride=(1, 1), same=True, act=RELU6, depthwise=False, dilation=(1, 1),
             scale=6 / 255, zero=-128):
        n, h, w, c = self.shape()
        size = [-(-m // s) if same else (m - (k - 1) * d - 1) // s + 1
                for m, k, s, d in zip((h, w), kernel, stride, dilation, strict=True)]
        shape = (1, *kernel, c) if depthwise else (out, *kernel, c)
        constants = self.weights(shape, 3 if depthwise else 0, kernel[0] * kernel[1] * (1 if depthwise else c))
        fields = dict(Padding=0 if same else 1, StrideH=stride[0], StrideW=stride[1], FusedActivationFunction=act,
                      DilationHFactor=dilation[0], DilationWFactor=dilation[1])
        if depthwise:
            return self.layer("DEPTHWISE_CONV_2D", constants, (n, *size, c), "DepthwiseConv2DOptions", scale, zero,
                              DepthMultiplier=1, **fields)
        return self.layer("CONV_2D", constants, (n, *size, out), "Conv2DOptions", scale, zero, **fields)

    def depthwise(self, kernel=(3, 3), stride=(1, 1), **more):
        return self.conv(0, kernel, stride, depthwise=True, **more)

    def dense(self, out, act=0, scale=0.03, zero=4, shape=None, keep=False):
        inputs = self.shape()[-1] if keep else int(np.prod(self.shape()))
        return self.layer("FULLY_CONNECTED", self.weights((out, inputs), 0, inputs), shape or (1, out), "FullyConnectedOptions",
                          scale, zero, FusedActivationFunction=act, KeepNumDims=keep)

    def pool(self, kind="MAX_POOL_2D", kernel=(2, 2), stride=None, same=False):
        n, h, w, c = self.shape()
        stride = stride or kernel
        size = [-(-m // s) if same else (m - k) // s + 1 for m, k, s in zip((h, w), kernel, stride, strict=True)]
        return self.layer(kind, (), (n, *size, c), "Pool2DOptions", Padding=0 if same else 1, StrideH=stride[0], StrideW=stride[1],
                          FilterHeight=kernel[0], FilterWidth=kernel[1])

    def mean(self, keep=False, scale=0.02, zero=-120):
        shape = self.shape()
        axes = np.arange(1, len(shape) - 1, dtype=np.int32)
        out = (1, *[1] * len(axes), shape[-1]) if keep else (1, shape[-1])
        return self.layer("MEAN", (self.const(axes),), out, "ReducerOptions", scale, zero, KeepDims=keep)

    def reshape(self, *shape, kind="RESHAPE"):
        if kind == "RESHAPE":
            return self.layer(kind, (self.const(np.array(shape, np.int32)),), shape)
        long, short = sorted((self.shape(), shape), key=len, reverse=True)
        place = next(i for i, (a, b) in enumerate(zip(long, (*short, 0), strict=True)) if a != b)
        if kind == "EXPAND_DIMS":
            return self.layer(kind, (self.const(np.array(place, np.int32)),), shape)
        return self.layer(kind, (), shape, "SqueezeOptions", SqueezeDims=[place])

    def dynamic_flatten(self):
        """Flatten as Keras does: the shape computed from the batch."""
        n, *rest = self.shape()
        size = int(np.prod(rest))
        shape, batch, new = (self.tensor(s, np.int32, (), ()) for s in ((1 + len(rest),), (), (2,)))
        self.op("SHAPE", (self.at,), (shape,), "ShapeOptions")
        ends = [self.const(np.array([v], np.int32)) for v in (0, 1, 1)]
        self.op("STRIDED_SLICE", (shape, *ends), (batch,), "StridedSliceOptions", ShrinkAxisMask=1)
        self.op("PACK", (batch, self.const(np.array(size, np.int32))), (new,), "PackOptions", ValuesCount=2)
        return self.layer("RESHAPE", (new,), (1, size), "ReshapeOptions")

    def add(self, other, scale=0.05, zero=2, act=0):
        return self.layer("ADD", (other,), self.shape(), "AddOptions", scale, zero, FusedActivationFunction=act)

    def concat(self, *others, axis=-1):
        rank = len(self.shape())
        total = self.shape()[-1] + sum(self.shape(o)[-1] for o in others)
        return self.layer("CONCATENATION", others, (*self.shape()[:-1], total), "ConcatenationOptions",
                          Axis=axis if axis < 0 else rank - 1)

    def upsample(self, half=False):
        n, h, w, c = self.shape()
        size = self.const(np.array([2 * h, 2 * w], np.int32))
        return self.layer("RESIZE_NEAREST_NEIGHBOR", (size,), (n, 2 * h, 2 * w, c),
                          "ResizeNearestNeighborOptions", HalfPixelCenters=half)

    def softmax(self):
        return self.layer("SOFTMAX", (), self.shape(), "SoftmaxOptions", 1 / 256, -128, Beta=1.0)

    def file(self):
        return self.write([self.x], [self.at])


def start(shape, kind="int8", seed=0):
    """A network whose input is integers of 8 bits, or is quantized by the first operator."""
    net = Net(shape, seed)
    if kind != "int8":
        net.x = net.at = net.tensor(shape, np.dtype(kind), *(((), ()) if kind == "float32" else (0.03, 127)))
        net.layer("QUANTIZE", (), shape, "QuantizeOptions", 0.03, -1)
    return net


def end(net, kind="int8"):
    if kind == "float32":
        net.layer("DEQUANTIZE", (), net.shape(), "DequantizeOptions", (), (), np.float32)
    elif kind == "uint8":
        scale, zero = net.grid()
        net.layer("QUANTIZE", (), net.shape(), "QuantizeOptions", scale, zero + 128, np.uint8)
    return net.file()


def mobilenet_v1(kind="uint8", pool="mean", softmax=True, out=None):
    net = start((1, 10, 10, 3), kind).conv(4, stride=(2, 2))
    net.depthwise().conv(6, (1, 1)).depthwise(stride=(2, 2)).conv(8, (1, 1))
    if pool == "mean":
        net.mean(keep=True).conv(5, (1, 1), act=0, scale=0.1, zero=3).reshape(1, 5)
    else:
        net.pool("AVERAGE_POOL_2D", net.shape()[1:3]).dynamic_flatten().dense(5)
    return end(net.softmax() if softmax else net, out or kind)


def inverted(net, expand, out, stride=1):
    shortcut = net.at
    net.conv(expand, (1, 1)).depthwise(stride=(stride, stride)).conv(out, (1, 1), act=0, scale=0.04, zero=1)
    return net.add(shortcut) if net.shape() == net.shape(shortcut) else net


def mobilenet_v2():
    net = start((1, 8, 8, 3)).conv(4, stride=(2, 2), scale=0.04, zero=-128)
    inverted(inverted(inverted(net, 8, 4), 8, 6, 2), 12, 6)
    return net.conv(8, (1, 1)).mean().dense(4).softmax().file()


def keywords_2d():
    """A 1-D network as 2-D layers of height 1."""
    net = Net((1, 1, 20, 6)).conv(8, (1, 5), (1, 2), act=RELU).depthwise((1, 3), act=RELU).conv(8, (1, 1), act=RELU)
    return net.pool("MAX_POOL_2D", (1, 2)).pool("AVERAGE_POOL_2D", (1, 5)).reshape(1, 8).dense(4).file()


def keywords_1d(first="EXPAND_DIMS", last="SQUEEZE"):
    """Keras's Conv1D, MaxPooling1D, GlobalAveragePooling1D: an axis put in and taken out around each; the pool's is another."""
    net = Net((1, 20, 6))
    for out, t in ((8, 20), (6, 10)):
        net.reshape(1, 1, t, net.shape()[-1], kind=first).conv(out, (1, 3), act=RELU).reshape(1, t, out, kind=last)
        net.reshape(1, t, 1, out, kind=first).pool("MAX_POOL_2D", (2, 1)).reshape(1, t // 2, out, kind=last)
    return net.mean().dense(4).softmax().file()


def column_1d():
    """A 1-D network along the height, behind a Reshape of the input."""
    net = Net((1, 24, 4)).reshape(1, 24, 1, 4).conv(6, (5, 1), (2, 1), act=RELU).pool("MAX_POOL_2D", (2, 1)).conv(
        6, (3, 1), same=False)
    return net.mean().dense(3).file()


def unet(half=False):
    net = Net((1, 8, 8, 2), scale=6 / 255, zero=-128).conv(4)
    skip = net.at
    net.pool().conv(6)
    inner = net.at
    net.pool().conv(8).upsample(half).concat(inner).conv(6).upsample(half).concat(skip).conv(4)
    return net.conv(2, (1, 1), act=0, scale=0.1, zero=0).file()


def darknet():
    """Leaky activations as YOLO-tiny has them, with one slope and with one a channel."""
    net = Net((1, 10, 10, 3)).conv(4, act=0, scale=0.05, zero=-20)
    net.layer("LEAKY_RELU", (), net.shape(), "LeakyReluOptions", 0.04, -100, Alpha=0.1).pool()
    net.depthwise(act=0, scale=0.03, zero=4).conv(6, (1, 1), act=0, scale=0.05, zero=-7)
    slopes = net.const(np.array([13, 127, 60, 1, 0, 90], np.int8).reshape(1, 1, 6), 0.008, 0)
    net.layer("PRELU", (slopes,), net.shape(), None, 0.06, -50).conv(5, (1, 1), act=0, scale=0.05, zero=0)
    return net.layer("LEAKY_RELU", (), net.shape(), "LeakyReluOptions", Alpha=0.25).mean().dense(3).file()


def squeezenet():
    net = Net((1, 9, 9, 3)).conv(6, stride=(2, 2), same=False, act=RELU)
    for squeeze, expand in ((3, 4), (4, 5)):
        net.conv(squeeze, (1, 1), act=RELU)
        from_here = net.at
        a = net.conv(expand, (1, 1), act=RELU).at
        net.at = from_here
        b = net.conv(expand, act=RELU).at
        net.at = a
        net.concat(b)
    return net.pool("MAX_POOL_2D", (3, 3), (2, 2), same=True).conv(4, (1, 1), act=RELU).mean().softmax().file()


def densenet():
    net = Net((1, 6, 6, 4), scale=6 / 255, zero=-128)
    for _ in range(3):
        before = net.at
        new = net.conv(3, act=RELU6).at
        net.at = before
        net.concat(new)
    return net.conv(6, (1, 1)).pool("AVERAGE_POOL_2D").mean().dense(3).file()


def autoencoder():
    net = Net((1, 40))
    for width in (16, 4, 16):
        net.dense(width, RELU, 0.05, -128)
    return net.dense(40).file()


def dilated():
    return Net((1, 9, 9, 2)).conv(4, dilation=(2, 2)).conv(4, dilation=(3, 2)).conv(
        3, (1, 1), dilation=(2, 2)).mean().dense(3).file()


def global_max():
    net = Net((1, 5, 4, 3)).conv(6, act=RELU)
    axes = net.const(np.array([1, 2], np.int32))
    return net.layer("REDUCE_MAX", (axes,), (1, 6), "ReducerOptions", KeepDims=False).dense(3).file()


def per_pixel():
    """Keras' Dense on a sequence: the same matrix for every step."""
    return Net((1, 7, 5)).dense(6, RELU, shape=(1, 7, 6), keep=True).mean().dense(3).file()


def channel_shuffle(depthwise=False):
    """Channels change places, of the input or behind a convolution, in front of another or of a depthwise one."""
    net = Net((1, 4, 4, 6))
    if depthwise:
        net.conv(6)
    net.reshape(1, 4, 4, 2, 3)
    net.layer("TRANSPOSE", (net.const(np.array([0, 1, 2, 4, 3], np.int32)),), (1, 4, 4, 3, 2))
    net.reshape(1, 4, 4, 6)
    if depthwise:
        net.depthwise()
    return net.conv(4).mean().file()


def decoder(first=False, shape=(4, 5, 3)):
    """An image that a dense layer makes; perhaps channels first, as converters from torch write it."""
    height, width, channels = shape
    net = Net((1, 9)).dense(60, RELU)
    if first:
        net.reshape(1, channels, height, width)
        net.layer("TRANSPOSE", (net.const(np.array([0, 2, 3, 1], np.int32)),), (1, *shape))
    else:
        net.reshape(1, *shape)
    return net.conv(4).conv(2).file()


def other_pixels():
    """An image of the same stream, with other pixels and channels."""
    return Net((1, 4, 6, 4)).conv(3).reshape(1, 3, 4, 6).conv(4).mean().file()


def turned_pixels():
    net = Net((1, 4, 5, 3)).conv(3)
    net.layer("TRANSPOSE", (net.const(np.array([0, 2, 1, 3], np.int32)),), (1, 5, 4, 3))
    return net.conv(4).mean().file()


def channels_first(shape=(1, 3, 6, 5)):
    """As converters from torch write it: the image arrives channels first, perhaps as one row, and is turned."""
    net = Net(shape)
    if len(shape) == 2:
        net.reshape(1, 3, 6, 5)
    net.layer("TRANSPOSE", (net.const(np.array([0, 2, 3, 1], np.int32)),), (1, 6, 5, 3))
    return net.conv(4, (3, 3), (2, 2)).mean().dense(3).file()


def turned_beside(channels=3):
    """The input is read turned and as it is."""
    net = Net((1, 4, 4, channels))
    net.layer("TRANSPOSE", (net.const(np.array([0, 2, 1, 3], np.int32)),), (1, 4, 4, channels))
    turned, net.at = net.conv(4).at, net.x
    return net.conv(4).layer("CONCATENATION", (turned,), (1, 4, 4, 8), "ConcatenationOptions", Axis=3).mean().file()


NETWORKS = {
    "turned_beside": (turned_beside(), EXACT),
    "mobilenet_v1_uint8": (mobilenet_v1(), EXACT), "mobilenet_v1_int8": (mobilenet_v1("int8", "average"), EXACT),
    "mobilenet_v1_float": (mobilenet_v1("float32", "average"), EXACT),
    "uint8_logits": (mobilenet_v1("uint8", softmax=False), EXACT),
    "mobilenet_v2": (mobilenet_v2(), EXACT), "keywords_2d": (keywords_2d(), EXACT), "keywords_1d": (keywords_1d(), EXACT),
    "keywords_1d_reshape": (keywords_1d("RESHAPE", "RESHAPE"), EXACT), "column_1d": (column_1d(), EXACT), "unet": (unet(), EXACT),
    "unet_half_pixel": (unet(True), EXACT), "squeezenet": (squeezenet(), EXACT), "darknet": (darknet(), EXACT),
    "densenet": (densenet(), EXACT), "autoencoder": (autoencoder(), EXACT), "dilated": (dilated(), EXACT),
    "global_max": (global_max(), EXACT), "per_pixel": (per_pixel(), EXACT),
    "channels_first": (channels_first(), EXACT), "channels_first_in_a_row": (channels_first((1, 90)), EXACT),
    "channel_shuffle": (channel_shuffle(), EXACT), "channel_shuffle_depthwise": (channel_shuffle(True), EXACT),
    "decoder": (decoder(), EXACT), "decoder_channels_first": (decoder(True), EXACT),
    "other_pixels": (other_pixels(), EXACT), "turned_pixels": (turned_pixels(), EXACT),
}


SAME = ("unet_half_pixel", "keywords_1d_reshape", "mobilenet_v1_float")        # as hardware


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_the_reference_kernels(name, tmp_path):
    imported = imported_or_refused(tmp_path / f"{name}.tflite", *NETWORKS[name])
    if imported is None:
        return
    report = compare_source(imported, count=6, seed=1)
    assert report.wrong == 0 and report.classes_differ == 0
    x = np.random.default_rng(0).integers(imported.graph.input.lo, imported.graph.input.hi + 1, (20, *imported.graph.input.shape))
    assert len(np.unique(run(imported.graph, x)[imported.graph.output.name].reshape(20, -1), axis=0)) > 10


def test_inputs_of_an_image_that_is_turned_are_the_file_s(tmp_path):
    file = tmp_path / "n.tflite"
    file.write_bytes(channels_first())
    imported = import_file(file)
    x = np.random.default_rng(5).integers(-128, 128, (4, 3, 6, 5)).astype(np.int8)
    found = run_micro(file.read_bytes(), x, list(imported.tensors.values()))
    ours = run(imported.graph, x.transpose(0, 2, 3, 1).astype(np.int64))
    for edge, tensor in imported.tensors.items():
        np.testing.assert_array_equal(ours[edge].reshape(4, -1),
                                      found[tensor].reshape(4, -1) if edge != "input" else x.transpose(0, 2, 3, 1).reshape(4, -1))
    assert compare_source(imported, x).wrong == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, expected) in NETWORKS.items() if expected is EXACT and name not in SAME])
def test_networks_are_exact_in_hardware(name, tmp_path):
    (tmp_path / "n.tflite").write_bytes(NETWORKS[name][0])
    exact(import_file(tmp_path / "n.tflite").graph, count=2)
