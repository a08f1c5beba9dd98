"""The two depths of the joins' buffers: the least with which nothing can stand still, and the least that costs no cycles.

Both are looked for with the handshakes of the very hardware (`Core`): with one beat less it stands still, or is slower. Networks
too large to be tried so often keep bounds that are certainly enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from math import ceil, inf
from typing import TYPE_CHECKING

import numpy as np

from hwq.rtl.joins import Joining
from hwq.rtl.native import compiles
from hwq.rtl.schedule import play

from .rhythm import Core
from .settle import with_depths
from .timing import feed, joined, wire

if TYPE_CHECKING:
    from .planner import Plan

__all__ = ["least_depths", "tighten"]

Depths = Mapping[str, tuple[int, ...]]

# Cycles a frame times layers times buffers, up to which depths are tried: about a second; with a C++ compiler a few.
_TRIED, _TRIED_COMPILED = 250_000, 40_000_000
# Beats of the buffers that mostly need but one.
_SHALLOW = 4


def least_depths(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return for every join the beats that each operand's buffer must hold for the core not to stand still, whatever stalls.

    If the plan is `Plan.tight`, none can be less by one beat in a core whose blocks hold no more than they are sure to
    (`Core.moves`). Otherwise they are enough.
    """
    return dict(plan.least) if plan.tight else _bounds(plan)


def tighten(plan: Plan, always: bool = False) -> Plan:
    """Return the plan with buffers of which none can be smaller by one beat without costing cycles.

    A large one is returned as it is unless ``always``: the search takes some 150 frames of every cycle, for ResNet-8 about a
    second, or without a C++ compiler a minute or more.
    """
    depths = {p.layer.name: p.fold.depths if isinstance(p.fold, Joining) else (p.fifo,) for p in plan.layers if p.fifo
              or p.layer.joins}
    work = plan.cycles * len(plan.layers) * sum(map(len, depths.values()))
    large = work > _TRIED
    if not joined(plan) or (large and not always and (work > _TRIED_COMPILED or not compiles())):
        return plan
    core = Core(plan, fast=large)
    if (large and not always and not core.fast) or core.lost(depths):
        return plan
    held = {p.layer.name: depths[p.layer.name] for p in plan.layers if p.layer.joins}
    one = {name: tuple(depth if depth > _SHALLOW else 1 for depth in each) for name, each in held.items()}
    if not core.moves(least := one) and not core.moves(least := held) and not core.moves(least := _bounds(plan)):
        return plan
    for name, k in _places(least):
        least[name] = (*least[name][:k], core.least(least, name, k), *least[name][k + 1:])
    depths |= {name: tuple(map(max, each, depths[name])) for name, each in least.items()}     # bounds may be more than was held
    found = _lowest(depths, {name: least.get(name, (0,)) for name in depths}, core)
    return replace(with_depths(plan, found), least=least)


def _places(depths: Depths) -> list[tuple[str, int]]:
    """Return the buffers, shallow ones first."""
    return sorted(((name, k) for name, each in depths.items() for k in range(len(each))),
                  key=lambda place: depths[place[0]][place[1]])


def _lowest(depths: Depths, floor: Depths, core: Core) -> dict[str, tuple[int, ...]]:
    """Return depths that keep the plan's cycles, of which none can be less by one, the others as they are.

    As long as the buffers' latencies stay the same, what is not enough is not enough with fewer beats elsewhere either. Those of
    shallow ones change, so these are lowered first: for a beat or two more in a deep one they are often spared.
    """
    def at(name: str, k: int, depth: int) -> dict[str, tuple[int, ...]]:
        return found | {name: (*found[name][:k], depth, *found[name][k + 1:])}

    # Those that may be left out mostly can be, all at once.
    spare = {name: (0,) for name, each in depths.items() if floor[name] == (0,) and 0 < each[0] <= _SHALLOW}
    found, before = {**depths, **spare}, None
    if spare and core.lost(found):
        found = dict(depths)
    shown: dict[tuple[str, int], Hashable] = {}          # with which latencies a beat less was too few
    # a buffer of fewer beats may have less latency, and let another one hold fewer
    while found != before:
        first, before = before is None, dict(found)
        for name, k in _places(depths):
            lo, hi = floor[name][k], found[name][k]
            if shown.get((name, k)) == core.latencies(found):
                continue
            # At first, shallow ones mostly need no more than their floor; later, most stay what they are.
            step = 1 if not first else hi - lo if lo <= 1 else 0
            few: list[tuple[int, float]] = []            # what was not enough, and the cycles that it lost
            while lo < hi:
                depth = max(lo, hi - step) if step else _guess(few, lo, hi)
                if lost := core.lost(at(name, k, depth)):
                    lo, step, few = depth + 1, 0, [*few[-1:], (depth, lost)]
                else:
                    hi, step = depth, 2 * step
            found = at(name, k, hi)
            shown[name, k] = core.latencies(found)
    return found


def _guess(few: Sequence[tuple[int, float]], lo: int, hi: int) -> int:
    """Return the depth to try next: where two that lost cycles point, or in the middle.

    Cycles lost are convex, those of several circuits of a marked graph of which the slowest counts; so it is not too deep.
    """
    if len(few) == 2:
        (a, more), (b, less) = few
        if less < more < inf and (depth := b + ceil(less * (b - a) / (more - less))) < hi:
            return max(lo, depth)
    return (lo + hi) // 2


def _bounds(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return depths with which nothing stands still, by data dependence alone.

    All operands of a join come from one fork (the last layer that all ways lead through). Its beats go out one at a time,
    each when the one before has done all that it can. What a buffer holds between two of them is enough, however the cycles fall,
    if no way forks: were nothing to move, the join would have taken all that the beats so far allow, the rest would be in the
    buffers, and the next beat could come. Without layers on a way it is the least, too. Where a way forks, its bursts must find
    room.
    """
    above: dict[str, list[str]] = {"": [""]}             # the layers that all ways to a layer lead through, itself last
    for planned in plan.layers:
        ways = [above[source] for source in planned.layer.sources]
        above[planned.layer.name] = [name for name in ways[0] if all(name in way for way in ways)] + [planned.layer.name]
    return {p.layer.name: _bound(plan, above[p.layer.name][-2], p.layer.name) for p in plan.layers if p.layer.joins}


def _bound(plan: Plan, fork: str, join: str) -> tuple[int, ...]:
    """Return `_bounds` of one join."""
    beats, apart = feed(plan, fork), 10_000 + 4 * sum(p.cycles for p in plan.layers)      # longer than anything goes on
    model = wire(plan, start=fork, layers=_between(plan, fork, join))
    play(model.actors, beats, 1, beats * apart)
    sources = {p.layer.name: p.layer.sources for p in plan.layers}
    forks = max(Counter(source for name in _between(plan, fork, join) for source in sources[name] if source != fork).values(),
                default=0) > 1
    depths = []
    for source, operand in zip(sources[join], model.buffers[join], strict=True):
        came, left = np.array(operand.came) // apart, np.array(operand.left) // apart
        held = int((np.arange(1, len(came) + 1) - np.searchsorted(left, came, side="right")).max())
        depths.append(operand.held if forks and source != fork else max(1, held))
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
