# amaranth: UnusedElaboratable=no
"""ONNX networks whose elements move: images that dense layers make, channels that change places."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")

from hwq.frontend.importer import compare_source, import_file  # noqa: E402
from tests.plan.test_corners import exact  # noqa: E402

from .expected import EXACT, imported_or_refused  # noqa: E402
from .test_onnx_networks import INT8, Qdq  # noqa: E402
from .test_onnx_traps import end, flat, start  # noqa: E402


def shape(*sizes):
    return np.array(sizes, np.int64)


def dense(*sizes, last=False, qdq=True, kind=INT8, between=True):
    """A dense layer, its image channels first (or last, and turned), and a convolution."""
    net = flat(7).qdq(0.05, kind(3))
    count = int(np.prod(sizes))
    net.add("MatMul", net.weights(7, count, axis=1))
    net = net.qdq(0.2, kind(4)) if qdq else net
    net.add("Reshape", shape(1, *(sizes[1:] + sizes[:1] if last else sizes)))
    net = net.qdq(0.2, kind(4)) if between else net
    if last:
        net.add("Transpose", perm=[0, 3, 1, 2])
    return net


def shuffled(net, groups, channels, size, qdq=False):
    """Shuffle the channels as ShuffleNet does."""
    again = (lambda: net.q(net.scale)) if qdq else (lambda: net)
    net.add("Reshape", shape(1, groups, channels // groups, *size))
    again().add("Transpose", perm=[0, 2, 1, 3, 4])
    again().add("Reshape", shape(1, channels, *size))
    return again()


def unit(depthwise=True, qdq=False, groups=1):
    """Shuffle between a convolution and a depthwise one, as in ShuffleNet; or between two with groups."""
    net = Qdq((1, 3, 5, 4)).conv(3, 6)
    shuffled(net.conv(6, 6, group=3) if groups > 1 else net, 3, 6, (5, 4), qdq)
    return net.conv(6, 6, group=6).conv(6, 4, (1, 1)) if depthwise else net.conv(6, 4, (1, 1), group=groups)


def many_groups():
    """Shuffle between two convolutions of more groups than a tensor is taken into parts."""
    net = Qdq((1, 3, 5, 4)).conv(3, 40).conv(40, 40, (1, 1), group=20)
    return shuffled(net, 2, 40, (5, 4), False).conv(40, 40, (1, 1), group=20)


def joined():
    """The end of ShuffleNet V2's unit: what was joined is shuffled, and read by a convolution."""
    net = Qdq((1, 3, 5, 4)).conv(3, 4)
    first = net.last
    net.conv(4, 4, scale=0.03)
    net.join("Concat", first, axis=1, scale=0.03, zero=0)
    return shuffled(net, 2, 8, (5, 4)).conv(8, 3, (1, 1))


def line():
    net = flat(7).qdq()
    return end(net.add("MatMul", net.weights(7, 15, axis=1)).qdq(0.1).add("Reshape", shape(1, 3, 5)).conv(2, (3,), channels=3))


def pixels():
    """A reshape in the middle that leaves the channels but not the pixels: 4x6 to 6x4."""
    return end(start(shape=(1, 4, 4, 6)).conv(5, (1, 1)).qdq(0.1).add("Reshape", shape(1, 5, 6, 4)).conv(2, channels=5))


TRAPS = {
    "dense_to_image": (end(dense(3, 4, 5).conv(2, channels=3)), EXACT),
    "dense_to_image_without_quantizers_between": (end(dense(3, 4, 5, between=False).conv(2, channels=3)), EXACT),
    "dense_to_image_quantized_behind": (end(dense(3, 4, 5, qdq=False).conv(2, channels=3)), EXACT),
    "dense_to_image_channels_last": (end(dense(3, 4, 5, last=True).conv(2, channels=3)), EXACT),
    "dense_to_image_pooled": (end(dense(4, 4, 2).add("MaxPool", kernel_shape=[2, 2])), EXACT),
    "dense_to_image_last": (end(dense(3, 2, 2)), EXACT),
    "dense_to_one_pixel": (end(dense(6, 1, 1).conv(2, (1, 1), channels=6)), EXACT),
    "dense_to_one_channel": (end(dense(1, 4, 4).conv(2, channels=1)), EXACT),
    "dense_to_line": (line(), EXACT),
    "pixels": (pixels(), EXACT),
    "shuffle_into_depthwise": (unit().bytes(), EXACT),
    "shuffle_with_quantizers": (unit(qdq=True).bytes(), EXACT),
    "shuffle_between_convolutions": (unit(depthwise=False).bytes(), EXACT),
    "shuffle_between_groups": (unit(depthwise=False, groups=2).bytes(), EXACT),
    "shuffle_of_joined": (joined().bytes(), EXACT),
    "transposed_image": (end(start().conv(5).qdq().add("Transpose", perm=[0, 1, 3, 2]).conv(2, channels=5)),
                         "the channels of its input"),
    "five_axes_read": (end(start().add("Reshape", shape(1, 2, 2, 7, 6)).add("MaxPool", kernel_shape=[1, 1])),
                       "elements in another order than the hardware's"),
    "other_channels_of_an_image": (end(start().conv(4).qdq().add("Reshape", shape(1, 2, 5, 8)).conv(2, channels=2)), EXACT),
    "shuffle_of_many_groups": (many_groups().bytes(), "puts channels into another order.*16 parts.*has 20 groups, across.*has 20"),
}


@pytest.mark.parametrize("name", TRAPS)
def test_refused_or_exact(name, tmp_path):
    imported = imported_or_refused(tmp_path / "trap.onnx", *TRAPS[name])
    if imported is None:
        return
    pytest.importorskip("onnxruntime", reason="imports; the package onnxruntime is not installed, so nothing is compared")
    report = compare_source(imported)
    report.require_equal()
    assert report.rows[-1].numbers > 10


@pytest.mark.parametrize("name", ["dense_to_image", "dense_to_image_channels_last", "shuffle_into_depthwise",
                                  "shuffle_of_joined", "shuffle_between_groups", "pixels"])
def test_in_hardware(name, tmp_path):
    (tmp_path / "trap.onnx").write_bytes(TRAPS[name][0])
    exact(import_file(tmp_path / "trap.onnx").graph, count=2)
