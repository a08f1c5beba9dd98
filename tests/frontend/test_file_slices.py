# amaranth: UnusedElaboratable=no
"""ONNX and TFLite networks that split channels, as ShuffleNet v2, CSP and Ghost do: equal to the executors, and in hardware."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("tflite", reason="the package tflite is not installed")

from hwq.frontend.importer import compare_source, import_file  # noqa: E402
from tests.plan.test_corners import exact  # noqa: E402

from . import test_tflite_networks as lite  # noqa: E402
from .expected import EXACT, imported_or_refused  # noqa: E402
from .test_onnx_moved import shape, shuffled  # noqa: E402
from .test_onnx_networks import UINT8, Qdq  # noqa: E402
from .test_onnx_traps import Net, end, start  # noqa: E402


def ends(*values):
    return [np.array([v], np.int64) for v in values]


def halves(net, channels, how):
    """Return the two halves of the last tensor, as opset 13 or 11, or torch's x[:, a:b], writes them."""
    if how == "split":
        first = net.node("Split", [net.last, net.const(shape(channels // 2, channels // 2))] if net.opset >= 13 else [net.last],
                         outputs=2, axis=1)
        return first, f"{first}_1"
    return [net.node("Slice", [net.last, *(net.const(v) for v in ends(a, b, 1, 1))])
            for a, b in ((0, channels // 2), (channels // 2, 2 ** 63 - 1))]


def shufflenet(how="split", **kw):
    """Two blocks of ShuffleNet v2 without a stride: half goes on as it is, both halves are joined and shuffled, and split again."""
    net = Qdq((1, 2, 5, 4), **kw).conv(2, 8)
    for _ in range(2):
        one, two = halves(net, 8, how)
        net.last = two
        net.conv(4, 4, (1, 1)).conv(4, 4, group=4, relu="").conv(4, 4, (1, 1)).join("Concat", one, axis=1, scale=0.03, zero=0)
        shuffled(net, 2, 8, (5, 4))
        net.q(net.scale)
    return net.head(8, 3).bytes()


def ghost():
    """A Ghost module whose maps are more than wanted: negative bounds over several axes."""
    net = Qdq((1, 3, 5, 5)).conv(3, 4)
    first = net.last
    net.conv(4, 4, group=4).join("Concat", first, axis=1, scale=0.03, zero=0)
    return net.add("Slice", shape(0, 1, 0), shape(1, -1, 9), shape(0, 1, 3)).head(6, 3).bytes()


def sliced(*bounds, channels_last=False):
    net = start(shape=(1, 6, 7, 5) if channels_last else (1, 5, 6, 7))
    net.add("Slice", *ends(*bounds))
    if channels_last:
        net.add("Transpose", perm=[0, 3, 1, 2])
    return end(net.conv(3, channels=3))


def scaled():
    """A slice of channels that have scales of their own, behind a batch norm."""
    net = start().conv(6)
    net.bn(6).add("Relu").add("Gather", np.array([5, 1, -2], np.int64), axis=1)
    return end(net.qdq(0.1).conv(2, channels=3))


def features(before=False):
    """A slice of a flat image: every second feature, in the file's order."""
    net = (Net(shape=(1, 2, 4, 3)) if before else start(shape=(1, 2, 4, 3))).add("Flatten").add("Slice", *ends(1, 24, 1, 2))
    return end(net.add("MatMul", net.weights(12, 3, axis=1)))


def dynamic():
    net = start(shape=(1, 5, 6, 7))
    bound = net.node("Cast", [net.node("ReduceMax", [net.last], axes=[1, 2, 3], keepdims=0)], to=7)
    net.last = net.node("Slice", [net.last, net.const(ends(0)[0]), bound, net.const(ends(1)[0])])
    return end(net.conv(3))


ONNX = {
    "shufflenet": (shufflenet(), EXACT), "shufflenet_by_slices": (shufflenet("slice"), EXACT),
    "shufflenet_opset_11": (shufflenet(opset=11, kind=UINT8), EXACT), "ghost": (ghost(), EXACT), "first": (sliced(0, 3, 1), EXACT),
    "steps": (sliced(0, 5, 1, 2), EXACT), "backwards": (sliced(-2, -5, 1, -1), EXACT),
    "channels_last": (sliced(2, 5, 3, channels_last=True), EXACT), "scales_of_channels": (scaled(), EXACT),
    "features": (features(), EXACT), "all_of_it": (end(start().add("Slice", *ends(0, 99, 2)).conv()), EXACT),
    "backwards_at_the_end": (end(start().add("Slice", *ends(3, -9, 1, -1))), EXACT),
    "rows": (end(start().add("Slice", *ends(0, 6, 2, 2)).conv()), "a slice along axis 2 of .* is not supported; supported: of the "
             "channels"), "batch": (end(start().add("Slice", *ends(1, 5, 0)).conv()), "it takes 0 of 1 along axis 0"),
    "nothing": (sliced(3, 3, 1), "it takes 0 of 5 along axis 1"), "no_step": (sliced(0, 3, 1, 0), r"steps \[0\] do not go with"),
    "twice": (end(start().add("Gather", np.array([1, 1, 2], np.int64), axis=1).conv(channels=3)),
              "it takes 3 of 4 along axis 1 .* each at most once"),
    "one": (end(start().add("Gather", np.int64(1), axis=1)), "one index, which takes the axis 1 of .* away"),
    "dynamic": (dynamic(), "its ends must be a constant|ReduceMax|Cast"),
    "parts": (end(start().add("Split", shape(1, 2), outputs=2, axis=1).conv(channels=1)),
              r"parts of \[1, 2\] do not go with axis 1"),
    "before_the_quantizer": (features(True), "the network has no quantizer at its input"),
}


@pytest.mark.parametrize("name", ONNX)
def test_onnx_is_exact_or_refused(name, tmp_path):
    imported = imported_or_refused(tmp_path / "n.onnx", *ONNX[name])
    if imported is None:
        return
    assert ("Select" in {node.op for node in imported.graph}) == (name != "all_of_it")
    pytest.importorskip("onnxruntime", reason="imports; the package onnxruntime is not installed, so nothing is compared")
    report = compare_source(imported)
    report.require_equal()
    assert report.rows[-1].numbers > 10


class Lite(lite.Net):
    def split(self, *sizes, kind="SPLIT", axis=3):
        """Append a split of the last tensor and return its parts."""
        scale, zero = self.grid()
        parts = [self.tensor(tuple(size if k == axis else n for k, n in enumerate(self.shape())), np.int8, scale, zero)
                 for size in sizes]
        place = self.const(np.array(axis, np.int32))
        if kind == "SPLIT":
            self.op(kind, (place, self.at), parts, "SplitOptions", NumSplits=len(sizes))
        else:
            self.op(kind, (self.at, self.const(np.array([*sizes[:-1], -1], np.int32)), place), parts,
                    "SplitVOptions", NumSplits=len(sizes))
        return parts

    def strided(self, begin, end, steps, out, **masks):
        constants = [self.const(np.array(v, np.int32)) for v in (begin, end, steps)]
        return self.layer("STRIDED_SLICE", constants, out, "StridedSliceOptions", **masks)

    def slice(self, begin, size, out, scale=None):
        return self.layer("SLICE", [self.const(np.array(v, np.int32)) for v in (begin, size)], out, "SliceOptions", scale)


def lite_shufflenet(kind="SPLIT"):
    net = Lite((1, 4, 5, 3)).conv(8)
    for _ in range(2):
        one, two = net.split(4, 4, kind=kind)
        net.at = two
        net.conv(4, (1, 1)).depthwise(act=0).conv(4, (1, 1)).concat(one)
        net.reshape(1, 4, 5, 2, 4).layer("TRANSPOSE", (net.const(np.array([0, 1, 2, 4, 3], np.int32)),),
                                         (1, 4, 5, 4, 2)).reshape(1, 4, 5, 8)
    return net.mean().dense(3).file()


def lite_partial():
    """As TensorFlow writes x[..., a:b], a part left over, and a slice of features."""
    net = Lite((1, 4, 4, 3)).conv(7)
    whole = net.at
    a = net.strided([0, 0, 0, 2], [0, 0, 0, 5], [1, 1, 1, 1], (1, 4, 4, 3), BeginMask=7, EndMask=7).conv(4).at
    net.at = whole
    net.slice([0, 0, 0, 3], [1, 4, 4, -1], (1, 4, 4, 4)).concat(a).strided([0, 0, 0, 0], [1, 4, 4, 8], [1, 1, 1, 3], (1, 4, 4, 3))
    net.at = net.split(1, 2, kind="SPLIT_V")[1]
    return net.mean().dense(9).slice([0, 4], [1, 3], (1, 3)).file()


def lite_slice(*arguments, **more):
    return Lite((1, 4, 4, 3)).conv(4).slice(*arguments, **more).mean().file()


def lite_dynamic():
    net = Lite((1, 4, 4, 3))
    return net.layer("SLICE", (net.at, net.const(np.array([1, 4, 4, 2], np.int32))), (1, 4, 4, 2), "SliceOptions").mean().file()


ALL = [0, 0, 0, 0]
TFLITE = {
    "shufflenet": (lite_shufflenet(), EXACT), "shufflenet_by_sizes": (lite_shufflenet("SPLIT_V"), EXACT),
    "partial": (lite_partial(), EXACT),
    "scales": (lite_slice([0, 0, 0, 1], [1, 4, 4, 2], (1, 4, 4, 2), scale=0.9), "scale and zero point"),
    "backwards": (Lite((1, 4, 4, 3)).conv(4).strided([0, 0, 0, -1], ALL, [1, 1, 1, -1], (1, 4, 4, 4), BeginMask=7,
                                                     EndMask=15).mean().file(), "ascending, of rows and columns"),
    "one_channel": (Lite((1, 4, 4, 3)).conv(4).strided([0, 0, 0, 1], [1, 4, 4, 2], [1] * 4, (1, 4, 4), ShrinkAxisMask=8).file(),
                    "masks of ellipsis, new and shrunk axes"),
    "no_constant": (lite_dynamic(), "its bounds .* must be a constant"),
}
@pytest.mark.parametrize("name", TFLITE)
def test_tflite_is_exact_or_refused(name, tmp_path):
    imported = imported_or_refused(tmp_path / "n.tflite", *TFLITE[name])
    if imported is None:
        return
    report = compare_source(imported, count=6, seed=1)
    assert report.wrong == 0 and "Select" in {node.op for node in imported.graph}


@pytest.mark.slow
@pytest.mark.parametrize("name, content",
                         [("n.onnx", ONNX["shufflenet"][0]), ("n.onnx", ONNX["ghost"][0]), ("n.onnx", ONNX["backwards"][0]),
                          ("n.tflite", lite_shufflenet()), ("n.tflite", lite_partial())])
def test_files_are_exact_in_hardware(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    exact(import_file(tmp_path / name).graph, count=2)


def test_a_slice_of_a_batch_is_one_of_every_image(tmp_path):
    net = Lite((3, 4, 4, 3)).conv(4).strided(ALL, [3, 4, 4, 2], [1] * 4, (3, 4, 4, 2)).conv(3)
    (tmp_path / "n.tflite").write_bytes(net.file())
    assert compare_source(import_file(tmp_path / "n.tflite"), count=6, seed=1).wrong == 0
