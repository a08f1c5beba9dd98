"""The least depth of the joins' buffers with which a network cannot stand still, by data dependence alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwq.rtl.schedule import Actor, play

from .timing import Model, feed, wire

if TYPE_CHECKING:
    from .planner import Plan

__all__ = ["least_depths"]


def least_depths(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return for every join, for each of its operands, the beats that its buffer must hold.

    All operands of a join come from one fork (the last layer that all ways lead through). Its beats go out one at a time,
    each when the one before has done all that it can: what a buffer holds then, it must hold, however the cycles fall. What the rings
    and gears of its own branch hold is taken off as far as the event model knows it; what pipelines hold is not.
    """
    above: dict[str, list[str]] = {"": [""]}             # the layers that all ways to a layer lead through, itself last
    for planned in plan.layers:
        ways = [above[source] for source in planned.layer.sources]
        above[planned.layer.name] = [name for name in ways[0] if all(name in way for way in ways)] + [planned.layer.name]
    return {p.layer.name: _least(plan, above[p.layer.name][-2], p.layer.name) for p in plan.layers if p.layer.joins}


def _least(plan: Plan, fork: str, join: str) -> tuple[int, ...]:
    layers = _between(plan, fork, join)
    beats = feed(plan, fork)
    apart = 10_000 + 4 * sum(p.cycles for p in plan.layers)

    def run(depths: tuple[int, ...] | None, freed: dict[str, list[list[int]]] | None) -> tuple[Model, bool]:
        model = wire(plan, depths={join: depths} if depths else None, freed=freed, start=fork, layers=layers)
        first = _Watched(model.actors[0], apart)
        play([first, *model.actors[1:]], beats, 1, beats * apart)
        return model, first.in_time

    free, _ = run(None, None)
    due = [np.array(left) // apart for left in free.left[join]]

    def enough(depths: tuple[int, ...]) -> bool:
        """Whether every beat leaves the fork, and the join, in the turn in which it does from endless buffers."""
        model, in_time = run(depths, free.left)
        return in_time and all((np.array(left) // apart == each).all() for left, each in zip(model.left[join], due, strict=True))

    depths = []
    for operand in free.buffers[join]:
        came, left = np.array(operand.came) // apart, np.array(operand.left) // apart
        held = np.arange(1, len(came) + 1) - np.searchsorted(left, came, side="right")
        depths.append(max(1, int(held.max())))
    for k in range(len(depths)):
        lo, hi = 1, depths[k]
        while lo < hi:
            depths[k] = (lo + hi) // 2
            lo, hi = (lo, depths[k]) if enough(tuple(depths)) else (depths[k] + 1, hi)
        depths[k] = hi
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


class _Watched(Actor):
    """Passes beats on and notes whether each is taken before the next one comes."""

    def __init__(self, after: Actor, apart: int):
        self.after, self._apart, self.in_time = after, apart, True

    def push(self, t: int) -> int:
        took = self.after.push(t)
        self.in_time &= took < (t // self._apart + 1) * self._apart
        return took

    def flush(self) -> None:
        self.after.flush()
