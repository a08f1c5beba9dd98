"""Other forms of what there is in ONNX: Sum, Min and Max, means one after the other, weights with axes of 1 in front."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")

from hwq.frontend.importer import compare_source, import_file
from tests.plan.test_corners import exact

from .expected import EXACT, imported_or_refused
from .test_onnx_traps import Net, end, flat, residual, start


def then(op, net, *constants, **attributes):
    return end(net.add(op, *constants, **attributes), 0.02)


def reduced(*steps, op="ReduceMean"):
    """Reduce along axes, one after the other; each step is axes and whether they stay."""
    net = start()
    for axes, kept in steps:
        net.add(op, axes=axes, keepdims=kept)
    return net


def line(axis):
    """A mean along the height or width, and a layer along the line of pixels that is left."""
    return end(reduced(([axis], 0)).qdq(0.03).conv(kernel=(3,), pads=[1, 1]))


def product(net, *shape, axis=1):
    """A MatMul by weights with an axis of 1 in front."""
    return end(net.add("MatMul", net.node("Unsqueeze", [net.weights(*shape, axis=axis), net.const(np.array([0]))])))


def several():
    net = start()
    return end(net.add("MatMul", net.weights(7, 6, 3)))


def between(low, high):
    """Max and Min, their constants in front."""
    net = start().conv()
    net.last = net.node("Max", [net.const(np.float32(low)), net.last])
    net.last = net.node("Min", [net.const(np.float32([high])), net.last])
    return end(net, 0.02)


def sum_of_three():
    net = start()
    return end(net.add("Sum", net.last, net.last))


FORMS = {
    "sum": (residual(op="Sum"), EXACT), "sum_of_one": (end(start().conv().add("Sum")), EXACT),
    "sum_of_a_constant": (end(start().conv().add("Sum", np.float32(0.3))), EXACT),
    "sum_of_three": (sum_of_three(), "Sum 'n3': of 3 tensors is not supported"),
    "max_as_relu": (end(start().conv().add("Max", np.float32(0)), 0.07, np.int8(-128)), EXACT),
    "max_and_min": (between(-0.3, 1.5), EXACT), "max_above_min": (between(0.4, 0.2), EXACT),
    "max_a_channel": (then("Max", start().conv(), np.zeros((5, 1, 1), np.float32)), "one constant number"),
    "max_of_two": (residual(op="Max"), "one constant number"),
    "max_of_nan": (then("Max", start(), np.float32(np.nan)), "one constant"),
    "max_of_more_axes": (then("Max", start(), np.zeros((1, 1, 1, 1, 1), np.float32)), "more axes than its input"),
    "hard_sigmoid": (then("HardSigmoid", start()), "operator HardSigmoid of ONNX is not supported"),
    "hard_swish": (then("HardSwish", start(opset=14)), "operator HardSwish of ONNX is not supported"),
    "means": (end(reduced(([3], 0), ([2], 0)), 0.02), EXACT),
    "means_whose_axes_stay": (end(reduced(([2], 1), ([3], 1)), 0.02), EXACT),
    "mean_of_rows": (line(2), EXACT), "mean_of_columns": (line(-1), EXACT),
    "max_of_columns": (end(reduced(([3], 1), op="ReduceMax")), EXACT),
    "maxima": (end(reduced(([3], 0), ([2], 0), op="ReduceMax")), EXACT),
    "mean_of_all": (then("ReduceMean", start()), "axes = None"),
    "mean_of_channels_and_rows": (end(reduced(([1, 2], 1))), r"axes = \[1, 2\]"),
    "matmul": (product(Net(shape=(1, 5, 20)).qdq(), 20, 6), EXACT),
    "matmul_per_pixel": (product(start().add("Transpose", perm=[0, 2, 3, 1]), 4, 6), EXACT),
    "matmul_of_more_axes": (product(flat().qdq(), 20, 6), r"weights of the shape \(1, 20, 6\) for \(1, 20\)"),
    "matmul_of_several": (several(), r"weights of the shape \(7, 6, 3\)"),
}


@pytest.mark.parametrize("name", FORMS)
def test_refused_or_exact(name, tmp_path):
    imported = imported_or_refused(tmp_path / "form.onnx", *FORMS[name])
    if imported is None:
        return
    report = compare_source(imported, count=8, seed=3)
    report.require_equal()
    for row in report.rows[:-1]:
        assert row.bound < 0.05 and row.allowed <= 0.05 * row.numbers, row


@pytest.mark.slow
@pytest.mark.parametrize("name", ["means", "mean_of_rows", "mean_of_columns", "maxima"])
def test_reductions_are_exact_in_hardware(name, tmp_path):
    (tmp_path / "n.onnx").write_bytes(FORMS[name][0])
    exact(import_file(tmp_path / "n.onnx").graph, count=2)
