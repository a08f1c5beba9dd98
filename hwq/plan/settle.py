"""Ring depths: as few block RAMs as keep every stage at the plan's cycles, by the event model of the hardware."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from hwq.rtl.common import Technology
from hwq.rtl.ring import Ring
from hwq.rtl.schedule import Actor, Sink, steady_state
from hwq.rtl.stage import Folding, gear_actors

if TYPE_CHECKING:
    from .layers import Stage
    from .planner import Plan

__all__ = ["settle", "simulated_cycles", "frames_under_way"]


def _stages(plan: Plan) -> list[Stage]:
    return [p.layer.stage(p.fold or Folding(), p.in_lanes, plan.device.technology) for p in plan.layers]


def simulated_cycles(plan: Plan) -> int:
    """Return the cycles a frame of the event model: never less than what the hardware takes."""
    return _simulate(plan)[0]


def frames_under_way(plan: Plan) -> int:
    """Return the frames that must have room in the core at once for it to keep the cycles of `simulated_cycles`."""
    return _simulate(plan)[1]


def _simulate(plan: Plan) -> tuple[int, int]:
    stages = _stages(plan)

    def make() -> list[Actor]:
        actors: list[Actor] = [Sink(prod(plan.layers[-1].layer.y.shape))]
        actors = gear_actors(actors[0], getattr(stages[-1], "out_lanes", 1), 1) + actors
        for stage in reversed(stages):
            actors = stage.actors(actors[0]) + actors
        return actors

    beats = 1
    for dim in plan.layers[0].layer.x.shape:
        beats *= dim
    return steady_state(make, beats // plan.in_lanes)


def _levels(ring: Ring, technology: Technology) -> list[int]:
    """Return the depths worth trying, the cheapest first: of those that take the same blocks, the deepest up to `Ring.full_depth`
    and the deepest beyond."""
    width, most = ring.shape.width * ring.lanes, 4 * ring.full_depth
    deepest: dict[tuple[int, bool], int] = {}
    depth = ring.min_depth
    while depth <= most:
        deepest[technology.blocks(width, depth) or depth, depth > ring.full_depth] = depth
        depth *= 2
    return [depth for _, depth in sorted(deepest.items())]


def settle(plan: Plan, assemble: Callable[[Mapping[str, Folding]], Plan]) -> Plan | None:
    """Return the plan with rings that let it keep its cycles, or None if no ring depth does.

    ``assemble`` makes a plan with some layers' foldings replaced. The result's cycles are exact: the model is never
    faster than the hardware, and the hardware never faster than its slowest stage.
    """
    rings: dict[str, tuple[Folding, list[int], int]] = {}
    for planned, stage in zip(plan.layers, _stages(plan), strict=True):
        ring = getattr(stage, "ring", None)
        if ring is not None:
            levels = _levels(ring, plan.device.technology)
            enough = next(i for i, d in enumerate(levels) if d >= ring.full_depth)
            rings[planned.layer.name] = planned.fold or Folding(), levels, enough

    def at(choice: Mapping[str, int]) -> Plan:
        return assemble({name: replace(rings[name][0], depth=rings[name][1][k]) for name, k in choice.items()})

    def holds(choice: Mapping[str, int]) -> bool:
        return simulated_cycles(at(choice)) == plan.cycles

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
