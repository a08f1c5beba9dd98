# amaranth: UnusedElaboratable=no
"""Imported networks in hardware: every operator that the importers take, and networks that others made."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("tflite", reason="the package tflite is not installed")
from hwq.emit import emit_core, write_vectors
from hwq.errors import ModelError
from hwq.frontend.importer import import_file, input_grid
from hwq.interp import run_batches
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import device, make_plan
from hwq.sim import verify
from tests.plan.test_corners import exact
from tests.test_flow import have

from . import test_onnx_traps, test_tflite_traps

MODELS = Path(__file__).parent / "models"
OTHERS = os.environ.get("HWQ_MODELS")              # a folder with networks that the repository may not hold
NETWORKS = [(MODELS / name, None, 20) for name in ("TFC_2W2A.onnx", "ad01_int8.tflite", "kws_ref_model.tflite")]
if OTHERS:
    NETWORKS += [(file, spec, count)
                 for name, spec, count in (("kwsmlp_w3a3.onnx", None, 20), ("qkeras_jettagging.onnx", "dfp:b=10,fl=6", 20),
                                           ("pretrainedResnet_quant.tflite", None, 5))
                 for file in sorted(Path(OTHERS).rglob(name))]
TRAPS = {f"{name}.{kind}": content for kind, module in (("onnx", test_onnx_traps), ("tflite", test_tflite_traps))
         for name, (content, expected) in module.TRAPS.items() if expected is None}
FEW = [f"{name}.onnx" for name in ("max_pool_pads", "average_pool_pads_counted", "pad", "resize", "multi_threshold",
                                   "quant_signed_1_bit", "residual", "batch_norm_of_a_sum_falling", "concat")]


def check(name, folder):
    (folder / name).write_bytes(TRAPS[name])
    graph = import_file(folder / name).graph
    if all(node.op in ("Input", "Flatten", "Output") for node in graph):
        with pytest.raises(ModelError, match="no layer that computes anything"):
            make_plan(apply_passes(graph), device("generic"))
        return
    exact(graph, count=2)


@pytest.mark.parametrize("name", FEW)
def test_operators_are_exact(name, tmp_path):
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRAPS if name not in FEW])
def test_all_operators_are_exact(name, tmp_path):
    check(name, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
@pytest.mark.parametrize("file, spec, count", NETWORKS, ids=lambda v: getattr(v, "name", None))
def test_networks_of_others_are_exact_in_verilog(file, spec, count, tmp_path):
    graph = import_file(file, grid=input_grid(spec) if spec else None).graph
    ready = apply_passes(graph)
    plan = make_plan(ready, device("generic"))
    manifest = emit_core(graph, plan, lower(ready, plan), tmp_path, target="verilog")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"files": {}}))
    x = np.random.default_rng(3).integers(graph.input.lo, graph.input.hi + 1, (count, *graph.input.shape))
    assert len(np.unique(run_batches(graph, x).reshape(count, -1), axis=0)) > count // 2
    write_vectors(graph, tmp_path / "vectors", x, manifest)
    assert verify(tmp_path, stalls=1).identical == count
