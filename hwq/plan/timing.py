"""The event model of a plan: its stages' actors, wired as its layers are.

A chain's source never waits. Where branches meet, the source offers a frame's beats evenly over the plan's cycles, and the
buffers of the joins hold all that come: a schedule with that period. The hardware does everything as early as it can,
so with buffers that hold as much as they held in it, it is no slower.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from hwq.rtl.joins import JoinStage
from hwq.rtl.schedule import Actor, RingActor, Sink, steady_state
from hwq.rtl.schedule_branches import Buffer, ForkActor, Operand
from hwq.rtl.stage import gear_actors

if TYPE_CHECKING:
    from .planner import Plan

__all__ = ["Model", "joined", "simulated_cycles", "frames_under_way", "schedule", "wire", "feed"]


@dataclass(frozen=True, eq=False)
class Model:
    """Actors of a plan, the first one first, the sink last; its rings and the buffers in front of its layers.

    ``under_way``: once played, the frames that must have room in the core at once for it to keep its cycles.
    """

    actors: list[Actor]
    rings: dict[str, RingActor]
    buffers: dict[str, list[Buffer]]
    under_way: int = 0


def joined(plan: Plan) -> bool:
    """Return whether branches meet in the plan's network."""
    return any(planned.layer.joins for planned in plan.layers)


def wire(plan: Plan, *, start: str = "", layers: Collection[str] | None = None, endless: bool = False) -> Model:
    """Return the actors behind the output of ``start``; the buffers of joins hold all that come.

    Parameters
    ----------
    plan : Plan
    start : str
        A layer, ``""`` for the network's input.
    layers : collection of str, optional
        Layers to take, all by default; what the last one gives is taken at once.
    endless : bool
        Rings hold all that come, too, and every layer has a buffer in front, planned or not.
    """
    chosen = [planned for planned in plan.layers if layers is None or planned.layer.name in layers]
    readers: dict[str, list[Actor]] = {}
    last = chosen[-1]
    lanes = getattr(last.stage(plan.device.technology), "out_lanes", 1)
    actors: list[Actor] = [Sink(prod(last.layer.y.shape) // (1 if layers is None else lanes))]
    rings: dict[str, RingActor] = {}
    buffers: dict[str, list[Buffer]] = {}
    if layers is None:
        actors = gear_actors(actors[0], lanes, 1) + actors
    readers[last.layer.name] = [actors[0]]

    def behind(name: str) -> Actor:
        return readers[name][0] if len(readers[name]) == 1 else ForkActor(readers[name])

    for planned in reversed(chosen):
        name, stage = planned.layer.name, planned.stage(plan.device.technology)
        if isinstance(stage, JoinStage):
            mine = stage.actors(behind(name))
            # In the operands' order: where only some have gears in front, the actors stand in another.
            buffers[name] = list(next(actor for actor in mine if isinstance(actor, Operand)).after.operands)
        else:
            mine = stage.actors(behind(name))
            rings.update((name, actor) for actor in mine if isinstance(actor, RingActor))
            if endless:
                buffers[name] = [Buffer(mine[0])]
                mine = [*buffers[name], *mine]
        actors = mine + actors
        for source, actor in zip(planned.layer.sources, mine, strict=False):
            readers.setdefault(source, []).insert(0, actor)
    for ring in rings.values() if endless else ():
        ring.capacity = 1 << 62
    return Model([behind(start), *actors], rings, buffers)


def feed(plan: Plan, start: str = "") -> int:
    """Return the beats a frame that ``start`` gives."""
    if not start:
        return prod(plan.layers[0].layer.x.shape) // plan.in_lanes
    planned = next(planned for planned in plan.layers if planned.layer.name == start)
    return prod(planned.layer.y.shape) // getattr(planned.stage(plan.device.technology), "out_lanes", 1)


def _simulate(plan: Plan, even: bool = False) -> tuple[int, Model]:
    pace = plan.cycles if even or joined(plan) else 0
    made: list[Model] = []

    def make() -> list[Actor]:
        made[:] = [wire(plan, endless=pace > 0)]
        return made[0].actors

    cycles, under_way = steady_state(make, feed(plan), pace=pace)
    return cycles, replace(made[0], under_way=under_way)


def simulated_cycles(plan: Plan) -> int:
    """Return the cycles a frame of the event model: never less than what the hardware takes."""
    return _simulate(plan)[0]


def frames_under_way(plan: Plan) -> int:
    """Return the frames that must have room in the core at once for it to keep its cycles."""
    return plan.under_way or _simulate(plan)[1].under_way


def schedule(plan: Plan, even: bool = False) -> Model | None:
    """Return the events of a schedule with the plan's cycles, or None.

    Of joined branches, or if it shall be ``even``, with a source that is evenly spread, and endless rings and buffers.
    """
    cycles, model = _simulate(plan, even)
    return model if cycles == plan.cycles else None
