"""The synthesised lanes of every format, simulated with the vendor's cell models, against the integer reference."""

import json

import numpy as np
import pytest

from hwq.emit import SYNTH_PRELUDE, emit_core, write_vectors
from hwq.errors import EnvironmentError_
from hwq.formats import Bipolar, FixedPoint, PowerOfTwo
from hwq.interp import run
from hwq.ir import Conv2d, Flatten, Graph, Input, Linear, Output, Requantize
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import device, make_plan
from hwq.sim import verify
from hwq.toolchain import find, run_yosys

from ..plan.test_joins import NETWORKS

# A layer of each, one after the other; pe and simd; the last layer's sums are the results.
LAYERS = [(FixedPoint(4, 0), 2, 2), (FixedPoint(2, 0, narrow=True), 2, 4), (FixedPoint(3, 0), 4, 2), (PowerOfTwo(3, 0), 2, 2),
          (PowerOfTwo(4, 0), 1, 4), (Bipolar(), 4, 4), (FixedPoint(5, 0), 2, 2), (FixedPoint(8, 0), 1, 2)]


def network():
    """Return the chain of layers; each shift and bias such that the codes of random inputs fill their range."""
    rng = np.random.default_rng(4)
    nodes, x = [Input("in", (), shape=(4, 4, 4), lo=0, hi=15)], rng.integers(0, 16, (50, 4, 4, 4))
    for k, (fmt, _, _) in enumerate(LAYERS):
        words = rng.integers(0, 1 << fmt.width, (4, 1, 1, 4))
        if fmt.width > 1 and (isinstance(fmt, PowerOfTwo) or fmt.narrow):
            words[words == 1 << fmt.width - 1] = 0
        weight = fmt.decode(words)
        sums = np.einsum("nyxc,oc->nyxo", x, weight[:, 0, 0])
        low = np.percentile(sums, 5, axis=(0, 1, 2)).astype(np.int64)
        shift = max(0, int(np.percentile(sums - low, 95)).bit_length() - 4)
        nodes += [Conv2d(f"c{k}", (nodes[-1].name,), weight=weight, bias=-low, weight_format=fmt),
                  Requantize(f"q{k}", (f"c{k}",), mult=np.ones(1), offset=np.zeros(1), shift=shift, lo=0, hi=15)]
        x = np.clip((sums - low) >> shift, 0, 15)
    nodes += [Flatten("flat", (nodes[-1].name,)),
              Linear("fc", ("flat",), weight=rng.integers(-2, 2, (3, 64)), bias=np.zeros(3), weight_format=FixedPoint(2, 0)),
              Output("out", ("fc",))]
    return Graph(tuple(nodes))


def have(*names):
    try:
        return all(find(name) for name in names)
    except EnvironmentError_:
        return False


def synthesised(graph, plan, x, folder):
    """Return the report of the netlist's simulation with stalls, on frames ``x``."""
    manifest = emit_core(graph, plan, lower(apply_passes(graph), plan), folder, target="ice40")
    run_yosys(SYNTH_PRELUDE + "synth_ice40 -device hx -top accel\nwrite_verilog -noattr netlist.v\n", folder / "synth.log", folder)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": {}}))
    assert len(np.unique(run(graph, x)["out"], axis=0)) > 10              # results that tell frames apart
    write_vectors(graph, folder / "vectors", x, manifest)
    return verify(folder, level="netlist", stalls=1)


@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
def test_lanes_are_exact_after_synthesis(tmp_path):
    graph = network()
    plan = make_plan(apply_passes(graph), device("hx8k"), folds={f"c{k}": (pe, simd) for k, (_, pe, simd) in enumerate(LAYERS)})
    assert {p.fold.style for p in plan.layers if p.fold} == {"lut"}
    x = np.random.default_rng(6).integers(0, 16, (20, 4, 4, 4))
    x[0], x[1] = 15, 0
    assert synthesised(graph, plan, x, tmp_path).identical == 20
    assert "SB_CARRY" in (tmp_path / "netlist.v").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
def test_a_residual_block_is_exact_after_synthesis(tmp_path):
    graph = NETWORKS["projection"]
    plan = make_plan(apply_passes(graph), device("hx8k"))
    x = np.random.default_rng(6).integers(0, 16, (20, *graph.input.shape))
    report = synthesised(graph, plan, x, tmp_path)
    assert report.identical == 20 and report.cycles_per_frame == plan.cycles
