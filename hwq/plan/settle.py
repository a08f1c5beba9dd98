"""Depths of the rings, and of the joins' buffers to begin with: as little as keeps the plan's cycles, by the event model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from hwq.rtl.common import Cost
from hwq.rtl.joins import Joining
from hwq.rtl.ring import Ring
from hwq.rtl.stage import Folding

from .timing import joined, schedule, simulated_cycles

if TYPE_CHECKING:
    from .planner import Plan

__all__ = ["settle", "spreads", "relax", "with_depths"]

# Results a frame of all layers from which on no ring of a chain is tried by itself: each trial takes seconds.
_LARGE = 40_000


def _levels(ring: Ring, least: int = 0) -> list[int]:
    """Return the depths of at least ``least`` worth trying, the cheapest first: of those of the same blocks, the deepest up to
    `Ring.full_depth` (or ``least``) and beyond."""
    enough = max(ring.full_depth, least)
    deepest: dict[tuple[int, bool], int] = {}
    depth = ring.min_depth
    while depth <= max(4 * ring.full_depth, least):
        deepest[ring.blocks(depth) or depth, depth > enough] = depth
        depth *= 2
    return [depth for _, depth in sorted(deepest.items()) if depth >= least]


def spreads(plan: Plan) -> bool:
    """Return whether `settle` takes an evenly spread schedule unasked: where branches meet, and of large chains."""
    return joined(plan) or sum(prod(planned.layer.y.shape) for planned in plan.layers) > _LARGE


def settle(plan: Plan, assemble: Callable[[Mapping[str, Folding]], Plan], even: bool = False) -> Plan | None:
    """Return the plan with rings and buffers that let it keep its cycles, or None if no depths are found that do.

    ``assemble`` makes a plan with some layers' foldings replaced. The result's cycles are exact: the model is never
    faster than the hardware, and the hardware never faster than its slowest stage. Of a chain, rings are tried one by one, cheapest
    depths first. Where it `spreads`, or ``even`` asks for it, it takes what an evenly spread source needs: rings that may be
    deeper, in seconds instead of minutes, and buffers between layers, with which it keeps cycles that rings alone do not.
    """
    if even or spreads(plan):
        found = _evenly(plan, assemble)
        if found or even or joined(plan):
            return found
    rings: dict[str, tuple[Folding, list[int], int]] = {}
    for planned in plan.layers:
        ring = getattr(planned.stage(plan.device.technology), "ring", None)
        if ring is not None:
            assert not isinstance(planned.fold, Joining)
            levels = _levels(ring)
            enough = next(i for i, d in enumerate(levels) if d >= ring.full_depth)
            rings[planned.layer.name] = planned.fold or Folding(), levels, enough

    def at(choice: Mapping[str, int]) -> Plan:
        return assemble({name: replace(rings[name][0], depth=rings[name][1][k]) for name, k in choice.items()})

    def holds(choice: Mapping[str, int]) -> bool:
        return schedule(at(choice)) is not None

    choice = {name: enough for name, (_, _, enough) in rings.items()}
    if not holds(choice):
        choice = {name: len(levels) - 1 for name, (_, levels, _) in rings.items()}
        if not holds(choice):
            return None
    for name in sorted(rings, key=lambda name: -choice[name]):
        for level in range(choice[name]):
            if holds(choice | {name: level}):
                choice[name] = level
                break
    return at(choice)


def _evenly(plan: Plan, assemble: Callable[[Mapping[str, Folding]], Plan]) -> Plan | None:
    """Return the plan with rings and buffers that hold what they hold in a schedule with the source evenly spread.

    What a layer's maker holds in its last block needs no buffer: one beat, or two where nobody else reads it.
    """
    model = schedule(plan, even=True)
    if model is None:
        return None
    folds = {}
    for planned in plan.layers:
        if (used := model.rings.get(planned.layer.name)) and not isinstance(planned.fold, Joining):
            ring = getattr(planned.stage(plan.device.technology), "ring", None)
            assert ring is not None
            least = ring.min_depth
            while ring.capacity_of(least) < used.held:
                least *= 2
            folds[planned.layer.name] = replace(planned.fold or Folding(), depth=_levels(ring, least)[0])
    reads = Counter(source for planned in plan.layers for source in planned.layer.sources)
    depths = {name: [buffer.held for buffer in each] for name, each in model.buffers.items()}
    for planned in plan.layers:
        name, source = planned.layer.name, planned.layer.sources[0]
        if not planned.layer.joins and depths[name][0] <= 1 + bool(source and reads[source] == 1):
            del depths[name]
    return replace(with_depths(assemble(folds), depths), under_way=model.under_way)


def relax(plan: Plan, assemble: Callable[[Mapping[str, Folding]], Plan]) -> Plan:
    """Return the plan with the cycles that it takes at most, rings as they are; where branches meet, with rings and buffers for the
    first number of cycles, from the model's on, that has an evenly spread schedule."""
    slower = replace(plan, cycles=simulated_cycles(plan))
    if not joined(plan):
        return slower
    while (even := _evenly(slower, assemble)) is None:
        slower = replace(slower, cycles=slower.cycles + 1 + slower.cycles // 32)
    return replace(even, cycles=slower.cycles)


def with_depths(plan: Plan, depths: Mapping[str, Sequence[int]]) -> Plan:
    """Return the plan with other depths of the buffers in front of its layers; a layer that is not named gets none."""
    layers, cost = [], plan.cost
    for planned in plan.layers:
        name = planned.layer.name
        if isinstance(planned.fold, Joining):
            new = replace(planned, fold=replace(planned.fold, depths=tuple(depths[name])))
        else:
            new = replace(planned, fifo=depths.get(name, (0,))[0])
        buffer = new.buffer(plan.device.technology)
        new = replace(new, cost=new.stage(plan.device.technology).cost + (buffer.cost if buffer else Cost()))
        cost += new.cost - planned.cost
        layers.append(new)
    return replace(plan, layers=tuple(layers), cost=cost)
