"""A network that onnxruntime quantizes in the QOperator format: equal to the file, and in hardware."""

import logging

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")

from hwq.frontend.importer import compare_source, import_file  # noqa: E402
from tests.plan.test_corners import exact  # noqa: E402

from .test_onnx_traps import Net  # noqa: E402


def network():
    """A small float network with all that the quantizer knows."""
    net = Net(shape=(1, 3, 9, 9), seed=5)

    def conv(out, channels, kernel, **attributes):
        return net.add("Conv", net.f32(out, channels, kernel, kernel), net.f32(out), **attributes)
    skip = conv(4, 3, 3, pads=[1] * 4).add("Relu").last
    net.last = net.node("Add", [conv(4, 4, 3, pads=[1] * 4).add("Relu").last, skip])
    before = net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2]).last
    net.last = net.node("Concat", [conv(3, 4, 1).last, before], axis=1)
    conv(6, 7, 1, group=1).add("Clip", np.float32(0), np.float32(6)).add("Reshape", np.array([1, 2, 3, 4, 4], np.int64)).add(
        "Transpose", perm=[0, 2, 1, 3, 4]).add("Reshape", np.array([1, 6, 4, 4], np.int64))
    net.add("AveragePool", kernel_shape=[2, 2], strides=[1, 1])
    conv(6, 3, 1, group=2).add("Relu").add("GlobalAveragePool").add("Flatten").add("Gemm", net.f32(5, 6), net.f32(5), transB=1)
    return net.add("Relu").add("MatMul", net.f32(5, 4)).add("Add", net.f32(4)).add("Softmax", axis=1)


def quantized(folder, signed, channels):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    net, rng = network(), np.random.default_rng(0)

    class Reader(CalibrationDataReader):
        left = 8

        def get_next(self):
            self.left -= 1
            return {"x": rng.normal(size=net.shape).astype(np.float32)} if self.left >= 0 else None
    (folder / "float.onnx").write_bytes(net.bytes(shape=net.shape))
    kind = QuantType.QInt8 if signed else QuantType.QUInt8
    logging.disable(logging.WARNING)
    try:
        quantize_static(folder / "float.onnx", folder / "x.onnx", Reader(), quant_format=QuantFormat.QOperator,
                        per_channel=channels, activation_type=kind, weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)
    return folder / "x.onnx"


@pytest.mark.parametrize("signed, channels", [(False, False), (False, True), (True, True)])
def test_what_onnxruntime_quantizes(signed, channels, tmp_path):
    path = quantized(tmp_path, signed, channels)
    found = {node.op_type for node in onnx.load(path).graph.node}
    assert found >= {"QLinearConv", "QLinearAdd", "QLinearConcat", "QLinearAveragePool", "QLinearGlobalAveragePool", "QGemm",
                     "QLinearMatMul", "QLinearSoftmax", "MaxPool", "Reshape", "Transpose"}
    report = compare_source(import_file(path), count=30)
    report.require_equal()
    differ = {row.tensor: row.different / row.numbers for row in report.rows if row.different}
    assert report.rows[-1].numbers == 120 and sum(differ.values()) < 0.01 and len(differ) <= 1           # a mean of four meets ties


@pytest.mark.slow
def test_it_is_exact_in_hardware(tmp_path):
    exact(import_file(quantized(tmp_path, False, True)).graph, count=2)
