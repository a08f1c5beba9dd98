"""The least depth of the joins' buffers with which a network cannot stand still, by data dependence alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwq.rtl.schedule import play

from .timing import feed, wire

if TYPE_CHECKING:
    from .planner import Plan

__all__ = ["least_depths"]


def least_depths(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return for every join, for each of its operands, the beats that its buffer must hold.

    All operands of a join come from one fork (the last layer that all ways lead through). Its beats go out one at a time,
    each when the one before has done all that it can. On a way without layers a buffer needs what it holds between two beats, no more and no
    less. On others its fill within a beat's turn counts too: that is enough, however the cycles fall, but the hardware may need less.
    """
    above: dict[str, list[str]] = {"": [""]}             # the layers that all ways to a layer lead through, itself last
    for planned in plan.layers:
        ways = [above[source] for source in planned.layer.sources]
        above[planned.layer.name] = [name for name in ways[0] if all(name in way for way in ways)] + [planned.layer.name]
    return {p.layer.name: _least(plan, above[p.layer.name][-2], p.layer.name) for p in plan.layers if p.layer.joins}


def _least(plan: Plan, fork: str, join: str) -> tuple[int, ...]:
    beats, apart = feed(plan, fork), 10_000 + 4 * sum(p.cycles for p in plan.layers)      # longer than anything goes on
    model = wire(plan, start=fork, layers=_between(plan, fork, join))
    play(model.actors, beats, 1, beats * apart)
    depths = []
    sources = next(p.layer.sources for p in plan.layers if p.layer.name == join)
    for source, operand in zip(sources, model.buffers[join], strict=True):
        if source != fork:
            depths.append(operand.held)
            continue
        came, left = np.array(operand.came) // apart, np.array(operand.left) // apart
        held = np.arange(1, len(came) + 1) - np.searchsorted(left, came, side="right")
        depths.append(max(1, int(held.max())))
    return tuple(depths)


def _between(plan: Plan, fork: str, join: str) -> set[str]:
    """Return the layers on the ways from ``fork`` to ``join``, the join included."""
    sources = {p.layer.name: p.layer.sources for p in plan.layers}
    found, todo = {join}, [join]
    while todo:
        for name in sources[todo.pop()]:
            if name != fork and name not in found:
                found.add(name)
                todo.append(name)
    return found
