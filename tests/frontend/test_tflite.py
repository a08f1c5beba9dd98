"""TFLite: networks that others made against golden vectors and the reference kernels; arithmetic; damaged files."""

import json
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tflite", reason="the package tflite is not installed")

from hwq import ir
from hwq.errors import FormatError, HwqError, VerifyError
from hwq.frontend.tflite_check import compare_tflite
from hwq.frontend.tflite_import import import_tflite
from hwq.frontend.tflite_math import mean_multiplier, multiply, quantize_multiplier
from hwq.interp import run, run_batches
from hwq.passes import apply_passes

from ..test_flow import have, hwq
from .test_tflite_traps import dense, net, two

MODELS = Path(__file__).parent / "models"
GOLDEN = np.load(MODELS / "golden.npz")
NETWORKS = {"imgc": "pretrainedResnet_quant", "kws": "kws_ref_model", "anomd": "ad01_int8"}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    imported = import_tflite(MODELS / f"{NETWORKS[request.param]}.tflite")
    codes = GOLDEN[f"{request.param}_inputs"].astype(np.int64).reshape(-1, *imported.graph.input.shape)
    return request.param, imported, codes


def test_golden(network):
    name, imported, codes = network
    found = run_batches(imported.graph, codes)
    if name == "anomd":
        words = [np.bitwise_xor.reduce([(int(v) << 8 * (i % 4)) & 0xFFFFFFFF for i, v in enumerate(row)]) for row in found]
        assert words == GOLDEN["anomd_golden"].tolist()
        return
    golden = GOLDEN[f"{name}_golden"]
    assert ((golden == golden.max(axis=1, keepdims=True)).sum(axis=1) == 1).all()
    np.testing.assert_array_equal(found.argmax(axis=1), golden.argmax(axis=1))
    assert any("SOFTMAX" in note for note in imported.notes)


def test_every_tensor(network):
    pytest.importorskip("tflite_micro", reason="the package tflite-micro is not installed")
    name, imported, codes = network
    random = np.random.default_rng(7).integers(-128, 128, (6, *codes.shape[1:]))
    report = compare_tflite(imported, np.concatenate([codes[:6], random]))
    report.require_equal()
    assert len(report.rows) == {"imgc": 15, "kws": 12, "anomd": 10}[name]
    after = apply_passes(imported.graph)
    np.testing.assert_array_equal(run_batches(after, random), run_batches(imported.graph, random))


def test_a_wrong_network_is_noticed():
    pytest.importorskip("tflite_micro", reason="the package tflite-micro is not installed")
    from dataclasses import replace
    imported = import_tflite(MODELS / "ad01_int8.tflite")
    nodes = [replace(node, offset=node.offset + (1 << node.shift - 1)) if node.name.endswith("activation_1.act") else node
             for node in imported.graph]
    wrong = replace(imported, graph=imported.graph.with_nodes(nodes))
    report = compare_tflite(wrong, GOLDEN["anomd_inputs"].astype(np.int64))
    assert report.wrong > 0 and not report.rows[0].wrong and report.rows[1].wrong
    with pytest.raises(VerifyError, match="Layer 'functional_1.activation_1.act' differs"):
        report.require_equal()


def test_file_round_trip(network, tmp_path):
    _, imported, codes = network
    ir.save(imported.graph, tmp_path / "x.hwq")
    np.testing.assert_array_equal(run(ir.load(tmp_path / "x.hwq"), codes[:2])["output"], run(imported.graph, codes[:2])["output"])


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-9, 200.0), st.lists(st.integers(-(1 << 23), 1 << 23), min_size=1, max_size=40))
def test_multiply_against_rationals(factor, values):
    """The kernels' two roundings, written once more on rationals."""
    mantissa, exponent = quantize_multiplier(factor)
    assert mantissa == 0 or (1 << 30 <= mantissa < 1 << 31 and abs(Fraction(mantissa) / (1 << 31) * Fraction(2) ** exponent
                                                                   - Fraction(factor)) <= Fraction(2) ** (exponent - 32))
    x = np.array(values, np.int64)
    found = multiply(x, mantissa, exponent)
    for a, y in zip(values, found, strict=True):
        product = a * (1 << max(exponent, 0)) * mantissa
        nudge = (1 << 30) if product >= 0 else 1 - (1 << 30)
        high = abs(product + nudge) // (1 << 31) * (1 if product + nudge >= 0 else -1)         # C's division
        down = Fraction(high, 1 << max(-exponent, 0))
        want = int(abs(down) + Fraction(1, 2)) * (1 if down >= 0 else -1)
        assert y == want


def test_mean_multiplier():
    assert mean_multiplier(1.0, 49) == ((1 << 30 << 5) // 49, 1 - 5)


@pytest.mark.parametrize("content", [net(), dense(), two("ADD")], ids=["conv", "dense", "add"])
def test_damaged_files_only_give_errors_of_ours(content, tmp_path):
    rng = np.random.default_rng(11)
    path = tmp_path / "x.tflite"
    refused = 0
    for _ in range(60):
        data = bytearray(content)
        for _ in range(int(rng.integers(1, 6))):
            data[int(rng.integers(0, len(data)))] = int(rng.integers(0, 256))
        if rng.random() < 0.2:
            data = data[:int(rng.integers(0, len(data)))]
        path.write_bytes(bytes(data))
        started = time.monotonic()
        try:
            import_tflite(path)
        except HwqError:
            refused += 1
        assert time.monotonic() - started < 30
    assert refused > 8


def test_not_a_file_of_this_kind(tmp_path):
    with pytest.raises(FormatError, match="Cannot read"):
        import_tflite(tmp_path / "none.tflite")
    (tmp_path / "x.tflite").write_bytes(b"PK\x03\x04" * 9)
    with pytest.raises(FormatError, match="lacks the mark TFL3"):
        import_tflite(tmp_path / "x.tflite")


@pytest.mark.slow
@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
def test_resnet8_is_exact_in_verilog_and_as_fast_as_planned(tmp_path):
    hwq("import", MODELS / "pretrainedResnet_quant.tflite", "-o", tmp_path / "r8.hwq", "--no-check")
    hwq("build", tmp_path / "r8.hwq", "--target", "verilog", "-o", tmp_path / "build")
    report = json.loads(hwq("verify", tmp_path / "build", "--stalls", 1, "--json"))
    assert report["identical"] == report["images"] >= 5
    assert report["cycles_per_frame"] == report["planned_cycles"]
