"""ONNX as exporters write it around quantizers: sums that several nodes read, clipped codes, constants on ties, outputs' order."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")

from hwq.errors import HwqError  # noqa: E402
from hwq.frontend.importer import compare_source, import_file  # noqa: E402
from hwq.frontend.onnx_check import encode_floats, random_floats  # noqa: E402
from hwq.interp import run  # noqa: E402
from hwq.ir import Add  # noqa: E402

from .test_onnx_networks import UINT8, Qdq  # noqa: E402
from .test_onnx_traps import Net  # noqa: E402


def preact(scale=0.031):
    """A sum read by a Relu and by a quantizer of its own, as with DedicatedQDQPair."""
    net = Qdq((1, 3, 8, 8)).conv(3, 4, scale=0.0213)
    skip = net.last
    net.conv(4, 4, relu=None, scale=0.0537, zero=120)
    total = net.last = net.node("Add", [skip, net.last])
    net.add("Relu").q(0.0391, 0).conv(4, 4, relu=None, scale=0.05, zero=128)
    branch, net.last = net.last, total
    net.qdq(scale, UINT8(100 if scale == 0.031 else 0))
    return net.join("Add", branch, scale=0.06).bytes()


def turned(first):
    """A normalization that turns channels, read by a pool and by a quantizer, in either order."""
    net = Net(shape=(1, 3, 6, 6)).quant(1 / 64, bits=8.0)
    net.add("Conv", net.qweights(4, 3, 3, 3, scale=0.05, bits=4.0))
    net.add("BatchNormalization", np.array([1, -1, .7, -.4], np.float32), *(net.f32(4) for _ in range(2)), net.f32(4, lo=.5, hi=2))
    both = net.last
    ends = {}
    for op in (("MaxPool", "Quant") if first == "MaxPool" else ("Quant", "MaxPool")):
        net.last = both
        if op == "MaxPool":
            net.add("MaxPool", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
        ends[op] = net.quant(.125, bits=5.0).last
    net.last = net.node("Concat", [ends["MaxPool"], ends["Quant"]], axis=1)
    return net.bytes()


def clipped(top, scale=0.11):
    """Activations of fewer bits than their type, as Brevitas' QCDQ and torch.ao's reduced range: a Clip of the codes."""
    net = Qdq((1, 3, 6, 6)).conv(3, 4, scale=scale, zero=0)
    q, dq = net.nodes[-2:]
    clip = onnx.helper.make_node("Clip", [q.output[0], net.const(UINT8(0)), net.const(UINT8(top))], ["clip"], name="clip")
    dq.input[0] = "clip"
    net.nodes.insert(-1, clip)
    return net.conv(4, 4, relu=None, scale=0.05, zero=128).bytes()


def tied(op="QuantizeLinear"):
    """The largest weight lies on a tie after a division in float32, and just below without it."""
    net, weight = Qdq((1, 3, 6, 6)), None
    for _ in range(100):
        weight = net.f32(4, 3, 3, 3)
        scale = (np.abs(weight).max(axis=(1, 2, 3)) / np.float32(127.5)).astype(np.float32)
        exact = np.abs(weight).max(axis=(1, 2, 3)).astype(np.float64) / scale
        if (exact < 127.5).any():
            break
    assert (exact < 127.5).any()
    zero = np.zeros(4, np.int8)
    codes = net.node(op, [net.const(weight), net.const(scale), net.const(zero)], axis=0)
    weight = net.node("DequantizeLinear", [codes, net.const(scale), net.const(zero)], axis=0)
    return net.add("Conv", weight).q(0.03, 128).bytes()


def scaled():
    """A quantized constant of no axes."""
    net = Qdq((1, 3, 6, 6)).conv(3, 4)
    for op, code in (("Mul", 130), ("Add", 30)):
        net.add(op, net.node("DequantizeLinear", [net.const(UINT8(code)), net.const(np.float32(.004)), net.const(UINT8(0))]))
        net.q(0.02, 7)
    return net.bytes()


NETWORKS = {"preact": preact(), "preact_of_one_scale": preact(0.0391), "turned_pool_first": turned("MaxPool"),
            "turned_quant_first": turned("Quant"), "clipped": clipped(15), "clipped_on_the_grid": clipped(127, 1 / 128),
            "tied": tied(), "scaled": scaled()}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_their_source(name, tmp_path):
    if name.startswith("turned"):
        pytest.importorskip("qonnx", reason="the package qonnx is not installed")
    (tmp_path / "n.onnx").write_bytes(NETWORKS[name])
    imported = import_file(tmp_path / "n.onnx")
    report = compare_source(imported, count=20, seed=1)
    assert report.wrong == 0 and all(row.allowed < row.numbers // 20 for row in report.rows)
    assert any(isinstance(node, Add) for node in imported.graph) == name.startswith("preact")


@pytest.mark.parametrize("height", [1, 6])
def test_a_flat_output_stands_in_the_order_of_the_file(height, tmp_path):
    net = Qdq((1, 3, height, 6)).conv(3, 4, relu=None, scale=0.05, zero=128).add("Flatten")
    (tmp_path / "n.onnx").write_bytes(net.bytes())
    imported = import_file(tmp_path / "n.onnx")
    x = random_floats(imported, 6, 3)
    session = onnxruntime.InferenceSession(net.bytes(), providers=["CPUExecutionProvider"])
    theirs = np.concatenate([session.run(None, {"x": each[None]})[0] for each in x])
    ours = run(imported.graph, encode_floats(imported, x))[imported.graph.output.name] * float(imported.details["output"].scale[0])
    shift = float(imported.details["output"].shift[0])
    np.testing.assert_allclose(ours + shift, theirs, atol=1e-4)
    assert compare_source(imported, count=6).classes_differ == 0 and len(np.unique(theirs.argmax(axis=1))) > 1


def test_of_an_image_at_the_output_the_order_is_told(tmp_path):
    (tmp_path / "n.onnx").write_bytes(Qdq((1, 3, 6, 5)).conv(3, 4).bytes())
    assert any("come as (6, 5, 4): height, width, channels" in note and "(4, 6, 5)" in note
               for note in import_file(tmp_path / "n.onnx").notes)


def test_a_flat_output_that_no_hardware_puts_in_order_is_refused(tmp_path):
    (tmp_path / "n.onnx").write_bytes(Qdq((1, 3, 6, 6)).conv(3, 32).add("Flatten").bytes())
    with pytest.raises(HwqError, match="output .* is an image whose elements .* end the network before Flatten 'n"):
        import_file(tmp_path / "n.onnx")


def test_a_refusal_behind_an_image_of_channels_last_names_its_reason(tmp_path):
    net = Qdq((1, 8, 6, 3)).add("Transpose", perm=[0, 3, 1, 2]).conv(3, 4).add("Elu", alpha=0.1)
    (tmp_path / "n.onnx").write_bytes(net.bytes())
    with pytest.raises(HwqError, match="operator Elu of ONNX is not supported"):
        import_file(tmp_path / "n.onnx")
