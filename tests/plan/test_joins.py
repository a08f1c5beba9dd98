# amaranth: UnusedElaboratable=no
"""Networks whose branches join again: exact with stalls, as fast as promised, and never at a standstill."""

import numpy as np
import pytest

from hwq.interp import run
from hwq.ir import Add, Concat, Conv2d, Flatten, GlobalAvgPool2d, Linear, MaxPool2d, Requantize, Select, Upsample
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import Planner, device, least_depths, make_plan, plan_of, plan_record, settle
from hwq.plan.settle import with_depths
from hwq.plan.timing import schedule
from hwq.rtl.joins import Joining
from hwq.rtl.schedule import Filter, Sink
from hwq.rtl.schedule_branches import Join

from ..test_accelerator import drive
from .test_corners import FMT, exact
from .test_cycles import check, network, steady

RNG = np.random.default_rng(0)
SAME = dict(pads=(1, 1, 1, 1))


def conv(name, source, rng, outputs, channels, kernel=3, **attributes):
    """Return a convolution whose codes spread over 0..15 if those that come in do."""
    weight = rng.integers(-8, 8, (outputs, kernel, kernel, channels))
    shift = round(np.log2(5 * kernel * np.sqrt(channels)))
    return [Conv2d(name, (source,), weight=weight, bias=np.zeros(outputs), weight_format=FMT, **attributes),
            Requantize(f"{name}_q", (name,), offset=(8 << shift) - weight.sum(axis=(1, 2, 3)) * 15 // 2, shift=shift, lo=0, hi=15)]


def add(name, a, b, mult=(5, 3), shift=3):
    return [Add(name, (a, b), mult=mult),
            Requantize(f"{name}_q", (name,), offset=np.array([1 << shift - 1]), shift=shift, lo=0, hi=15)]


NETWORKS = {
    "skip": network((6, 6, 2), *conv("a", "in", RNG, 2, 2, **SAME), *add("s", "a_q", "in")),
    "skip over two": network((6, 6, 2), *conv("a", "in", RNG, 2, 2, **SAME),
                             *conv("b", "a_q", RNG, 2, 2, **SAME), *add("s", "in", "b_q")),
    "residual block": network((6, 5, 2), *conv("z", "in", RNG, 4, 2, **SAME), *conv("a", "z_q", RNG, 4, 4, **SAME),
                              *conv("b", "a_q", RNG, 4, 4, **SAME), *add("s", "b_q", "z_q"), GlobalAvgPool2d("g", ("s_q",)),
                              Requantize("m", ("g",), mult=np.array([9]), shift=8, lo=0, hi=15), Flatten("f", ("m",)),
                              Linear("fc", ("f",), weight=RNG.integers(-8, 8, (3, 4)), bias=np.zeros(3), weight_format=FMT)),
    "projection": network((6, 6, 2), *conv("z", "in", RNG, 4, 2, **SAME),
                          *conv("a", "z_q", RNG, 4, 4, pads=(0, 0, 1, 1), stride=(2, 2)), *conv("b", "a_q", RNG, 4, 4, **SAME),
                          *conv("p", "z_q", RNG, 4, 4, 1, stride=(2, 2)), *add("s", "b_q", "p_q"), *conv("e", "s_q", RNG, 2, 4, 1)),
    "concat of three": network((5, 5, 2), *conv("z", "in", RNG, 4, 2, **SAME), *conv("a", "z_q", RNG, 4, 4, **SAME),
                               Concat("s", ("a_q", "z_q", "in")), *conv("e", "s", RNG, 2, 10, 1)),
    "dense": network((5, 4, 2), *conv("a", "in", RNG, 2, 2, **SAME), Concat("s", ("in", "a_q")), *conv("b", "s", RNG, 2, 4, **SAME),
                     Concat("t", ("in", "a_q", "b_q")), *conv("e", "t", RNG, 2, 6, 1)),
    "nested": network((6, 4, 2), *conv("a", "in", RNG, 2, 2, **SAME), *conv("b", "a_q", RNG, 2, 2, **SAME), *add("s", "a_q", "b_q"),
                      *add("t", "s_q", "in")),
    "pooled": network((6, 6, 2), *conv("a", "in", RNG, 4, 2, **SAME), MaxPool2d("p", ("a_q",)), MaxPool2d("q", ("a_q",)),
                      *add("s", "p", "q"), *conv("e", "s_q", RNG, 2, 4, 1)),
    "twice the same, wide": network((4, 4, 2), Add("s", ("in", "in"), mult=(3, -1)), *conv("e", "s", RNG, 2, 2, 1)),
    "sum of sums": network((3, 4, 2), Add("s", ("in", "in"), mult=(3, 100)), Add("t", ("in", "s"), mult=(-7, 1))),
    "pools in between": network((6, 6, 2), MaxPool2d("p", ("in",), kernel=(3, 3), stride=(1, 1), pads=(1, 1, 1, 1)),
                                Requantize("r", ("in",), mult=np.array([3]), shift=1, lo=0, hi=15), *add("s", "p", "r"),
                                MaxPool2d("h", ("s_q",)), Upsample("u", ("h",)), *add("t", "u", "s_q")),
    "split": network((5, 4, 4), Select("l", ("in",), np.array([0, 1])), Select("r", ("in",), np.array([2, 3])),
                     *conv("a", "r", RNG, 2, 2, **SAME), Concat("c", ("l", "a_q"))),
    "split, wide": network((4, 4, 2), *conv("z", "in", RNG, 8, 2, **SAME),
                           Select("l", ("z_q",), np.arange(4)), Select("r", ("z_q",), np.arange(4, 8)),
                           *conv("a", "r", RNG, 4, 4, **SAME), *add("s", "a_q", "l"), Select("e", ("s_q",), np.array([1, 2]))),
    "overlapping parts": network((3, 3, 6), Select("l", ("in",), np.array([0, 2, 3])), Select("r", ("in",), np.array([2, 3, 5])),
                                 *add("s", "l", "r"), Concat("c", ("s_q", "in", "l"))),
    "flat": network((6,), Linear("a", ("in",), weight=RNG.integers(-8, 8, (6, 6)), bias=np.zeros(6), weight_format=FMT),
                    Requantize("q", ("a",), shift=4, lo=-8, hi=7), Concat("c", ("in", "q")), *add("s", "c", "c")),
}


def depths_of(plan):
    return {p.layer.name: list(p.fold.depths) for p in plan.layers if isinstance(p.fold, Joining)}


def stuck(graph, plan):
    """Return whether the core gives no fourth frame in twice the time that it would take without any overlap."""
    try:
        steady(lower(graph, plan), 4, 8 * sum(p.cycles for p in plan.layers) + 3000)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("name, target", list(zip(NETWORKS, ["up5k", "generic"] * len(NETWORKS), strict=False)))
def test_joined_networks_keep_their_cycles(name, target):
    check(NETWORKS[name], target, frames=7)


@pytest.mark.parametrize("name, target", list(zip(NETWORKS, ["generic", "up5k"] * len(NETWORKS), strict=False)))
def test_joined_networks_are_exact(name, target):
    plan, _ = exact(NETWORKS[name], target, count=2)
    again = plan_of(apply_passes(NETWORKS[name]), plan_record(plan))
    assert plan_record(again) == plan_record(plan) and again.cycles == plan.cycles


@pytest.mark.parametrize("folds",
                         [{"z": (1, 2), "a": (4, 4), "b": (1, 1)}, {"z": (4, 18), "a": (2, 2), "b": (2, 1)}, {"b": (4, 4)}])
def test_any_folding_is_exact_and_as_fast_as_promised(folds):
    graph = NETWORKS["residual block"]
    exact(graph, folds=folds, count=1)
    check(graph, "generic", folds, frames=7)


def test_a_network_without_an_even_schedule_gets_more_cycles_until_there_is_one(monkeypatch):
    graph = apply_passes(NETWORKS["skip"])
    plan = make_plan(graph, device("generic"))
    folds = {p.layer.name: p.fold for p in plan.layers if not p.layer.joins}
    search = Planner(graph, plan.device)
    monkeypatch.setattr(settle, "schedule", lambda plan, even: schedule(plan, even) if plan.cycles > 350 else None)
    found = settle.relax(search.assemble(folds), lambda more: search.assemble({**folds, **more}))
    assert 350 < found.cycles < 400 and not stuck(graph, found)


@pytest.mark.parametrize("name, target", [("skip", "up5k"), ("skip over two", "generic"), ("nested", "up5k")])
def test_one_beat_less_than_the_least_depth_stands_still(name, target):
    graph = apply_passes(NETWORKS[name])
    plan = make_plan(graph, device(target))
    least = {name: list(each) for name, each in least_depths(plan).items()}
    assert all(max(each) > 4 for each in least.values())
    assert not stuck(graph, with_depths(plan, least))
    for join, each in least.items():
        skip = each.index(max(each))
        assert stuck(graph, with_depths(plan, least | {join: [d - (k == skip) for k, d in enumerate(each)]}))


@pytest.mark.parametrize("name, stall", [("skip", (0.0, 0.9)), ("projection", (0.9, 0.0)), ("dense", (0.5, 0.5)),
                                         ("nested", (0.0, 0.8)), ("concat of three", (0.0, 0.0))])
def test_the_least_depths_are_enough_whatever_stalls(name, stall):
    graph = apply_passes(NETWORKS[name])
    plan = make_plan(graph, device("generic"))
    core = lower(graph, with_depths(plan, least_depths(plan)))
    x = np.random.default_rng(2).integers(0, 16, (2, *graph.input.shape))
    beats = [[sum(int(v) << 8 * i for i, v in enumerate(beat)) for beat in frame.reshape(-1, core.guard.lanes)] for frame in x]
    want = run(graph, x)["out"].reshape(2, -1).tolist()
    assert drive(core, beats, 2, stall=stall, limit=30_000) == [(values, 0) for values in want]


@pytest.mark.parametrize("name", ["skip", "residual block"])
def test_the_least_depths_cost_cycles_and_the_planned_ones_do_not(name):
    graph = apply_passes(NETWORKS[name])
    plan = make_plan(graph, device("generic"))
    least, full = least_depths(plan), depths_of(plan)
    assert max(least["s"]) < max(full["s"])
    found = steady(lower(graph, with_depths(plan, least)), 6, 60 * plan.cycles + 6000)
    assert (found[-3:] > plan.cycles).all()


def test_the_event_model_of_a_join_waits_for_the_last_operand():
    sink = Sink(3)
    join = Join(Filter(sink, [True], 3), 2, [(0, 1)])
    early, late = join.operands
    assert [early.push(t) for t in (0, 0, 5)] == [0, 1, 5]
    assert not sink.times(1)
    assert [late.push(t) for t in (10, 11, 30)] == [10, 11, 30]
    assert early.left == late.left == [12, 13, 32] and sink.times(1) == [15, 16, 35]
    assert (early.held, late.held) == (3, 2)
