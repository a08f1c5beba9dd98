# amaranth: UnusedElaboratable=no
"""The plan's cycles are those of the hardware: counted in Amaranth's simulator, source and sink never waiting."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from hwq.errors import FitError
from hwq.formats import FixedPoint
from hwq.ir import ArgMax, Conv2d, Flatten, GlobalAvgPool2d, Graph, Input, Linear, MaxPool2d, Output, Requantize
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import DEVICES, Planner, device, make_plan
from hwq.plan import settle as settle_module
from hwq.plan.settle import relax
from hwq.rtl.stage import Folding

from ..networks import random_network
from ..test_accelerator import random_graph


def steady(core, frames, limit):
    """Return the cycles between the last beats of the frames' results."""
    ends = []

    async def bench(ctx):
        ctx.set(core.s_axis_tvalid, 1)
        ctx.set(core.m_axis_tready, 1)
        beat, cycle = 0, 0
        ctx.set(core.s_axis_tlast, core.guard.beats == 1)
        while len(ends) < frames:
            assert cycle < limit, f"{len(ends)} of {frames} frames after {limit} cycles"
            _, _, took, valid, last = await ctx.tick().sample(core.s_axis_tready, core.m_axis_tvalid, core.m_axis_tlast)
            if took:
                beat = (beat + 1) % core.guard.beats
                ctx.set(core.s_axis_tlast, beat == core.guard.beats - 1)
            if valid and last:
                ends.append(cycle)
            cycle += 1

    sim = Simulator(core)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return np.diff(ends)


def check(graph, target="up5k", folds=None, frames=14):
    ready = apply_passes(graph)
    plan = make_plan(ready, device(target), folds=folds)
    found = steady(lower(ready, plan), frames, limit=(frames + 8) * plan.cycles + 6000)
    assert (found[-4:] == plan.cycles).all(), (plan.cycles, found.tolist(), [(p.layer.name, p.fold, p.cycles) for p in plan.layers])
    return plan


def conv(name, source, rng, outputs, channels, kernel=3, **attributes):
    fmt = FixedPoint(4, 0)
    return [Conv2d(name, (source,), weight=rng.integers(-8, 8, (outputs, kernel, kernel, channels)), bias=np.zeros(outputs),
                   weight_format=fmt, **attributes),
            Requantize(f"{name}_q", (name,), mult=np.ones(1), offset=np.array([8]), shift=5, lo=0, hi=15)]


def network(size, *nodes):
    return Graph((Input("in", (), shape=size, lo=0, hi=15), *nodes, Output("out", (nodes[-1].name,))))


RNG = np.random.default_rng(0)
SHAPES = {
    "valid": (network((9, 8, 2), *conv("a", "in", RNG, 4, 2), *conv("b", "a_q", RNG, 4, 4)), {}),
    "same, pooled with a row to spare": (network((7, 7, 2), *conv("a", "in", RNG, 4, 2, pads=(1, 1, 1, 1)),
                                                 MaxPool2d("p", ("a_q",)), *conv("b", "p", RNG, 4, 4, pads=(1, 1, 1, 1))), {}),
    "stride 2": (network((9, 9, 2), *conv("a", "in", RNG, 4, 2, stride=(2, 2), pads=(1, 1, 1, 1)),
                         *conv("b", "a_q", RNG, 2, 4, stride=(2, 2))), {}),
    "1x1": (network((6, 5, 3), *conv("a", "in", RNG, 4, 3, 1), *conv("b", "a_q", RNG, 6, 4, 1, stride=(2, 2))), {}),
    "shift window, pooled behind it": (network((7, 9, 1), *conv("a", "in", RNG, 4, 1, pads=(1, 1, 1, 1)), MaxPool2d("p", ("a_q",)),
                                               *conv("b", "p", RNG, 4, 4)), {"a": (2, 9), "b": (1, 1)}),
    "equal rates": (network((8, 8, 2),
                            *conv("a", "in", RNG, 4, 2, pads=(1, 1, 1, 1)), *conv("b", "a_q", RNG, 4, 4, pads=(1, 1, 1, 1)),
                            *conv("c", "b_q", RNG, 4, 4, pads=(1, 1, 1, 1))), {"a": (2, 1), "b": (2, 2), "c": (2, 2)}),
    "outputs that pe does not divide": (network((8, 8, 2), *conv("a", "in", RNG, 8, 2, pads=(1, 1, 1, 1)), MaxPool2d("p", ("a_q",)),
                                                *conv("b", "p", RNG, 16, 8)), {"a": (3, 2), "b": (6, 4)}),
    "slow last": (network((8, 8, 2), *conv("a", "in", RNG, 4, 2), *conv("b", "a_q", RNG, 8, 4)), {"a": (4, 2), "b": (1, 1)}),
    "pool of its own, mean, linear": (network((8, 8, 2), MaxPool2d("p", ("in",)), *conv("a", "p", RNG, 4, 2, pads=(1, 1, 1, 1)),
                                              GlobalAvgPool2d("g", ("a_q",)),
                                              Requantize("g_q", ("g",), mult=np.array([16]), offset=np.array([128]), shift=8, lo=0,
                                                         hi=15), Flatten("f", ("g_q",)),
                                              Linear("fc", ("f",), weight=RNG.integers(-8, 8, (5, 4)), bias=np.zeros(5),
                                                     weight_format=FixedPoint(4, 0)), ArgMax("top", ("fc",))), {}),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("target", ["up5k", "generic"])
def test_cycles_by_shape(name, target):
    graph, folds = SHAPES[name]
    check(graph, target, folds)


@pytest.mark.parametrize("pe", [1, 2])
def test_shallow_rings_take_no_more_cycles_than_promised(pe):
    """A result that waits in front of a full ring must not hold up the pooling that makes the next."""
    rng = np.random.default_rng(1)
    ready = apply_passes(network((8, 8, 1), *conv("a", "in", rng, 8, 1, 1),
                                 MaxPool2d("p", ("a_q",)), *conv("b", "p", rng, 8, 8, pads=(1, 1, 1, 1)),
                                 MaxPool2d("q", ("b_q",)), *conv("c", "q", rng, 8, 8, 1)))
    planner = Planner(ready, device("up5k"))
    folds = {layer.name: Folding(pe, 1, "memory", 1, True, "lut") for layer in planner.layers if layer.folds}
    rings = {p.layer.name: p.stage(planner.device.technology).ring for p in planner.assemble(folds).layers if p.layer.folds}
    folds = {name: replace(fold, depth=rings[name].min_depth) for name, fold in folds.items()}
    plan = relax(planner.assemble(folds), lambda more: planner.assemble({**folds, **more}))
    found = steady(lower(ready, plan), 6, 20 * plan.cycles)
    assert max(p.cycles for p in plan.layers) < found[-1] <= plan.cycles


@pytest.mark.parametrize("seed", range(20, 32))
def test_cycles_of_random_networks(seed):
    check(random_graph(seed), "generic" if seed % 2 else "up5k")


@pytest.mark.parametrize("seed", [20, 21, 22, 23, 26, 29])
def test_cycles_of_chains_too_large_to_try_every_ring(seed, monkeypatch):
    """Their rings and buffers are those of a schedule with an evenly spread source, as where branches meet."""
    target = "generic" if seed % 2 else "up5k"
    tried = check(random_graph(seed), target)
    monkeypatch.setattr(settle_module, "_LARGE", 0)
    assert check(random_graph(seed), target).cycles >= tried.cycles


@pytest.mark.parametrize("seed", [20, 21, 24, 27, 31])
def test_cycles_with_rings_in_large_ram(seed, monkeypatch):
    """Without block RAM all rings are in the large ones, of which no plan takes more than there are."""
    monkeypatch.setitem(DEVICES, "up5k", replace(DEVICES["up5k"], ebr=0))
    plan = check(random_graph(seed))
    assert plan.cost.ebr == 0 < plan.cost.spram == sum(p.fold.spram for p in plan.layers if p.layer.folds) <= 4
    monkeypatch.setitem(DEVICES, "up5k", replace(DEVICES["up5k"], spram=plan.cost.spram - 1))
    with suppress(FitError):                             # where there is no other way
        assert make_plan(apply_passes(random_graph(seed)), device("up5k")).cost.spram < plan.cost.spram


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 340))
def test_random_networks_of_all_operators_take_no_more_cycles(seed):
    ready = apply_passes(random_network(seed))
    plan = make_plan(ready, device("generic" if seed % 2 else "up5k"))
    found = steady(lower(ready, plan), 20, limit=28 * plan.cycles + 6000)
    assert (found[-4:] <= plan.cycles).all(), (plan.cycles, found.tolist(), [(p.layer.name, p.fold, p.cycles) for p in plan.layers])


def scaled(seed, size=7, shapes=((4, 3, {}), (8, 3, {"pads": (1, 1, 1, 1)}), (6, 1, {}))):
    """Return a chain of convolutions, some pooled, whose requantizations multiply."""
    rng = np.random.default_rng(seed)
    nodes, last, channels = [], "in", 2
    for k, (outputs, kernel, attributes) in enumerate(shapes):
        layer, requant = conv(f"c{k}", last, rng, outputs, channels, kernel, **attributes)
        mult, negative = rng.integers(900, 2000, outputs), rng.integers(0, 2) * np.full(1, 1 << 14)
        nodes += [layer, replace(requant, mult=mult, offset=np.full(outputs, 1 << 15), shift=16, offset_neg=negative)]
        last, channels = f"c{k}_q", outputs
        if rng.integers(0, 2) and k < 2:
            nodes.append(MaxPool2d(f"p{k}", (last,)))
            last = f"p{k}"
    nodes.append(Flatten("f", (last,)))
    features = network((size, size + 1, 2), *nodes).edges["f"].shape[0]
    nodes += [Linear("fc", ("f",), weight=rng.integers(-8, 8, (5, features)), bias=np.zeros(5), weight_format=FixedPoint(4, 0)),
              Requantize("fc_q", ("fc",), mult=rng.integers(900, 2000, 5), offset=np.zeros(5), shift=10, lo=-128, hi=127)]
    return network((size, size + 1, 2), *nodes)


@pytest.mark.parametrize("seed", [0, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 17))])
def test_cycles_where_scales_are_multiplied_by_in_steps(seed):
    """Of every layer, with whatever window, sides, lanes and bits a cycle."""
    rng = np.random.default_rng(seed)
    ready = apply_passes(scaled(seed))
    planner, plan = Planner(ready, device("hx8k")), None
    offered = [[o for o in each if o.fold.scale_bits and o.fold.style != "wired"] for each in planner.options.values()]
    while plan is None or plan.cycles > 1200:
        planner.options = {name: [each[rng.integers(len(each))]] for name, each in zip(planner.options, offered, strict=True)}
        plan = planner.best(1 << 60, limited=False)
    assert all(p.stage(planner.device.technology).requantizer.every > 1 for p in plan.layers if p.layer.folds)
    found = steady(lower(ready, plan), 10, limit=16 * plan.cycles + 6000)
    assert (found[-4:] == plan.cycles).all(), (plan.cycles, found.tolist(), [(p.layer.name, p.fold, p.cycles) for p in plan.layers])
