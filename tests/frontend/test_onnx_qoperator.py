"""Files in the QOperator format, operators on codes: exact inside the bound of onnxruntime's kernels, or refused by name."""

import platform

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from hwq.frontend.importer import compare_source, import_file  # noqa: E402
from hwq.interp import run  # noqa: E402

from .expected import EXACT, imported_or_refused  # noqa: E402
from .test_onnx_traps import Net  # noqa: E402

MS = "com.microsoft"
U8, I8 = np.uint8, np.int8
X86 = platform.machine().lower() in ("x86_64", "amd64")


class Codes(Net):
    """Writes a chain on codes, behind a QuantizeLinear of the input; each operator's output has the scale and zero point given."""

    def __init__(self, shape=(1, 4, 7, 6), scale=0.0513, zero=U8(131), quantized=False, **more):
        super().__init__(shape=shape, **more)
        self.grid, self.kind = self.of(scale, zero), type(zero)
        if not quantized:
            self.add("QuantizeLinear", *self.grid)

    def of(self, scale, zero):
        return [self.const(np.float32(scale)), self.const(zero)]

    def triple(self):
        return [self.last, *self.grid]

    def op(self, op, *more, grid=(0.1037, 120), domain=MS, first=(), **attributes):
        out = self.of(grid[0], self.kind(grid[1] - (128 if self.kind is I8 else 0)))
        self.last, self.grid = self.node(op, [*first, *self.triple(), *more, *out], domain, **attributes), out
        return self

    def coded(self, *shape, axis=None, kind=I8, zero=0, scale=None):
        """Return codes, scale and zero point of weights."""
        codes = self.rng.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, shape).astype(kind)
        scales = self.f32(*([] if axis is None else [shape[axis]]), lo=0.002, hi=0.01) if scale is None else np.float32(scale)
        return [self.const(codes), self.const(np.float32(scales)), self.const(np.full(np.shape(scales), zero, kind))]

    def bias(self, outputs, kind=np.int32):
        return self.const(self.rng.integers(-3000, 3000, outputs).astype(kind))

    def conv(self, out=5, channels=4, kernel=(3, 3), group=1, bias=True, weights=None, grid=(0.1037, 120), **attributes):
        weights = weights or self.coded(out, channels // group, *kernel, axis=0)
        new = self.of(grid[0], self.kind(grid[1] - (128 if self.kind is I8 else 0)))
        self.last = self.node("QLinearConv", [*self.triple(), *weights, *new, *([self.bias(out)] if bias else [])], group=group,
                              **attributes)
        self.grid = new
        return self

    def gemm(self, weights, bias=None, real=False, grid=(0.1037, 120), **attributes):
        out = [] if real else self.of(grid[0], self.kind(grid[1]))
        inputs = [*self.triple(), *weights, bias or "", *out]
        self.last, self.grid = self.node("QGemm", inputs[:6 if not bias and real else None], MS, **attributes), out
        return self

    def end(self, domain=""):
        return self.add("DequantizeLinear", *self.grid, domain=domain).done()

    def done(self, **more):
        model = onnx.load_from_string(self.bytes(**more))
        model.opset_import.append(helper.make_opsetid(MS, 1))
        return model.SerializeToString()


def small(**kw):
    return Codes(shape=(1, 20), **kw)


def on_codes(op, *constants, kernel=(3, 3), channels=4, **attributes):
    """An operator of ONNX's own that reads and makes codes, between two layers."""
    opset = attributes.pop("opset", 13)
    net = Codes(opset=opset, zero=I8(3)) if op == "Relu" else Codes(opset=opset)
    return net.conv(pads=[1, 1, 1, 1], out=4).add(op, *constants, **attributes).conv(channels=channels, kernel=kernel).end()


def shuffled():
    net = Codes().conv(6, grid=(0.2, 100))
    net.add("Reshape", np.array([1, 2, 3, 5, 4], np.int64)).add("Transpose", perm=[0, 2, 1, 3, 4])
    return net.add("Reshape", np.array([1, 6, 5, 4], np.int64)).conv(4, 6, group=2).end()


def split():
    """One half of the channels through a layer, joined with the other, as ShuffleNet v2 does."""
    net = Codes().conv(6)
    net.add("Split", np.array([2, 4], np.int64), outputs=2, axis=1)
    grid, other = net.grid, f"{net.last}_1"
    left = net.conv(3, 2, (1, 1)).triple()
    out = net.of(0.1219, U8(125))
    net.last, net.grid = net.node("QLinearConcat", [*out, *left, other, *grid], MS, axis=1), out
    return net.end()


def changed(content, op, **changes):
    """The file with other constants or inputs of the first such node: place -> value, or None for a missing input."""
    model = onnx.load_from_string(content)
    node = next(n for n in model.graph.node if n.op_type == op)
    for place, value in changes.items():
        place = int(place[1:])
        if value is not None:
            model.graph.initializer.append(numpy_helper.from_array(value, f"new{place}"))
        node.input[place] = "" if value is None else f"new{place}"
    return model.SerializeToString()


def joined(op="QLinearAdd", scales=(0.0517, 0.0319, 0.0827), zeros=(131, 3, 118), **attributes):
    """Two branches of one input, of scales and zero points of their own."""
    net = Codes(scale=0.0411)
    first, grid = net.last, net.grid
    a = net.conv(4, kernel=(1, 1), grid=(scales[0], zeros[0])).triple()
    net.last, net.grid = first, grid
    b = net.conv(4, kernel=(1, 1), grid=(scales[1], zeros[1])).triple()
    out = net.of(scales[2], U8(zeros[2]))
    net.last, net.grid = net.node(op, [*out, *a, *b] if op == "QLinearConcat" else [*a, *b, *out], MS, **attributes), out
    return net.end()


def with_constant(op="QLinearAdd", shape=(4, 1, 1), scale=0.0213, first=False):
    net = Codes()
    constant = net.coded(*shape, kind=U8, scale=scale, zero=7)
    out = net.of(0.1037, U8(99))
    net.last, net.grid = net.node(op, [*constant, *net.triple(), *out] if first else [*net.triple(), *constant, *out], MS), out
    return net.end()


def concat_of_bases():
    """Codes of an odd zero point, joined as they are: of a sum that meets ties, and of one that does not."""
    net = Codes(scale=0.5, zero=U8(3))
    net.add("DequantizeLinear", *net.grid)
    real = net.last
    half, odd = net.of(1.0, U8(3)), net.of(0.7013, U8(3))
    codes = net.node("QuantizeLinear", [net.node("Mul", [real, net.const(np.float32(0.5))]), *half])
    other = net.node("QuantizeLinear", [net.node("Mul", [real, net.const(np.float32(0.311))]), *odd])
    net.last, net.grid = net.node("Concat", [codes, other], axis=1), half
    return net.conv(channels=8, grid=(1.037, 120)).end()


def tail(op="QLinearSoftmax", behind=(), **attributes):
    net = small()
    net.op("QLinearMatMul", *net.coded(20, 6), domain="", grid=(0.2, 128))
    if "Softmax" in op:
        attributes = {"axis": 1, "opset": 13, **attributes}
    net.op(op, grid=(1 / 256, 0), **attributes)
    for each in behind:
        net.add(each, **({"axis": 1} if each == "ArgMax" else {}))
    return net.done(kind=TensorProto.INT64) if behind else net.end()


def integers(op, **attributes):
    """Arithmetic on codes as integers, which rounds as integers do."""
    net = Codes().add("Cast", to=TensorProto.INT32).add(op, **attributes).add("Cast", to=TensorProto.FLOAT)
    return net.add("QuantizeLinear", np.float32(1.0), U8(0)).done(kind=TensorProto.UINT8)


def of_reals():
    net = Codes().add("DequantizeLinear", np.float32(0.05), U8(131))
    return net.conv().end()


def plain(op, **attributes):
    return Codes().op(op, **attributes).end()


def pooled(scale=0.0513, **attributes):
    return Codes(scale=scale).op("QLinearAveragePool", **attributes).end()


def c(**kw):
    return Codes().conv(**kw).end()


TRAPS = {
    "conv": (c(), EXACT), "conv_pads": (c(pads=[1, 0, 2, 1]), EXACT),
    "conv_same_upper": (c(auto_pad="SAME_UPPER", strides=[2, 2]), EXACT),
    "conv_groups": (c(out=6, group=2, kernel=(3, 2)), EXACT), "conv_no_bias": (c(bias=False), EXACT),
    "conv_dilations": (c(dilations=[2, 1]), EXACT),
    "conv_one_scale": ((lambda t: t.conv(weights=t.coded(5, 4, 3, 3)).end())(Codes()), EXACT),
    "conv_uint8_weights": ((lambda t: t.conv(weights=t.coded(5, 4, 3, 3, kind=U8, zero=120)).end())(Codes()), EXACT),
    "conv_int8": (Codes(zero=I8(-7)).conv(pads=[1, 1, 1, 1]).conv(3, 5).end(), EXACT),
    "conv_one_dimension": ((lambda t: t.conv(kernel=(3,), pads=[1, 1]).end())(Codes(shape=(1, 4, 9))), EXACT),
    "conv_of_a_uint8_input": (Codes(quantized=True).conv().done(input_kind=TensorProto.UINT8, kind=TensorProto.UINT8), EXACT),
    "conv_codes_out": (Codes().conv().done(kind=TensorProto.UINT8), EXACT),
    "conv_microsoft_quantizers": (
        (lambda t: t.add("QuantizeLinear", *t.grid, domain=MS).conv().end(MS))(Codes(quantized=True)), EXACT),
    "conv_bias_of_floats": (changed(c(), "QLinearConv", i8=np.zeros(5, np.float32)), "its bias must be a constant of int32"),
    "conv_scale_of_two": (changed(c(), "QLinearConv", i1=np.float32([.1, .2])), r"scale \(of input 0\) must be one constant"),
    "conv_scale_out_of_two": (changed(c(), "QLinearConv", i6=np.float32([.1] * 5)), "must be one constant number"),
    "conv_scale_nan": (changed(c(), "QLinearConv", i4=np.float32(np.nan)), "NaN"),
    "conv_scale_negative": (changed(c(), "QLinearConv", i1=np.float32(-.1)), "scale must be positive"),
    "matmul": ((lambda t: t.op("QLinearMatMul", *t.coded(20, 6), domain="").end())(small()), EXACT),
    "matmul_scale_a_column": ((lambda t: t.op("QLinearMatMul", *t.coded(20, 6, axis=1), domain="").end())(small()), EXACT),
    "matmul_per_pixel": (
        (lambda t: t.add("Transpose", perm=[0, 2, 3, 1]).op("QLinearMatMul", *t.coded(4, 6), domain="").end())(Codes()), EXACT),
    "gemm": ((lambda t: t.gemm(t.coded(20, 6, axis=1), t.bias(6)).end())(small()), EXACT),
    "gemm_trans_b": ((lambda t: t.gemm(t.coded(6, 20, axis=0), t.bias(6), transB=1).end())(small()), EXACT),
    "gemm_alpha": ((lambda t: t.gemm(t.coded(20, 6), t.bias((1, 6)), alpha=0.3).end())(small()), EXACT),
    "gemm_bias_of_one": ((lambda t: t.gemm(t.coded(20, 6, axis=1), t.bias(1)).end())(small()), EXACT),
    "gemm_no_bias": ((lambda t: t.gemm(t.coded(20, 6)).end())(small()), EXACT),
    "gemm_real": ((lambda t: t.gemm(t.coded(20, 6), t.bias(6), real=True).done())(small()), EXACT),
    "gemm_trans_a": ((lambda t: t.gemm(t.coded(20, 6), transA=1).end())(small()), "transA = 0"),
    "gemm_beta": ((lambda t: t.gemm(t.coded(20, 6), beta=2.0).end())(small()), "attribute beta = 2.0 is not supported"),
    "add": (joined(), EXACT), "add_ties": (joined(scales=(0.5, 0.5, 1.0), zeros=(100, 28, 120)), EXACT),
    "add_ties_odd_zero_point": (joined(scales=(0.5, 0.5, 1.0), zeros=(100, 28, 121)), EXACT),
    "add_constant": (with_constant(), EXACT), "add_constant_first": (with_constant(first=True), EXACT),
    "add_one_constant": (with_constant(shape=()), EXACT),
    "mul_constant": (with_constant("QLinearMul"), EXACT),
    "mul": (joined("QLinearMul"), "QLinearMul 'n4': of two tensors of the network"),
    "concat": (joined("QLinearConcat", axis=1), EXACT),
    "concat_of_the_same": (joined("QLinearConcat", (0.05, 0.05, 0.05), (131, 131, 131), axis=1), EXACT),
    "concat_rows": (joined("QLinearConcat", axis=2), "is not the channels"),
    "concat_of_bases": (concat_of_bases(), EXACT),
    "average_pool": (pooled(kernel_shape=[2, 2], strides=[2, 2]), EXACT),
    "average_pool_ties": (pooled(scale=0.25, grid=(0.25, 121), kernel_shape=[2, 2]), EXACT),
    "average_pool_pads": (pooled(kernel_shape=[3, 2], pads=[1, 1, 1, 0]), EXACT),
    "average_pool_pads_counted": (pooled(kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), EXACT),
    "average_pool_channels_first": (pooled(kernel_shape=[2, 2], channels_last=0), EXACT),
    "average_pool_channels_last": (pooled(kernel_shape=[2, 2], channels_last=1), "channels_last = 1"),
    "average_pool_ceil_mode": (pooled(kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), "ceil_mode = 1"),
    "global_average_pool": (plain("QLinearGlobalAveragePool", grid=(0.02, 121), channels_last=0), EXACT),
    "max_pool": (on_codes("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), EXACT),
    "relu": (on_codes("Relu", opset=14), EXACT),
    "clip": (on_codes("Clip", U8(70), U8(180)), EXACT),
    "max": (on_codes("Max", U8(110)), EXACT), "min": (on_codes("Min", U8(140)), EXACT),
    "pad": (on_codes("Pad", np.array([0, 0, 1, 2, 0, 0, 0, 1]), U8(120)), EXACT),
    "resize": (on_codes("Resize", "", np.array([1, 1, 2, 2], np.float32)), EXACT),
    "reshape_and_transpose": (shuffled(), EXACT),
    "split": (split(), EXACT),
    "slice": (on_codes("Slice", np.array([1]), np.array([3]), np.array([1]), channels=2), EXACT),
    "flatten": (
        (lambda t: t.conv().add("Flatten").op("QLinearMatMul", *t.coded(100, 3), domain="", grid=(1., 128)).end())(Codes()), EXACT),
    "reduce_max": ((lambda t: t.conv().add("ReduceMax", axes=[2, 3]).conv(3, 5, (1, 1)).end())(Codes()), EXACT),
    "argmax": ((lambda t: t.op("QLinearMatMul", *t.coded(20, 6), domain="", grid=(0.2, 128)).add("ArgMax", axis=1)
                .done(kind=TensorProto.INT64))(small()), EXACT),
    "softmax": (tail(), EXACT), "sigmoid": (tail("QLinearSigmoid"), EXACT),
    "argmax_behind_softmax": (tail(behind=["ArgMax"]), "in the middle of a network, before ArgMax"),
    "softmax_in_the_middle": ((lambda t: t.op("QLinearSoftmax", grid=(1 / 256, 0), axis=1, opset=13).op(
        "QLinearMatMul", *t.coded(20, 6), domain="").end())(small()), "QLinearSoftmax 'n2': in the middle of a network"),
    "leaky_relu": (plain("QLinearLeakyRelu", alpha=0.1), "operator QLinearLeakyRelu of com.microsoft is not supported"),
    "no_zero_point_out": (changed(joined(), "QLinearAdd", i7=None),
                          r"QLinearAdd 'n4': its zero point of the output.*\(input 7\) is missing"),
    "no_scale": (changed(joined(), "QLinearAdd", i1=None), r"its scale \(input 1\) is missing"),
    "mean_of_integers": (integers("ReduceMean", axes=[2, 3]), "ReduceMean 'n3': of integers"),
    "conv_of_reals": (of_reals(), "QLinearConv 'n3': its input must come from a QuantizeLinear"),
}


@pytest.mark.parametrize("name", TRAPS)
def test_refused_or_exact(name, tmp_path):
    imported = imported_or_refused(tmp_path / "trap.onnx", *TRAPS[name])
    if imported is None:
        return
    report = compare_source(imported, count=12, seed=3)
    report.require_equal()
    for row in report.rows[:-1]:
        assert row.bound < 0.02 and row.allowed <= 0.002 * row.numbers, row
    node = imported.graph.input
    x = np.random.default_rng(0).integers(node.lo, node.hi + 1, (40, *node.shape))
    assert len(np.unique(run(imported.graph, x)[imported.graph.output.name].reshape(40, -1), axis=0)) > 3


@pytest.mark.skipif(not X86, reason="other machines round a tie in integers")
@pytest.mark.parametrize("name", ["add_ties", "add_ties_odd_zero_point", "average_pool_ties"])
def test_ties_are_rounded_as_the_kernels_do(name, tmp_path):
    (tmp_path / "x.onnx").write_bytes(TRAPS[name][0])
    report = compare_source(import_file(tmp_path / "x.onnx"), count=20)
    assert sum(row.different for row in report.rows) == 0


scales = st.floats(2.0 ** -8, 0.25, width=32) | st.sampled_from([0.25, 0.125, 0.0625])
zeros = st.integers(0, 255)


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["QLinearAdd", "QLinearConcat"]), st.tuples(scales, scales, scales), st.tuples(zeros, zeros, zeros))
def test_the_bound_holds_for_any_two_tensors(tmp_path_factory, op, scales, zeros):
    path = tmp_path_factory.mktemp("any") / "x.onnx"
    path.write_bytes(joined(op, scales, zeros, **({"axis": 1} if op == "QLinearConcat" else {})))
    compare_source(import_file(path), count=10).require_equal()


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearConv"]), st.booleans(), scales, scales, zeros,
       zeros)
def test_the_bound_holds_for_any_tensor(tmp_path_factory, op, signed, scale, out, zero, other):
    path = tmp_path_factory.mktemp("any") / "x.onnx"
    net = Codes(scale=scale, zero=I8(zero - 128) if signed else U8(zero))
    if op == "QLinearConv":
        net.conv(grid=(out, other), pads=[1, 1, 1, 1])
    else:
        net.op(op, grid=(out, other), **({} if "Global" in op else {"kernel_shape": [3, 2], "pads": [1, 0, 0, 1]}))
    path.write_bytes(net.end())
    compare_source(import_file(path), count=10).require_equal()
