# amaranth: UnusedElaboratable=no
"""Every buffer of a join is as shallow as can be, in RTL: one beat less stands still, or costs cycles."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from hwq.interp import run
from hwq.ir import Add, Concat, Graph, Input, MaxPool2d, Output, Requantize
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import Planner, device, frames_under_way, least_depths, make_plan
from hwq.plan import depths as depths_module
from hwq.plan.rhythm import Core
from hwq.plan.settle import with_depths
from hwq.rtl.accelerator import Chain
from hwq.rtl.handshake import Pipe
from hwq.rtl.native import compiles

from ..test_accelerator import drive
from .test_cycles import steady
from .test_joins import NETWORKS, conv
from .test_rhythm import depths_of, scaled


def joined_network(seed):
    """Return a small network of one or two joins, sums or concatenations, of branches with up to two layers each."""
    rng = np.random.default_rng(seed)
    size, channels, last = int(rng.integers(4, 7)), int(rng.integers(1, 3)), "in"
    nodes = [Input("in", (), shape=(size, size, channels), lo=0, hi=15)]

    def put(*more):
        nodes.extend(more)
        return more[-1].name

    def branch(name, source, stride, outputs):
        """Return the last node of a branch, and its channels."""
        now = channels
        for k in range(int(rng.integers(0, 3))) if stride == 1 else [0]:
            kind, at = str(rng.choice(["conv", "conv", "point", "pool", "requantize"])), f"{name}{k}"
            if kind in ("conv", "point") or now != outputs:
                kernel = 3 if kind == "conv" else 1
                pads = (0, 0, 0, 0) if kernel == 1 else (1, 1, 1, 1) if stride == 1 else (0, 0, 1, 1)
                source, now = put(*conv(at, source, rng, outputs, now, kernel, pads=pads, stride=(stride, stride))), outputs
            elif kind == "pool" or stride > 1:
                source = put(MaxPool2d(at, (source,)) if stride > 1
                             else MaxPool2d(at, (source,), kernel=(3, 3), stride=(1, 1), pads=(1, 1, 1, 1)))
            else:
                source = put(Requantize(at, (source,), mult=np.array([3]), shift=1, lo=0, hi=15))
        return source, now

    if rng.integers(0, 2):
        channels = int(rng.choice([2, 4]))
        last = put(*conv("stem", last, rng, channels, nodes[0].shape[2], int(rng.choice([1, 3])), pads=(1, 1, 1, 1)))
        size = nodes[0].shape[0] + (0 if nodes[-2].weight.shape[1] == 3 else 2)
    for block in range(int(rng.integers(1, 3))):
        stride = 2 if size % 2 == 0 and not rng.integers(0, 3) else 1
        outputs = channels if stride == 1 else int(rng.choice([2, 4]))
        ways = [branch(f"{letter}{block}_", last, stride, outputs) for letter in "ab"]
        name, sources = f"join{block}", tuple(source for source, _ in ways)
        if len({count for _, count in ways}) == 1 and rng.integers(0, 3):
            last, channels = put(Add(name, sources, mult=(5, 3)),
                                 Requantize(f"{name}_q", (name,), shift=3, lo=0, hi=15)), ways[0][1]
        else:
            last, channels = put(Concat(name, sources)), sum(count for _, count in ways)
        size //= stride
    if rng.integers(0, 2):
        last = put(*conv("tail", last, rng, 2, channels, 1))
    return apply_passes(Graph((*nodes, Output("out", (last,)))))


def planned(seed):
    """Return a network and a plan of it: the fastest, or one of foldings drawn at random."""
    graph, rng = joined_network(seed), np.random.default_rng(seed)
    folds = {}
    if seed % 2:
        for name, each in Planner(graph, device("generic")).options.items():
            fold = each[int(rng.integers(len(each)))].fold
            folds[name] = "wired" if fold.style == "wired" else (fold.pe, fold.simd)
    return graph, make_plan(graph, device("generic"), folds=folds)


def less(depths, floor):
    """Return, for each buffer deeper than its floor, the depths with a beat less there."""
    return [depths | {name: (*each[:k], depth - 1, *each[k + 1:])} for name, each in depths.items() for k, depth in enumerate(each)
            if depth > floor.get(name, (0,))[k]]


def late(graph, plan):
    """Return by how many cycles the core misses its plan's in two frames; all that it could, where it stands still."""
    frames = 5 if plan.cycles > 200 else 12
    try:
        return sum(steady(lower(graph, plan), frames, (frames + 8) * plan.cycles + 3000)[-2:]) - 2 * plan.cycles
    except AssertionError:
        return plan.cycles


def stuck(graph, plan, frames=3):
    """Return whether the core stands still when its source waits with each beat until the one before has done all that it can."""
    core, patience, found = lower(graph, plan), plan.cycles + 60, []

    async def bench(ctx):
        ctx.set(core.m_axis_tready, 1)
        for beat in range(core.guard.beats * frames):
            ctx.set(core.s_axis_tvalid, 1)
            ctx.set(core.s_axis_tlast, beat % core.guard.beats == core.guard.beats - 1)
            for _ in range(4 * patience):
                _, _, took = await ctx.tick().sample(core.s_axis_tready)
                if took:
                    break
            else:
                found.append(beat)
                return
            ctx.set(core.s_axis_tvalid, 0)
            await ctx.tick().repeat(patience)

    sim = Simulator(core)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return bool(found)


def stuck_inside(graph, plan):
    """Return whether the core stands still when beats wait in front of its pipelines, at random, and its ends never do."""
    def elaborate(self, platform):
        m = Module()
        for named in self.blocks:
            m.submodules[named.name] = named.block
        ends = [self.i, *(side for named in self.blocks for side in (named.block.i, named.block.o)), self.o]
        parts = [named.block.handshake for named in self.blocks] + [()]
        for k, (source, sink) in enumerate(zip(ends[::2], ends[1::2], strict=True)):
            goes = Signal(init=1)
            if any(isinstance(part, Pipe) and not part.marked for part in parts[k]):
                noise = Signal(31, init=1 + 7919 * k)
                m.d.sync += [noise.eq(noise * 1103515245 + 12345), goes.eq(noise[12:16] == 0)]
            m.d.comb += [sink.payload.eq(source.payload), sink.valid.eq(source.valid & goes), source.ready.eq(sink.ready & goes)]
        return m

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chain, "elaborate", elaborate)
        try:
            return steady(lower(graph, plan), 3, 40 * plan.cycles + 3000) is None
        except AssertionError:
            return True


def check_full_rate(graph, plan):
    """Check that none is lost with all, and one beat less costs cycles in any buffer deeper than its least; return how many are."""
    assert plan.tight and late(graph, plan) == 0
    tries = less(depths_of(plan), least_depths(plan))
    for lower_depths in tries:
        assert late(graph, with_depths(plan, lower_depths)) > 0, (depths_of(plan), lower_depths)
    return len(tries)


def check_least(graph, plan):
    """Check that the least depths never stand still; return those of which one beat less does not either, and how many others."""
    least = least_depths(plan)
    assert plan.tight and not stuck(graph, with_depths(plan, least)) and not stuck_inside(graph, with_depths(plan, least))
    tries = less(least, {name: (1,) * len(each) for name, each in least.items()})
    loose = [each for each in tries if not stuck(graph, with_depths(plan, each))]
    return loose, len(tries) - len(loose)


@pytest.mark.parametrize("seed", [2, 8, 19, 54])
def test_one_beat_less_than_planned_costs_cycles(seed):
    assert check_full_rate(*planned(seed))


@pytest.mark.parametrize("seed", [2, 24, 48])
def test_one_beat_less_than_the_least_stands_still(seed):
    loose, tight = check_least(*planned(seed))
    assert not loose and tight


def test_one_beat_less_than_the_least_stands_still_where_beats_wait_inside():
    graph, plan = planned(21)
    least = least_depths(plan)
    assert least["join1"] == (1, 3) and not stuck_inside(graph, with_depths(plan, least))
    assert stuck_inside(graph, with_depths(plan, least | {"join1": (1, 2)}))


@pytest.mark.parametrize("seed", [2, 8, 19, 24])
def test_a_plan_keeps_its_frames_under_way(seed):
    plan = planned(seed)[1]
    assert plan.under_way == frames_under_way(replace(plan, under_way=0)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_more_networks_have_tight_depths(seed):
    graph, plan = planned(seed)
    check_full_rate(graph, plan)
    loose, _ = check_least(graph, plan)
    # a depth that only beats between blocks need, so that pipelines hold one
    assert len(loose) <= 1 and all(stuck_inside(graph, with_depths(plan, each)) for each in loose)


@pytest.mark.parametrize("name", ["dense"])
def test_depths_are_tight_in_blocks_of_known_networks(name):
    graph = apply_passes(NETWORKS[name])
    plan = make_plan(graph, device("generic"))
    assert check_full_rate(graph, plan)
    loose, tight = check_least(graph, plan)
    assert not loose and tight


@pytest.mark.parametrize("seed", [2, 24])
@pytest.mark.parametrize("stall", [(0.0, 0.9), (0.9, 0.0), (0.6, 0.6)])
def test_the_least_depths_are_enough_whatever_stalls(seed, stall):
    graph, plan = planned(seed)
    core = lower(graph, with_depths(plan, least_depths(plan)))
    x = np.random.default_rng(seed).integers(0, 16, (3, *graph.input.shape))
    beats = [[sum(int(v) << 8 * i for i, v in enumerate(beat)) for beat in frame.reshape(-1, core.guard.lanes)] for frame in x]
    want = run(graph, x)["out"].reshape(3, -1).tolist()
    assert drive(core, beats, 3, stall=stall, limit=60_000) == [(values, 0) for values in want]


def test_a_network_too_large_to_try_keeps_its_bounds(monkeypatch):
    graph = apply_passes(NETWORKS["projection"])
    tight = make_plan(graph, device("generic"))
    monkeypatch.setattr(depths_module, "_TRIED", 0)
    monkeypatch.setattr(depths_module, "_TRIED_COMPILED", 0)
    plan = make_plan(graph, device("generic"))
    assert tight.tight and not plan.tight and tight.cost.lc < plan.cost.lc
    assert all(a <= b for name, each in depths_of(tight).items() for a, b in zip(each, depths_of(plan)[name], strict=True))
    assert all(a <= b for name, each in least_depths(tight).items() for a, b in zip(each, least_depths(plan)[name], strict=True))
    assert least_depths(tight) != least_depths(plan)
    assert depths_of(make_plan(graph, device("generic"), tight=True)) == depths_of(tight)


@pytest.mark.skipif(not compiles(), reason="There is no C++ compiler")
@pytest.mark.parametrize("seed", [2, 9, 24])
def test_compiled_the_search_finds_the_same(seed, monkeypatch):
    graph, python = planned(seed)
    made = []
    monkeypatch.setattr(depths_module, "_TRIED", 0)
    monkeypatch.setattr(depths_module, "Core", lambda *args, **options: made.append(Core(*args, **options)) or made[-1])
    plan = planned(seed)[1]
    assert made[0].fast and plan.tight and depths_of(plan) == depths_of(python) and plan.least == python.least


@pytest.mark.parametrize("compiler", ["/nowhere/c++", "false"])
def test_without_a_compiler_large_networks_keep_their_bounds(compiler, monkeypatch):
    graph, plan = planned(2)
    monkeypatch.setattr(depths_module, "_TRIED", 0)
    monkeypatch.setenv("CXX", compiler)
    assert plan.tight and not planned(2)[1].tight
    assert depths_of(make_plan(graph, device("generic"), tight=True)) == depths_of(plan)


@pytest.mark.skipif(not compiles(), reason="There is no C++ compiler")
@pytest.mark.parametrize("seed", [1, 5, 19, 48])
def test_compiled_a_core_moves_as_in_python(seed):
    plan = planned(seed)[1]
    python, machine, rng = Core(plan), Core(plan, fast=True), np.random.default_rng(seed)
    assert machine.fast
    for most in (1, 2, 5, 200, 200, 200):                # many beats lie in memories, and take a cycle more
        depths = {p.layer.name: tuple(int(rng.integers(p.layer.joins, most + 1)) for _ in p.layer.sources) for p in plan.layers}
        for lean in (False, True):
            assert machine.netlist(depths, general=True).run(9000, lean, make=machine.make) == \
                python.netlist(depths).run(9000, lean)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["skip", "pools in between", "projection"])
def test_depths_are_tight_where_scales_are_multiplied_by_in_steps(name, large):
    graph = scaled(NETWORKS[name])
    plan = make_plan(graph, large, max_cycles=5000, tight=True)
    assert any(p.fold.scale_bits for p in plan.layers if p.layer.joins)
    check_full_rate(graph, plan)
    loose, _ = check_least(graph, plan)
    assert len(loose) <= 1 and all(stuck_inside(graph, with_depths(plan, each)) for each in loose)
