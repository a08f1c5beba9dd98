# amaranth: UnusedElaboratable=no
"""Whole cores from random networks, in Amaranth's simulator, against the interpreter: stalls, bad frames, reset."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from hwq.errors import FitError, FormatError, ModelError
from hwq.formats import Bipolar, FixedPoint, PowerOfTwo
from hwq.interp import run
from hwq.ir import (
    ArgMax,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Output,
    Requantize,
)
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import device, make_plan, parse_fold

from .networks import random_network


def random_graph(seed):
    """Return a small network: convolutions of 3x3 and 1x1, stride 1 and 2, 'same' and no padding, pools, both endings."""
    rng = np.random.default_rng(seed)
    size, channels = (int(rng.integers(6, 9)), int(rng.integers(5, 9))), int(rng.integers(1, 3))
    nodes = [Input("in", (), shape=(*size, channels), lo=0, hi=15)]
    for k in range(int(rng.integers(1, 3))):
        kernel, stride = int(rng.choice([1, 3])), int(rng.choice([1, 2]))
        pad = int(rng.integers(0, 2)) if kernel == 3 else 0
        outputs = int(rng.choice([2, 4, 6]))
        height, width = ((s + 2 * pad - kernel) // stride + 1 for s in size)
        if min(height, width) < 1:
            break
        fmt = [FixedPoint(4, 0), FixedPoint(2, 0), PowerOfTwo(3, 0)][int(rng.integers(0, 3))]
        words = rng.integers(0, 1 << fmt.width, (outputs, kernel, kernel, channels))
        nodes.append(Conv2d(f"c{k}", (nodes[-1].name,), weight=fmt.decode(words), bias=rng.integers(-40, 40, outputs),
                            weight_format=fmt, stride=(stride, stride), pads=(pad,) * 4, pad_value=int(rng.integers(0, 3))))
        per_channel = bool(rng.integers(0, 2))
        nodes.append(Requantize(f"q{k}", (f"c{k}",), mult=rng.integers(1, 7, outputs) if per_channel else np.ones(1),
                                offset=np.array([8]), shift=5 if per_channel else 3, lo=0, hi=15))
        size, channels = (height, width), outputs
        if min(size) >= 2 and rng.integers(0, 2):
            nodes.append(MaxPool2d(f"p{k}", (nodes[-1].name,)))
            size = (size[0] // 2, size[1] // 2)
    if rng.integers(0, 2):
        nodes.append(GlobalAvgPool2d("gap", (nodes[-1].name,)))
        nodes.append(Requantize("mean", ("gap",), mult=np.array([int(2**8 / (size[0] * size[1]))]), offset=np.array([128]),
                                shift=8, lo=0, hi=15))
        size = (1, 1)
    nodes.append(Flatten("flat", (nodes[-1].name,)))
    fmt = FixedPoint(3, 0)
    nodes.append(Linear("fc", ("flat",), weight=rng.integers(-4, 4, (3, size[0] * size[1] * channels)),
                        bias=rng.integers(-40, 40, 3), weight_format=fmt))
    if rng.integers(0, 2):
        nodes.append(ArgMax("top", ("fc",)))
    nodes.append(Output("out", (nodes[-1].name,)))
    return Graph(tuple(nodes))


def drive(core, frames, count, *, stall=(0.0, 0.0), seed=0, reset_at=None, limit=60_000):
    """Send frames (lists of beats) and return ``count`` results as (values, tuser)."""
    rng, results = random.Random(seed), []

    async def source(ctx):
        for number, frame in enumerate(frames):
            for k, beat in enumerate(frame):
                if reset_at == (number, k):
                    ctx.set(core_reset, 1)
                    ctx.set(core.s_axis_tvalid, 0)
                    for _ in range(2):
                        await ctx.tick()
                    ctx.set(core_reset, 0)
                    break
                while rng.random() < stall[0]:
                    await ctx.tick()
                ctx.set(core.s_axis_tdata, beat)
                ctx.set(core.s_axis_tlast, k == len(frame) - 1)
                ctx.set(core.s_axis_tvalid, 1)
                ready = 0
                while not ready:
                    _, _, ready = await ctx.tick().sample(core.s_axis_tready)
                ctx.set(core.s_axis_tvalid, 0)

    async def sink(ctx):
        values, held, ready, cycle = [], None, rng.random() >= stall[1], 0
        ctx.set(core.m_axis_tready, ready)
        while len(results) < count:
            assert cycle < limit, f"{len(results)} of {count} results after {limit} cycles"
            _, resetting, valid, data, last, user = await ctx.tick().sample(core.m_axis_tvalid, core.m_axis_tdata,
                                                                            core.m_axis_tlast, core.m_axis_tuser)
            if resetting:
                values, held, valid = [], None, 0
            assert held is None or held == (data, last, user) and valid
            held = (data, last, user) if valid and not ready else None
            if valid and ready:
                bits = len(core.m_axis_tdata)
                values.append(data - (1 << bits) if core.framer.shape.signed and data >> (bits - 1) else data)
                if last:
                    results.append((values, user))
                    values = []
            ready = rng.random() >= stall[1]
            ctx.set(core.m_axis_tready, ready)
            cycle += 1

    from amaranth.hdl import ClockDomain, Fragment, Signal
    core_reset = Signal()
    domain = ClockDomain("sync")
    fragment = Fragment.get(core, None)
    fragment.add_domains(domain)
    core_reset = domain.rst
    sim = Simulator(fragment)
    sim.add_clock(1e-6)
    sim.add_testbench(source, background=True)
    sim.add_testbench(sink)
    sim.run()
    return results


def prepare(seed, folds=(), device_name="up5k", make=random_graph):
    graph = make(seed)
    ready = apply_passes(graph)
    plan = make_plan(ready, device(device_name), folds=parse_fold(folds))
    core = lower(ready, plan)
    rng = np.random.default_rng(seed)
    x = rng.integers(graph.input.lo, graph.input.hi + 1, (3, *graph.input.shape))
    want = run(graph, x)["out"].reshape(3, -1).tolist()
    lanes = core.guard.lanes
    beats = [[sum((int(v) & 255) << (8 * i) for i, v in enumerate(beat)) for beat in frame.reshape(-1, lanes)] for frame in x]
    return core, beats, want


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_are_exact(seed):
    core, beats, want = prepare(seed, device_name="up5k" if seed % 2 else "generic")
    stall = [(0, 0), (0.5, 0.5), (0, 0.7), (0.6, 0)][seed % 4]
    assert drive(core, beats, 3, stall=stall, seed=seed) == [(values, 0) for values in want]


@pytest.mark.parametrize("seed", range(8))
def test_random_networks_of_all_operators_are_exact(seed):
    core, beats, want = prepare(seed, device_name="up5k" if seed % 2 else "generic", make=random_network)
    stall = [(0, 0), (0.5, 0.5), (0, 0.7), (0.6, 0)][seed % 4]
    assert drive(core, beats, 3, stall=stall, seed=seed) == [(values, 0) for values in want]


@pytest.mark.parametrize("seed, requant, pooled", [(1, "shared", True), (2, "scaled", False), (3, "thresholds", True)])
def test_outputs_that_pe_does_not_divide(seed, requant, pooled):
    """The last output fills up and is left out again; weights without a zero, parameters a channel, a linear layer."""
    rng = np.random.default_rng(seed)
    quantize = {"shared": dict(offset=np.array([40]), shift=3, lo=0, hi=15),
                "scaled": dict(mult=rng.integers(1, 7, 8), offset=rng.integers(0, 400, 8), shift=5, lo=0, hi=15),
                "thresholds": dict(thresholds=np.sort(rng.integers(-60, 60, (8, 3)), axis=1), lo=0, hi=3)}[requant]
    nodes = [Conv2d("c", ("in",), weight=rng.choice([-1, 1], (8, 3, 3, 2)), bias=rng.integers(-40, 40, 8), weight_format=Bipolar(),
                    pads=(1,) * 4), Requantize("q", ("c",), **quantize), *([MaxPool2d("p", ("q",))] if pooled else [])]
    graph = chain(*nodes, Flatten("flat", (nodes[-1].name,)),
                  Linear("fc", ("flat",), weight=rng.integers(-8, 8, (15, 72 if pooled else 288)), bias=rng.integers(-40, 40, 15),
                         weight_format=FixedPoint(4, 0)))
    core, beats, want = prepare(seed, ["c=3,2"] if pooled else ["c=3,1", "fc=4,8"], make=lambda seed: graph)
    assert dict(core.stages)["c"].matvec.outputs == 9
    assert drive(core, beats, 3, stall=(0.4, 0.4), seed=seed) == [(values, 0) for values in want]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 340))
def test_many_random_networks_are_exact(seed):
    core, beats, want = prepare(seed, device_name=["up5k", "generic", "ecp5-85f"][seed % 3], make=random_network)
    assert drive(core, beats, 3, stall=(0.3, 0.3), seed=seed) == [(values, 0) for values in want]


@pytest.mark.parametrize("seed, make",
                         [(1, random_graph), (5, random_graph), (1, random_network), (7, random_network), (22, random_network)])
def test_bad_frames_give_one_marked_result_and_harm_no_other(seed, make):
    core, beats, want = prepare(seed, make=make)
    frames = [beats[0], beats[0][:3], beats[1], beats[1] + beats[2][:5], beats[2], beats[2][:1]]
    got = drive(core, frames, 6, stall=(0.2, 0.2), seed=seed)
    assert [user for _, user in got] == [0, 1, 0, 1, 0, 1]
    assert [got[i][0] for i in (0, 2, 4)] == want


def test_reset_inside_a_frame_leaves_nothing_behind():
    core, beats, want = prepare(3)
    got = drive(core, [beats[0], beats[1], beats[2]], 1, reset_at=(0, len(beats[0]) // 2))
    assert got == [(want[1], 0)]


def chain(*nodes):
    """Return an 6x6x2 network with these nodes in the middle."""
    return Graph((Input("in", (), shape=(6, 6, 2), lo=0, hi=15), *nodes, Output("out", (nodes[-1].name,))))


CONV = dict(weight=np.ones((2, 3, 3, 2)), bias=np.zeros(2), weight_format=FixedPoint(2, 0))


def test_folds_are_checked():
    ready = apply_passes(chain(Conv2d("c", ("in",), **CONV)))
    with pytest.raises(ModelError, match="pe must divide the 2 outputs, not 3"):
        make_plan(ready, device("up5k"), folds={"c": (3, 1)})
    with pytest.raises(ModelError, match=r"or be 18 \(shift window\), not 5"):
        make_plan(ready, device("up5k"), folds={"c": (1, 5)})
    with pytest.raises(ModelError, match="unknown layer 'z'"):
        make_plan(ready, device("up5k"), folds={"z": (1, 1)})
    with pytest.raises(ModelError, match="form layer=pe,simd"):
        parse_fold(["c:1"])
    assert make_plan(ready, device("up5k"), folds={"c": (1, 18)}).layers[0].fold.source == "shift"


def test_what_cannot_fit_is_said_before_synthesis():
    wide = Graph((Input("in", (), shape=(4096,), lo=0, hi=15),
                  Linear("fc", ("in",), weight=np.ones((64, 4096)), bias=np.zeros(64), weight_format=FixedPoint(4, 0)),
                  Output("out", ("fc",))))
    with pytest.raises(FitError, match="does not fit up5k: at least .* most in 'fc'"):
        make_plan(apply_passes(wide), device("up5k"))
    with pytest.raises(FormatError, match="Unknown device 'zx81'; known: up5k"):
        device("zx81")
