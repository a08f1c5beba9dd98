"""The synthesised lanes of every format, simulated with the vendor's cell models, against the integer reference."""

import json
from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal

from hwq.boards.link_script import synthesis_lines
from hwq.boards.registry import find_device
from hwq.emit import SYNTH_PRELUDE, emit_core, write_vectors
from hwq.errors import EnvironmentError_
from hwq.formats import Bipolar, FixedPoint, PowerOfTwo
from hwq.interp import run, run_batches
from hwq.ir import AvgPool2d, Conv2d, Flatten, Graph, Input, Linear, MaxPool2d, Output, Pad, Requantize, Select, TopK, Upsample
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import DEVICES, device, make_plan
from hwq.sim import verify
from hwq.toolchain import find, run_yosys

from ..plan.test_joins import NETWORKS

# A layer of each, one after the other; pe and simd; the last layer's sums are the results.
LAYERS = [(FixedPoint(4, 0), 2, 2), (FixedPoint(2, 0, narrow=True), 2, 4), (FixedPoint(3, 0), 4, 2), (PowerOfTwo(3, 0), 2, 2),
          (PowerOfTwo(4, 0), 1, 4), (Bipolar(), 4, 4), (FixedPoint(5, 0), 2, 2), (FixedPoint(8, 0), 1, 2)]
# Target, part that is planned for, and a cell that every netlist of its has.
SYNTHESIS = {"ice40": ("ice40", "hx8k", "SB_CARRY"), "ice40up": ("ice40", "up5k", "SB_MAC16"),
             "ecp5": ("ecp5", "ecp5-85f", "CCU2C")}


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
    nodes += [Conv2d("w", (nodes[-1].name,), weight=rng.integers(-4, 4, (4, 3, 3, 4)), bias=np.zeros(4),
                     weight_format=FixedPoint(3, 0), pads=(1,) * 4),
              Requantize("wq", ("w",), offset=np.array([60]), shift=4, lo=0, hi=15), Flatten("flat", ("wq",)),
              Linear("fc", ("flat",), weight=rng.integers(-2, 2, (3, 64)), bias=np.zeros(3), weight_format=FixedPoint(2, 0)),
              Output("out", ("fc",))]
    return Graph(tuple(nodes))


def have(*names):
    try:
        return all(find(name) for name in names)
    except EnvironmentError_:
        return False


def mixed():
    """Return a network of grouped and depthwise convolutions and of every operator that is a stage of its own."""
    rng = np.random.default_rng(8)
    nodes = [Input("in", (), shape=(6, 6, 4), lo=-8, hi=7)]

    def add(kind, **attributes):
        nodes.append(kind(f"n{len(nodes)}", (nodes[-1].name,), **attributes))

    def sums():
        return run(Graph((*nodes, Output("out", (nodes[-1].name,)))), rng.integers(-8, 8, (30, 6, 6, 4)))["out"]

    def thresholds(count, rows, lo):
        table = np.sort(rng.integers(*np.percentile(sums(), (5, 95)).astype(int), (rows, count)), axis=1)
        add(Requantize, thresholds=table, lo=lo, hi=lo + count)

    add(Requantize, mult=np.array([3, 5, -3, 2]), offset=np.array([4]), shift=2, lo=-8, hi=7)
    add(Pad, pads=(1, 0, -1, 1), value=3)
    add(Conv2d, weight=rng.integers(-8, 8, (4, 3, 3, 1)), bias=rng.integers(-9, 9, 4), weight_format=FixedPoint(4, 0),
        groups=4, pads=(1, 1, 1, 1))
    thresholds(15, 4, -8)
    add(MaxPool2d, kernel=(3, 3), stride=(2, 2), pads=(1, 1, 1, 1))
    add(Conv2d, weight=rng.integers(-4, 4, (8, 1, 1, 2)), bias=np.zeros(8), weight_format=FixedPoint(3, 0), groups=2)
    thresholds(3, 1, 0)
    add(Upsample)
    add(Select, channels=np.array([0, 1, 4, 5, 6, 7]))
    add(AvgPool2d, kernel=(3, 2), stride=(2, 1), pads=(0, 1, 1, 0))
    thresholds(15, 6, 0)
    add(Flatten)
    add(Linear, weight=rng.integers(-2, 2, (3, 144)), bias=rng.integers(-9, 9, 3), weight_format=FixedPoint(2, 0))
    thresholds(63, 1, -32)
    return Graph((*nodes, Output("out", (nodes[-1].name,))))


def check_netlist(graph, x, folder, target="ice40", **wishes):
    """Synthesise the network, compare its results of the codes, and return the plan and the report."""
    target, part, cell = SYNTHESIS[target]
    ready = apply_passes(graph)
    plan = make_plan(ready, device(part), **wishes)
    manifest = emit_core(graph, plan, lower(ready, plan), folder, target=target)
    family = find_device(part).family
    lines = [*synthesis_lines(find_device(part), "accel", family.dsp if device(part).dsp else family.no_dsp),
             "write_verilog -noattr netlist.v"]
    run_yosys(SYNTH_PRELUDE + "\n".join(lines) + "\n", folder / "synth.log", folder)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"files": {}}))
    assert len(np.unique(run_batches(graph, x).reshape(len(x), -1), axis=0)) > len(x) // 2    # results that tell frames apart
    write_vectors(graph, folder / "vectors", x, manifest)
    for level in ("rtl", "netlist") if cell == "SB_MAC16" else ("netlist",):     # where the cell stands in both
        report = verify(folder, level=level, stalls=1)
        assert report.identical == len(x)
    assert cell in (folder / "netlist.v").read_text()
    return plan, report


@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
def test_lanes_are_exact_after_synthesis(tmp_path):
    x = np.random.default_rng(6).integers(0, 16, (20, 4, 4, 4))
    x[0], x[1] = 15, 0
    folds = {f"c{k}": (pe, simd) for k, (_, pe, simd) in enumerate(LAYERS)}
    plan, _ = check_netlist(network(), x, tmp_path, folds={**folds, "w": "wired", "fc": "wired"})
    assert [p.fold.style for p in plan.layers if p.fold] == ["lut"] * len(LAYERS) + ["wired"] * 2


@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
def test_product_pairs_are_exact_after_synthesis(tmp_path):
    """Products of eight bits and of four, codes unsigned and signed, an odd number, for eight outputs, three side by side."""
    rng = np.random.default_rng(3)
    graph = Graph((Input("in", (), shape=(4, 4, 1), lo=0, hi=255),
                   Conv2d("a", ("in",), weight=rng.integers(-128, 128, (4, 3, 3, 1)), bias=np.zeros(4),
                          weight_format=FixedPoint(8, 0), pads=(1,) * 4),
                   Requantize("qa", ("a",), offset=np.array([9000]), shift=13, lo=-8, hi=7),
                   Conv2d("b", ("qa",), weight=rng.integers(-8, 8, (8, 3, 3, 4)), bias=np.zeros(8), weight_format=FixedPoint(4, 0)),
                   Output("out", ("b",))))
    x = rng.integers(0, 256, (20, 4, 4, 1))
    plan, report = check_netlist(graph, x, tmp_path, "ice40up", folds={"a": (4, 1), "b": (3, 1)})
    assert [p.fold.style for p in plan.layers] == ["dsp", "dsp"] and plan.cost.dsp == 4
    assert (tmp_path / "netlist.v").read_text().count("SB_MAC16") == 4 and report.cycles_per_frame == plan.cycles


@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
def test_rings_in_large_ram_are_exact_after_synthesis(tmp_path, monkeypatch):
    """Without any block RAM: rings of words of 8, 16 and 20 bits in four of the large ones, pooled and padded, weights in logic."""
    monkeypatch.setitem(DEVICES, "up5k", replace(DEVICES["up5k"], ebr=0))
    rng = np.random.default_rng(5)
    graph = Graph((Input("in", (), shape=(10, 8, 1), lo=0, hi=255),
                   Conv2d("a", ("in",), weight=rng.integers(-128, 128, (4, 3, 3, 1)), bias=np.zeros(4),
                          weight_format=FixedPoint(8, 0), pads=(1,) * 4),
                   Requantize("qa", ("a",), offset=np.array([3000]), shift=11, lo=-8, hi=7), MaxPool2d("p", ("qa",)),
                   Conv2d("b", ("p",), weight=rng.integers(-8, 8, (6, 2, 2, 4)), bias=np.zeros(6), weight_format=FixedPoint(4, 0)),
                   Requantize("qb", ("b",), shift=2, lo=0, hi=31), Flatten("flat", ("qb",)),
                   Linear("fc", ("flat",), weight=rng.integers(-8, 8, (5, 72)), bias=np.zeros(5), weight_format=FixedPoint(4, 0)),
                   Output("out", ("fc",))))
    plan, report = check_netlist(graph, rng.integers(0, 256, (20, 10, 8, 1)), tmp_path, "ice40up",
                                 folds={"a": (1, 1), "b": (2, 4), "fc": (1, 4)})
    assert all(p.fold.spram for p in plan.layers) and plan.cost.spram == 4 and plan.cost.ebr == 0
    assert (tmp_path / "netlist.v").read_text().count("SB_SPRAM256KA ") == 4 and report.cycles_per_frame == plan.cycles


@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
@pytest.mark.parametrize("target", ["ice40", "ecp5"])
def test_scales_in_block_ram_are_exact_after_synthesis(target, tmp_path):
    """A multiplier and an offset for each output; then a bias that is taken off before the sign chooses the offset."""
    rng = np.random.default_rng(11)
    weight = rng.integers(-8, 8, (40, 1, 1, 4)), rng.integers(-8, 8, (128, 1, 1, 40))
    graph = Graph((Input("in", (), shape=(2, 2, 4), lo=0, hi=15),
                   Conv2d("a", ("in",), weight=weight[0], bias=np.zeros(40), weight_format=FixedPoint(4, 0)),
                   Requantize("qa", ("a",), mult=rng.integers(500, 900, 40), offset=rng.integers(-9999, 9999, 40), shift=13, lo=-8,
                              hi=7),
                   Conv2d("b", ("qa",), weight=weight[1], bias=rng.integers(-900, 900, 128), weight_format=FixedPoint(4, 0)),
                   Requantize("qb", ("b",), mult=np.array([77]), offset=np.array([512]), offset_neg=np.array([511]), shift=10,
                              lo=-128, hi=127),
                   Output("out", ("qb",))))
    plan, report = check_netlist(graph, rng.integers(0, 16, (20, 2, 2, 4)), tmp_path, target, max_cycles=21_000)
    assert all(p.fold.block_scales for p in plan.layers) and report.cycles_per_frame == plan.cycles
    stages = [p.stage(plan.device.technology) for p in plan.layers]
    blocks = sum(stage.cost.ebr for stage in stages)
    assert (tmp_path / "netlist.v").read_text().count({"ice40": "SB_RAM40", "ecp5": "DP16KD"}[target]) >= blocks > 4


@pytest.mark.slow
@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
@pytest.mark.parametrize("name", ["projection", "concat of three"])
def test_joins_are_exact_after_synthesis(name, tmp_path):
    graph = NETWORKS[name]
    x = np.random.default_rng(6).integers(0, 16, (20, *graph.input.shape))
    plan, report = check_netlist(graph, x, tmp_path)
    assert report.cycles_per_frame == plan.cycles


@pytest.mark.slow
@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
def test_operators_are_exact_after_synthesis(tmp_path):
    x = np.random.default_rng(7).integers(-8, 8, (20, 6, 6, 4))
    x[0], x[1] = 7, -8
    plan, _ = check_netlist(mixed(), x, tmp_path, max_cycles=2500)
    stages = [p.stage(plan.device.technology) for p in plan.layers]
    assert [type(stage).__name__ for stage in stages] == ["RequantStage", "PadStage", "ConvStage", "PoolStage", "ConvStage",
                                                          "UpsampleStage", "SelectStage", "PoolStage", "ConvStage"]
    searches = [stage.requantizer.parallel for stage in stages if hasattr(getattr(stage, "requantizer", None), "parallel")]
    assert set(searches) == {True, False}                                 # both forms of thresholds


@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
@pytest.mark.parametrize("target", ["ice40", "ecp5"])
def test_the_largest_are_exact_after_synthesis(target, tmp_path):
    """With equal sums in most frames: the lower place comes first."""
    rng = np.random.default_rng(9)
    graph = Graph((Input("in", (), shape=(8,), lo=-8, hi=7),
                   Linear("fc", ("in",), weight=rng.integers(-2, 2, (7, 8)), bias=np.zeros(7), weight_format=FixedPoint(2, 0)),
                   Requantize("q", ("fc",), shift=2, lo=-4, hi=3), TopK("t", ("q",), 3), Output("out", ("t",))))
    x = rng.integers(-8, 8, (40, 8))
    sums = run(graph, x)["q"]
    assert np.mean([len(set(row)) < len(row) for row in sums.tolist()]) > 0.5
    check_netlist(graph, x, tmp_path, target)


def test_no_flip_flop_reads_a_carry(tmp_path):
    """nextpnr would take two logic cells for it."""
    try:
        find("yosys")
    except EnvironmentError_:
        pytest.skip("needs yosys")
    m = Module()
    a, b = Signal(6), Signal(6)
    total, alone = Signal(7), Signal()
    m.d.sync += [total.eq(a + b), alone.eq(a + total > 100)]
    (tmp_path / "accel.il").write_text(rtlil.convert(m, name="accel", ports=[a, b, total, alone], emit_src=False))
    lines = ["read_rtlil accel.il", *synthesis_lines(find_device("up5k"), "accel"), "write_json accel.json"]
    run_yosys("\n".join(lines) + "\n", tmp_path / "synth.log", tmp_path)
    cells = json.loads((tmp_path / "accel.json").read_text())["modules"]["accel"]["cells"].values()
    carries = {c["connections"]["CO"][0] for c in cells if c["type"] == "SB_CARRY"}
    assert carries and not any(c["connections"]["D"][0] in carries for c in cells if c["type"].startswith("SB_DFF"))
    assert {c["type"] for c in cells} <= {"SB_LUT4", "SB_CARRY", "SB_DFF", "SB_DFFSR", "$scopeinfo"}
