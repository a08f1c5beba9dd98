# amaranth: UnusedElaboratable=no
"""The handshakes that depths are looked for with are those of the hardware, to the cycle."""

from dataclasses import replace

import numpy as np
import pytest

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
    plan = make_plan(graph, device("generic"))
    depths = {p.layer.name: tuple(int(rng.integers(1 + depth // 2, depth + 3)) for depth in p.fold.depths) if p.layer.joins
              else (int(rng.choice([0, 1, 2, 9])),) for p in plan.layers}
    check(graph, with_depths(plan, depths), 5)
