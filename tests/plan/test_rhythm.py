# amaranth: UnusedElaboratable=no
"""The handshakes that depths are looked for with are those of the hardware, to the cycle."""

from dataclasses import replace

import numpy as np
import pytest

from hwq.ir import Graph, Requantize
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import DEVICES, Planner, device, make_plan
from hwq.plan.rhythm import Core
from hwq.plan.settle import with_depths

from ..networks import random_network
from ..test_accelerator import random_graph
from .test_cycles import steady
from .test_joins import NETWORKS


def depths_of(plan):
    return {p.layer.name: p.fold.depths if p.layer.joins else (p.fifo,) for p in plan.layers if p.fifo or p.layer.joins}


def scaled(graph):
    """Return the network with a multiplier in all requantizations that have none or a small one."""
    return apply_passes(Graph(tuple(
        replace(node, mult=node.mult * 11 + 2, offset=node.offset * 11, offset_neg=node.offset_neg * 11, shift=node.shift + 4)
        if isinstance(node, Requantize) and not node.thresholds.size and node.mult.min() > 0 else node for node in graph)))


def check(graph, plan, frames):
    """Check the distances of the first frames' results; where the core stands still, that it does."""
    limit = frames * plan.cycles + 4 * sum(p.cycles for p in plan.layers) + 1000
    rhythm = Core(plan).netlist(depths_of(plan)).run(limit)
    try:
        found = steady(lower(graph, plan), frames, limit)
    except AssertionError:
        assert len(rhythm.ends) < frames and not rhythm.cycles
        return False
    wanted = np.diff(rhythm.ends)
    assert rhythm.cycles and (wanted[:len(found)] == found[:len(wanted)]).all(), (wanted, found)
    if len(found) > len(wanted):                         # it repeats itself from there on
        assert sum(found[-rhythm.frames:]) == rhythm.cycles
    return True


@pytest.mark.parametrize("seed", range(12))
def test_networks_of_all_operators(seed):
    graph, rng = apply_passes(random_network(seed)), np.random.default_rng(seed)
    options = Planner(graph, device("generic")).options
    folds = {name: each[int(rng.integers(len(each)))].fold for name, each in options.items()}
    plan = make_plan(graph, device("generic"),
                     folds={name: "wired" if f.style == "wired" else (f.pe, f.simd) for name, f in folds.items()})
    assert check(graph, plan, 6)


@pytest.mark.parametrize("seed", [1, 7, 8, 9, 11, 12])
def test_scales_that_are_multiplied_by_in_steps(seed, large):
    graph = scaled(random_network(seed))
    plan = make_plan(graph, large, max_cycles=3000)
    assert any(getattr(p.fold, "scale_bits", 0) for p in plan.layers)
    assert check(graph, plan, 5)


@pytest.mark.parametrize("graph, blocks", [(random_graph(20), 0), (random_graph(24), 0), (random_graph(31), 0),
                                           (NETWORKS["skip"], 0)], ids=["20", "24", "31", "skip"])
def test_rings_in_large_ram(graph, blocks, monkeypatch):
    monkeypatch.setitem(DEVICES, "up5k", replace(DEVICES["up5k"], ebr=blocks, spram=8, lc=20_000))
    graph = apply_passes(graph)
    plan = make_plan(graph, device("up5k"))
    assert plan.cost.spram and check(graph, plan, 6)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "pools in between"])
def test_joined_networks_with_any_depths(name):
    graph, rng = apply_passes(NETWORKS[name]), np.random.default_rng(len(name))
    any_depths(graph, make_plan(graph, device("generic")), rng)


@pytest.mark.parametrize("name", ["skip", "pools in between", *(pytest.param(name, marks=pytest.mark.slow)
                                                                                for name in ("residual block", "projection"))])
def test_joined_networks_that_multiply_in_steps(name, large):
    graph, rng = scaled(NETWORKS[name]), np.random.default_rng(len(name))
    plan = make_plan(graph, large, max_cycles=5000)
    assert any(p.fold.scale_bits for p in plan.layers if p.layer.joins) and check(graph, plan, 5)
    any_depths(graph, plan, rng)


def any_depths(graph, plan, rng):
    depths = {p.layer.name: tuple(int(rng.integers(1 + depth // 2, depth + 3)) for depth in p.fold.depths) if p.layer.joins
              else (int(rng.choice([0, 1, 2, 9])),) for p in plan.layers}
    check(graph, with_depths(plan, depths), 5)
