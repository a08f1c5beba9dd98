"""ONNX: networks that others made, rounding, damaged files, the command."""

import gzip
import json
import os
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx", reason="the package onnx is not installed")
from typer.testing import CliRunner

from hwq import ir
from hwq.cli import app
from hwq.errors import FormatError, HwqError, VerifyError
from hwq.frontend.importer import compare_source, import_file, input_grid
from hwq.frontend.onnx_check import encode_floats, random_floats
from hwq.frontend.rounding import MODES, integer_thresholds, round_exact, sqrt_fraction, step
from hwq.interp import run, run_batches
from hwq.passes import apply_passes

from .test_onnx_traps import dense, end, n, residual, start, thresholds

MODELS = Path(__file__).parent / "models"
OTHERS = os.environ.get("HWQ_MODELS")              # a folder with networks that the repository may not hold


def rows_of(report):
    report.require_equal()
    return {row.edge: row for row in report.rows}


def test_tfc_2w2a():
    imported = import_file(MODELS / "TFC_2W2A.onnx")
    assert [node.op for node in imported.graph if node.op in ("Linear", "Requantize")] == ["Linear", "Requantize"] * 3 + ["Linear"]
    pytest.importorskip("qonnx", reason="the package qonnx is not installed")
    x = random_floats(imported, 12, seed=1)
    report = compare_source(imported, x)
    assert len(rows_of(report)) == 5 and report.classes_differ == 0
    codes = encode_floats(imported, x)
    np.testing.assert_array_equal(run_batches(apply_passes(imported.graph), codes), run_batches(imported.graph, codes))


@pytest.mark.skipif(not OTHERS, reason="HWQ_MODELS names no folder with kwsmlp_w3a3.onnx and qkeras_jettagging.onnx")
@pytest.mark.parametrize("name, spec", [("kwsmlp_w3a3", None), ("qkeras_jettagging", "dfp:b=10,fl=6")])
def test_networks_of_others(name, spec):
    pytest.importorskip("qonnx", reason="the package qonnx is not installed")
    rows_of(compare_source(import_file(Path(OTHERS) / f"{name}.onnx", grid=input_grid(spec)), count=20))


@pytest.mark.skipif(not OTHERS or not Path(OTHERS or "", "t10k-images-idx3-ubyte.gz").exists(),
                    reason="HWQ_MODELS names no folder with MNIST")
def test_tfc_scores_as_published():
    """96.60 %, as the model zoo says."""
    images = np.frombuffer(gzip.open(Path(OTHERS, "t10k-images-idx3-ubyte.gz")).read()[16:], np.uint8).reshape(-1, 1, 28, 28)
    labels = np.frombuffer(gzip.open(Path(OTHERS, "t10k-labels-idx1-ubyte.gz")).read()[8:], np.uint8)
    imported = import_file(MODELS / "TFC_2W2A.onnx", grid=input_grid("udfp:b=8", "1/255"))
    codes = encode_floats(imported, (images / 255).astype(np.float32))
    np.testing.assert_array_equal(codes[..., 0], images[:, 0])
    assert (run_batches(imported.graph, codes).argmax(axis=1) == labels).sum() == 9660


def test_a_wrong_network_is_noticed(tmp_path):
    pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
    from dataclasses import replace
    (tmp_path / "x.onnx").write_bytes(end(start().conv()))
    imported = import_file(tmp_path / "x.onnx")
    nodes = [replace(node, offset=node.offset + (1 << node.shift)) if node.op == "Requantize" else node for node in imported.graph]
    with pytest.raises(VerifyError, match="differs"):
        compare_source(replace(imported, graph=imported.graph.with_nodes(nodes))).require_equal()


def by_hand(mode, x):
    """Rounding written once more: from the distances to the two neighbours."""
    low = x.numerator // x.denominator
    if x == low:
        return low
    high, part = low + 1, x - low
    up = {"CEIL": True, "FLOOR": False, "UP": x > 0, "DOWN": x < 0}.get(mode)
    if up is None:
        tie = {"HALF_UP": x > 0, "HALF_DOWN": x < 0}.get(mode, low % 2 == 1)
        up = part > Fraction(1, 2) or (part == Fraction(1, 2) and tie)
    return high if up else low


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(MODES), st.fractions(-9, 9, max_denominator=12) | st.integers(-20, 20).map(lambda i: Fraction(i, 2)))
def test_rounding(mode, x):
    found = round_exact(mode, x)
    assert found == by_hand(mode, x)
    for k in range(-10, 11):
        place, strict = step(mode, k)
        assert (x > place or (x == place and not strict)) == (found >= k)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(MODES), st.fractions(-2, 2, max_denominator=64), st.fractions(-5, 5, max_denominator=8),
       st.booleans(), st.booleans(), st.sampled_from([0, 1, 1, Fraction(1, 3), Fraction(5, 2)]))
def test_thresholds_of_real_lines(mode, scale, shift, lower, upper, slope):
    lo, hi = Fraction(-1, 2) if lower else None, Fraction(5, 2) if upper else None
    table = integer_thresholds([step(mode, k) for k in range(-2, 4)], scale, shift, lo, hi, Fraction(slope))
    for a in range(-12, 13):
        x = scale * a + shift
        x = x if x >= 0 else x * slope
        x = x if lo is None else max(x, lo)
        x = x if hi is None else min(x, hi)
        b = a if scale >= 0 else -a
        assert sum(b >= t for t in table) == min(max(by_hand(mode, x), -3), 3) + 3


@settings(max_examples=50, deadline=None)
@given(st.fractions(Fraction(1, 10 ** 6), 10 ** 6))
def test_square_roots(x):
    root = sqrt_fraction(x)
    assert abs(root * root - x) <= x * Fraction(1, 1 << 250)
    assert sqrt_fraction(x * x) == x


@pytest.mark.parametrize("content", [end(start().conv()), residual(), dense(n()), thresholds()],
                         ids=["conv", "residual", "quant", "thresholds"])
def test_damaged_files_only_give_errors_of_ours(content, tmp_path):
    rng = np.random.default_rng(12)
    path = tmp_path / "x.onnx"
    refused = 0
    for _ in range(25):
        data = bytearray(content)
        for _ in range(int(rng.integers(1, 6))):
            data[int(rng.integers(0, len(data)))] = int(rng.integers(0, 256))
        if rng.random() < 0.2:
            data = data[:int(rng.integers(0, len(data)))]
        path.write_bytes(bytes(data))
        started = time.monotonic()
        try:
            import_file(path)
        except HwqError:
            refused += 1
        assert time.monotonic() - started < 30
    assert refused > 5


def test_command(tmp_path):
    pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
    (tmp_path / "x.onnx").write_bytes(end(start().conv().add("Relu")))
    done = CliRunner().invoke(app, ["import", str(tmp_path / "x.onnx"), "-o", str(tmp_path / "x.hwq"), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    assert report["source"] == "onnx" and report["check"]["wrong"] == 0 and report["requantize"][0]["form"] == "scale"
    graph = ir.load(tmp_path / "x.hwq")
    assert graph.name == "x"
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "x.hwq"), "--json"])
    assert json.loads(shown.output)["requantize"] == report["requantize"]
    np.save(tmp_path / "in.npy", np.zeros((2, 4, 7, 6), np.float32))
    done = CliRunner().invoke(app, ["import", str(tmp_path / "x.onnx"), "-o", str(tmp_path / "y.hwq"), "--data",
                                    str(tmp_path / "in.npy")])
    assert done.exit_code == 0 and "on 2 inputs" in done.output
    run(graph, np.zeros((1, *graph.input.shape), np.int64))


def test_command_exits_6_and_writes_nothing_on_a_difference(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")
    from dataclasses import replace

    import hwq.frontend.importer as importer
    (tmp_path / "x.onnx").write_bytes(end(start().conv()))
    right = importer.import_file

    def wrong(*args, **kwargs):
        found = right(*args, **kwargs)
        nodes = [replace(node, offset=node.offset + (1 << node.shift)) if node.op == "Requantize" else node for node in found.graph]
        return replace(found, graph=found.graph.with_nodes(nodes))
    monkeypatch.setattr(importer, "import_file", wrong)
    done = CliRunner().invoke(app, ["import", str(tmp_path / "x.onnx"), "-o", str(tmp_path / "x.hwq")])
    assert isinstance(done.exception, VerifyError) and done.exception.exit_code == 6
    assert not (tmp_path / "x.hwq").exists()


def test_input_formats():
    assert input_grid("dfp:b=8,fl=6").scale == Fraction(1, 64) and input_grid("udfp:b=8", "1/255").hi == 255
    for spec, scale in ((None, "0.5"), ("dfp:b=8", None), ("dfp:b=8,fl=1", "0.5"), ("po2:b=3,emax=1", None),
                        ("dfp:b=8", "0"), ("dfp:b=8", "x")):
        with pytest.raises(FormatError):
            input_grid(spec, scale)
