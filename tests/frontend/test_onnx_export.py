"""QONNX export: bit-equal to the interpreter in the qonnx executor, and the same network when it is imported again."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("qonnx", reason="the package qonnx is not installed")
from typer.testing import CliRunner

from hwq import ir
from hwq.cli import app
from hwq.errors import ModelError, VerifyError
from hwq.formats import Bipolar, FixedPoint, PowerOfTwo
from hwq.frontend.export_check import compare_export, random_codes
from hwq.frontend.importer import compare_source, import_file
from hwq.frontend.onnx_export import export_onnx
from hwq.interp import run

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion" / "model.hwq"


def exported(graph, tmp_path, count=3):
    """Export, compare, import again, compare; return the model."""
    made, codes = export_onnx(graph), random_codes(graph, count, 1)
    _, compared = compare_export(graph, made, codes)
    assert len(compared) >= len(graph.nodes) // 2
    path = tmp_path / "x.onnx"
    path.write_bytes(made.model.SerializeToString())
    again = import_file(path)
    x = np.moveaxis(codes, -1, 1) * float(made.units[graph.input.name])
    compare_source(again, x.astype(np.float32)).require_equal()
    wanted, found = (run(g, codes)["output"].reshape(count, -1) for g in (graph, again.graph))
    units = [made.units["output"], again.details["output"].scale[0]]
    np.testing.assert_array_equal(wanted * float(units[0]), found * float(units[1]) + float(again.details["output"].shift[0]))
    return made.model


def random_weights(rng, shape, fmt):
    if isinstance(fmt, Bipolar):
        return rng.choice([-1, 1], shape)
    if isinstance(fmt, PowerOfTwo):
        return rng.choice([0, 1, 2, 4, -1, -2, -4], shape)
    return rng.integers(fmt.range[0], fmt.range[1] + 1, shape)


def requantized(requantize, channels=3, fmt=FixedPoint(4, 3), bias=40, end=()):
    """Input, convolution, a requantization, and what follows."""
    rng = np.random.default_rng(0)
    conv = ir.Conv2d("conv", ("input",), random_weights(rng, (channels, 3, 3, 2), fmt),
                     rng.integers(-bias, bias + 1, channels), fmt, pads=(1, 1, 1, 1))
    end = end or (ir.Output("output", ("act",)),)
    return ir.Graph((ir.Input("input", (), (5, 4, 2), 0, 15, 4), conv, replace(requantize, name="act", inputs=("conv",)), *end))


def array(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("form, operators", [
    (ir.Requantize("", (), offset=array(8), shift=4, lo=0, hi=15, frac_bits=3), ["Add", "Quant"]),
    (ir.Requantize("", (), shift=4, lo=-8, hi=7, frac_bits=3), ["Quant"]),
    (ir.Requantize("", (), shift=4, lo=-7, hi=7, half_even=True, frac_bits=3), ["Quant"]),
    (ir.Requantize("", (), array(3, -5, 0), array(-4, 9, 33), 6, -8, 7, frac_bits=2), ["Mul", "Add", "Quant"]),
    (ir.Requantize("", (), array(1, 2, 4), shift=0, lo=-9999, hi=9999, frac_bits=9), ["Mul"]),
    (ir.Requantize("", (), shift=-2, lo=-9999, hi=9999, frac_bits=9), []),
    (ir.Requantize("", (), shift=0, lo=-9999, hi=9999, frac_bits=7), ["Identity"]),
    (ir.Requantize("", (), shift=2, lo=-5, hi=11, frac_bits=3), ["MultiThreshold"]),
    (ir.Requantize("", (), array(40_000, -70_001, 123), array(5), 20, -8, 7, frac_bits=3), ["Mul", "MultiThreshold"]),
    (ir.Requantize("", (), array(700), array(512), 10, -100, 100, array(511), frac_bits=3), ["MultiThreshold"]),
    (ir.Requantize("", (), lo=-2, hi=1, thresholds=np.array([[-9, 4, 60], [-1, 0, 0], [3, 3, 9999]]), frac_bits=1),
     ["MultiThreshold"]),
    (ir.Requantize("", (), shift=4, lo=0, hi=15), ["Mul", "Quant"]),             # no scale: one integer counts one
])
def test_every_form_of_requantization(form, operators, tmp_path):
    made = exported(requantized(form), tmp_path, 6)
    assert [node.op_type for node in made.graph.node][3:] == (operators or ["Mul"])


@pytest.mark.parametrize("fmt", [FixedPoint(2, 1), FixedPoint(5, -3, narrow=True), FixedPoint(16, 20),
                                 PowerOfTwo(3, -1), Bipolar(2), Bipolar()])
def test_every_format_of_weights(fmt, tmp_path):
    graph = requantized(ir.Requantize("", (), shift=5, lo=0, hi=7, frac_bits=2), fmt=fmt)
    model = exported(graph, tmp_path)
    assert [node.op_type for node in model.graph.node][1:3] == ["BipolarQuant" if isinstance(fmt, Bipolar) else "Quant", "Conv"]


def pooled(*nodes):
    first = ir.Requantize("", (), offset=array(8), shift=4, lo=-8, hi=7, frac_bits=3)
    return requantized(first, end=(*nodes, ir.Output("output", (nodes[-1].name,))))


def test_means_over_nine_pixels_are_rounded_as_here(tmp_path):
    """The mean itself is no float32; the thresholds lie between two means."""
    for node in (ir.AvgPool2d("sum", ("act",), (3, 3), (1, 1), (1, 1, 1, 1)), ir.AvgPool2d("sum", ("act",), (3, 2), (2, 1))):
        pixels = node.kernel[0] * node.kernel[1]
        scale = ir.Requantize("code", ("sum",), array((1 << 20) // pixels), array(1 << 19), 20, -8, 7, frac_bits=3)
        made = exported(pooled(node, scale), tmp_path, 5)
        assert [n.op_type for n in made.graph.node][-2:] == ["AveragePool", "MultiThreshold"]
    with pytest.raises(ModelError,
                       match="Output 'output' cannot be exported: it reads means over 72.*a Requantize must come first"):
        export_onnx(pooled(ir.AvgPool2d("sum", ("act",), (3, 3), (1, 1))))
    with pytest.raises(ModelError, match="Conv2d 'next' cannot be exported: it reads means"):
        export_onnx(pooled(ir.AvgPool2d("sum", ("act",), (3, 3), (1, 1)),
                           ir.Conv2d("next", ("sum",), np.ones((1, 1, 1, 3), np.int64), array(0), FixedPoint(2, 0))))


def test_layers_without_weights(tmp_path):
    made = exported(pooled(
        ir.Pad("pad", ("act",), (1, 0, 2, 1), -3), ir.MaxPool2d("max", ("pad",), (3, 2), (1, 2), (1, 0, 1, 1)),
        ir.Upsample("up", ("max",), (2, 3)), ir.AvgPool2d("mean", ("up",), (2, 2), (2, 2)), ir.Concat("both", ("mean", "mean")),
        ir.Select("some", ("both",), array(0, 2, 3)), ir.Flatten("flat", ("some",)),
        ir.Linear("fc", ("flat",), np.random.default_rng(1).integers(-2, 2, (3, 4 * 8 * 3)), array(4, 0, -9), FixedPoint(2, 1)),
        ir.ArgMax("class", ("fc",))), tmp_path)
    assert [node.op_type for node in made.graph.node][5:] == ["Pad", "MaxPool", "Resize", "AveragePool", "Concat", "Gather",
                                                              "Transpose", "Flatten", "Quant", "Gemm", "ArgMax"]


@pytest.mark.parametrize("pads, operators", [((-1, 0, -1, -2), ["Slice"]), ((2, -1, 0, -1), ["Slice", "Pad"]),
                                             ((-2, 1, 0, 0), ["Slice", "Pad"]), ((0, 0, 0, 0), ["Pad"])])
def test_crops(pads, operators, tmp_path):
    made = exported(pooled(ir.Pad("crop", ("act",), pads, -2), ir.AvgPool2d("mean", ("crop",), (2, 2), (2, 1))), tmp_path)
    assert [node.op_type for node in made.graph.node][5:] == [*operators, "AveragePool"]
    crop = ir.Pad("crop", ("sum",), (0, -1, -1, 0))      # of means, which are no floats: a Slice does not ask
    code = ir.Requantize("code", ("crop",), array((1 << 20) // 9), array(1 << 19), 20, -8, 7, frac_bits=3)
    exported(pooled(ir.AvgPool2d("sum", ("act",), (3, 3), (1, 1)), crop, code), tmp_path)
    with pytest.raises(ModelError, match="Pad 'crop' cannot be exported: it reads means"):
        export_onnx(pooled(ir.AvgPool2d("sum", ("act",), (3, 3), (1, 1)), ir.Pad("crop", ("sum",), (1, -1, -1, 0)), code))


def test_pads_of_a_foreign_zero_point_and_sums_of_any_multipliers(tmp_path):
    rng = np.random.default_rng(3)
    codes = ir.Requantize("codes", ("act",), lo=-8, hi=7)
    exported(pooled(codes, ir.Conv2d("deep", ("codes",), rng.integers(-2, 2, (3, 3, 3, 1)), array(1, 2, 3), FixedPoint(2, 0),
                                     (1, 2), (2, 2, 2, 2), (2, 2), 3, pad_value=5)), tmp_path)
    exported(pooled(ir.Requantize("fine", ("act",), offset=array(1), shift=1, lo=-4, hi=3, frac_bits=2),
                    ir.Add("sum", ("act", "fine"), (1, 2)),
                    ir.Requantize("end", ("sum",), offset=array(2), shift=2, lo=0, hi=3, frac_bits=1)), tmp_path)
    exported(pooled(codes, ir.Requantize("half", ("codes",), shift=1, lo=-4, hi=3), ir.Add("sum", ("half", "codes"), (7, -3)),
                    ir.Requantize("end", ("sum",), array(5), array(3), 6, 0, 3)), tmp_path)


@pytest.mark.parametrize("graph, text", [
    (lambda: requantized(ir.Requantize("", (), shift=9, lo=0, hi=15), fmt=FixedPoint(16, 3), bias=1 << 25),
     "Conv2d 'conv' cannot be exported: its sums reach"),
    (lambda: requantized(ir.Requantize("", (), array(7), shift=0, lo=-99999, hi=3, frac_bits=300)),
     "Requantize 'act' cannot be exported: one integer is worth"),
    (lambda: requantized(ir.Requantize("", (), array(70_001), shift=2, lo=-90_000_000, hi=90_000_000)),
     "Requantize 'act' cannot be exported.*thresholds; the limit"),
    (lambda: ir.Graph((ir.Input("input", (), (4,), -5, 1 << 17), ir.Output("output", ("input",)))),
     "Input 'input'.*-5..131072 take more than 16 bits"),
    (lambda: ir.Graph((ir.Input("input", (), (4,), 0, 3), ir.ArgMax("class", ("input",)), ir.Requantize("more", ("class",), hi=1),
                       ir.Output("output", ("more",)))), "ArgMax 'class' cannot be exported: something reads the class"),
])
def test_what_float32_would_round_is_refused_by_name(graph, text):
    with pytest.raises(ModelError, match=text):
        export_onnx(graph())


def test_a_wrong_export_is_noticed():
    graph = requantized(ir.Requantize("", (), offset=array(8), shift=4, lo=0, hi=15, frac_bits=3))
    made = export_onnx(graph)
    other = graph.with_nodes([replace(node, offset=array(9)) if node.name == "act" else node for node in graph])
    with pytest.raises(VerifyError, match="Edge 'act' differs at input"):
        compare_export(other, made, random_codes(graph, 6, 0))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10 ** 6), mode=st.sampled_from(["fold", "keep"]))
def test_trained_networks_with_branches(seed, mode, tmp_path_factory):
    pytest.importorskip("torch")
    from hwq.frontend import convert
    from hwq.quant import InputSpec, calibrate, prepare

    from ..quant.networks import Drawn, randomize
    net = Drawn(seed, 5).eval()
    randomize(net, seed)
    x = InputSpec(4).tensor(np.random.default_rng(seed).integers(0, 256, (4, 6, 6, 2)).astype(np.uint8))
    model = prepare(copy.deepcopy(net), x, {"*": "dfp:b=4", "last": "po2:b=3,channel"}, input=InputSpec(4), batchnorm=mode)
    calibrate(model, [x])
    exported(convert(model), tmp_path_factory.mktemp("onnx"), 2)


def test_the_command(tmp_path):
    path = tmp_path / "x.onnx"
    result = CliRunner().invoke(app, ["export", str(EXAMPLE), "-o", str(path), "--inputs", "2", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["oracle"].startswith("qonnx") and report["checked_numbers"]["fc"] == 20 and report["operators"] == 24
    again = CliRunner().invoke(app, ["import", str(path), "-o", str(tmp_path / "y.hwq"), "--inputs", "2"])
    assert again.exit_code == 0, again.output
    graph, back = ir.load(EXAMPLE), ir.load(tmp_path / "y.hwq")
    codes = random_codes(graph, 20, 5)
    np.testing.assert_array_equal(run(graph, codes)["output"], run(back, codes)["output"])
    shown = CliRunner().invoke(app, ["export", str(EXAMPLE), "-o", str(path), "--inputs", "1"])
    assert "none differs" in shown.output and "input 'global_in' = integer * 0.00390625" in shown.output
