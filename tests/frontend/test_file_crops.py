# amaranth: UnusedElaboratable=no
"""ONNX and TFLite networks that crop images and lines, as TCNs and U-Nets do: exact, in hardware, and written again."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("tflite", reason="the package tflite is not installed")

from hwq.frontend.importer import compare_source, import_file  # noqa: E402
from tests.plan.test_corners import exact  # noqa: E402

from .expected import EXACT, imported_or_refused  # noqa: E402
from .test_file_slices import Lite, ends  # noqa: E402
from .test_onnx_moved import shape  # noqa: E402
from .test_onnx_networks import Qdq  # noqa: E402
from .test_onnx_traps import Net, end, start  # noqa: E402

FAR = 2 ** 63 - 1


def tcn(last="gather"):
    """As torch writes a TCN: convolutions padded on both sides, chomped, the last step at the end."""
    net = start(shape=(1, 2, 9))
    for channels, d in ((2, 1), (4, 2)):
        net.conv(4, (3,), channels=channels, pads=[2 * d] * 2, dilations=[d]).add("Slice", *ends(0, -2 * d, 2, 1))
        net.add("Relu").qdq(0.03)
    if last == "gather":
        net.add("Gather", np.array(-1, np.int64), axis=2)
    else:
        net.add("Slice", *ends(-1, FAR, 2)).add("Squeeze", np.array([2], np.int64))
    return end(net.add("MatMul", net.weights(4, 3, axis=1)))


def qonnx():
    net = Net(shape=(1, 2, 6, 5)).quant()
    net.add("Conv", net.qweights(3, 2, 3, 3), pads=[1, 1, 1, 1]).add("Relu").quant(signed=0).add(
        "Slice", shape(1, 0), shape(FAR, -1), shape(2, 3), shape(1, 1))
    return net.add("Conv", net.qweights(2, 3, 2, 2)).quant(0.5, bits=8.0).bytes()


def unet():
    """A skip, cropped around its middle, joined with what was enlarged; pads below 0 do the same on the other branch."""
    net = Qdq((1, 2, 10, 10)).conv(2, 4, pads=[0, 0, 0, 0])
    skip = net.last
    net.last = net.node("MaxPool", [skip], kernel_shape=[2, 2], strides=[2, 2])
    low = net.node("Pad", [net.last, net.const(shape(0, 0, -1, -1, 0, 0, -1, -1))])
    net.last = net.node("Slice", [skip, *(net.const(v) for v in (shape(3, 3), shape(5, 5), shape(2, 3)))])
    return net.join("Concat", low, axis=1, scale=0.03, zero=0).head(8, 3).bytes()


def crop(*bounds, channels_last=False, conv=True):
    net = start(shape=(1, 6, 7, 4)) if channels_last else start(shape=(1, 4, 6, 7))
    net.add("Slice", *ends(*bounds))
    if channels_last:
        net.add("Transpose", perm=[0, 3, 1, 2])
    return end(net.conv(3) if conv else net)


def padded(*pads, value=0.0):
    return end(start(shape=(1, 4, 6, 7)).add("Pad", np.array(pads), np.float32(value)).conv(3, pads=[1, 1, 1, 1]))


def split():
    net = start(shape=(1, 4, 6, 7))
    net.last = net.node("Split", [net.last, net.const(shape(2, 3, 2))], outputs=3, axis=3) + "_1"
    return end(net.conv(3))


ONNX = {
    "tcn": (tcn(), EXACT), "tcn_by_slices": (tcn("slice"), EXACT), "qonnx": (qonnx(), EXACT), "unet": (unet(), EXACT),
    "rows": (crop(1, 5, 2), EXACT), "last_column": (crop(-3, FAR, 3), EXACT), "bare": (crop(-1, FAR, 2, conv=False), EXACT),
    "channels_last": (crop(1, 5, 2, channels_last=True), EXACT), "split": (split(), EXACT),
    "one_row": (end(start().add("Gather", np.array(1, np.int64), axis=2).conv(3, (2,))), EXACT),
    "row_of_a_list": (end(start().add("Gather", np.array([2, 3], np.int64), axis=3).conv(3, (2, 2))), EXACT),
    "pads": (padded(0, 0, -1, 0, 0, 0, -2, -1, value=0.0333), EXACT),
    "pads_of_both_kinds": (padded(0, 0, 2, -3, 0, 0, -3, 1), EXACT),
    "pads_off_the_grid": (padded(0, 0, 2, -3, 0, 0, -3, 1, value=0.0333), "has no integer"),
    "steps": (crop(0, 6, 2, 2), "axis 2 of .* and of rows and columns in steps of 1"),
    "backwards": (crop(5, 1, 2, -1), "axis 2 of .* and of rows and columns in steps of 1"),
    "nothing": (crop(3, 3, 2), "it takes 0 of 6 along axis 2"),
    "no_pixel": (padded(0, 0, -3, 0, 0, 0, -3, 0), "leave nothing of the"),
    "twice": (end(start().add("Gather", np.array([2, 2], np.int64), axis=3).conv(3, (2, 2))), "it takes 2 of 6 along axis 3"),
    "channels_by_pads": (padded(0, -1, 0, 0, 0, 0, 0, 0), "supported: on height and width"),
}


@pytest.mark.parametrize("name", ONNX)
def test_onnx_is_exact_or_refused(name, tmp_path):
    imported = imported_or_refused(tmp_path / "n.onnx", *ONNX[name])
    if imported is None:
        return
    assert any(min(node.pads) < 0 for node in imported.graph if node.op == "Pad")
    pytest.importorskip("onnxruntime", reason="imports; the package onnxruntime is not installed, so nothing is compared")
    report = compare_source(imported)
    report.require_equal()
    assert report.rows[-1].numbers > 10


def lite_tcn(shrink=True):
    """As Keras writes a causal TCN and its last step, of lines in time."""
    net = Lite((1, 9, 2)).reshape(1, 1, 9, 2, kind="EXPAND_DIMS").conv(4, (1, 3), same=False)
    net.strided([0, 0, 2, 0], ALL, [1] * 4, (1, 1, 5, 4), BeginMask=11, EndMask=15).conv(4, (1, 2))
    net.reshape(1, 5, 4, kind="SQUEEZE")
    if shrink:
        net.strided([0, -1, 0], [0, 0, 0], [1] * 3, (1, 4), BeginMask=5, EndMask=5, ShrinkAxisMask=2)
    else:
        net.slice([0, 4, 0], [1, 1, -1], (1, 1, 4))
    return net.dense(3).file()


def lite_images():
    """Crops of both axes, with channels, by a split, and a row and a column whose axes go."""
    net = Lite((1, 7, 8, 3)).conv(4)
    net.slice([0, 1, 2, 1], [1, 5, -1, 3], (1, 5, 6, 3)).conv(4, same=False)
    net.at = net.split(1, 3, kind="SPLIT_V", axis=2)[1]
    net.strided(ALL, [1, 2, 0, 0], [1] * 4, (1, 2, 3, 4), BeginMask=15, EndMask=13)
    whole = net.at
    net.strided([0, 0, 2, 0], ALL, [1] * 4, (1, 2, 4), BeginMask=11, EndMask=11, ShrinkAxisMask=4)
    column = net.reshape(1, 1, 2, 4).conv(3, (1, 2)).mean().at
    net.at = whole
    return net.strided([0, 1, 0, 0], ALL, [1] * 4, (1, 3, 4), BeginMask=13, EndMask=13, ShrinkAxisMask=2).reshape(
        1, 1, 3, 4).conv(3, (1, 2)).mean().concat(column).dense(3).file()


def strided(begin, end, steps, out, **masks):
    return Lite((1, 4, 4, 3)).conv(4).strided(begin, end, steps, out, **masks).mean().file()


ALL = [0, 0, 0, 0]
TFLITE = {
    "tcn": (lite_tcn(), EXACT), "tcn_keeping_the_axis": (lite_tcn(False), EXACT), "images": (lite_images(), EXACT),
    "steps": (strided(ALL, [1, 4, 4, 4], [1, 2, 1, 1], (1, 2, 4, 4)), r"takes \(1, 2, 4, 4\) of .* rows and columns in steps of 1"),
    "backwards": (strided([0, -1, 0, 0], ALL, [1, -1, 1, 1], (1, 4, 4, 4), BeginMask=13, EndMask=15), "columns in steps of 1"),
    "nothing": (strided(ALL, [1, 0, 4, 4], [1] * 4, (1, 0, 4, 4)), r"takes \(1, 0, 4, 4\) of|STRIDED_SLICE"),
    "batch": (strided(ALL, ALL, [1] * 4, (4, 4, 4), EndMask=15, ShrinkAxisMask=1), "shrunk axes of height"),
}


@pytest.mark.parametrize("name", TFLITE)
def test_tflite_is_exact_or_refused(name, tmp_path):
    imported = imported_or_refused(tmp_path / "n.tflite", *TFLITE[name])
    if imported is None:
        return
    report = compare_source(imported, count=6, seed=1)
    assert report.wrong == 0 and any(min(node.pads) < 0 for node in imported.graph if node.op == "Pad")


FILES = {**{f"{name}.onnx": ONNX[name][0] for name in ("tcn", "qonnx", "unet", "split", "one_row", "pads_of_both_kinds")},
         "tcn.tflite": lite_tcn(), "images.tflite": lite_images()}


@pytest.mark.parametrize("name", FILES)
def test_files_are_exact_in_hardware(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name])
    exact(import_file(tmp_path / name).graph, count=2)
