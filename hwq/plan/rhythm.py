"""How the hardware of a plan moves, by the handshakes of its blocks, for any depths of its buffers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import inf, prod
from typing import TYPE_CHECKING

from hwq.rtl.branches import StreamFifo
from hwq.rtl.common import shape_of
from hwq.rtl.handshake import AnyQueue, Fork, Part, Queue
from hwq.rtl.joins import Joining, JoinStage
from hwq.rtl.native import compiled
from hwq.rtl.rhythm import Netlist, Program, Step, interpreted
from hwq.rtl.stage import gears

from .timing import feed, frames_under_way

if TYPE_CHECKING:
    from .planner import Plan

__all__ = ["Core"]

# Frames in which a core must show that it repeats itself.
_FRAMES = 30


class Core:
    """The handshakes of the core that `hwq.lower.lower` makes of a plan.

    Parameters
    ----------
    plan : Plan
    fast : bool
        Compile them, once for all depths; where that is not possible they stay Python.

    Attributes
    ----------
    fast : bool
        Whether they are compiled.
    make : callable
        What runs them then, see `Netlist.run`: netlists that are ``general``.
    """

    def __init__(self, plan: Plan, fast: bool = False):
        self._plan, self._technology = plan, plan.device.technology
        stages = [planned.stage(self._technology) for planned in plan.layers]
        self._gated = any(getattr(stage, "eager", False) for stage in stages)
        self._under_way = frames_under_way(plan)
        # What comes before each of a layer's buffers, what comes behind them.
        self._ways: list[tuple[list[tuple[Part, ...]], tuple[Part, ...]]] = [
            stage.handshakes if isinstance(stage, JoinStage) else ([()], stage.handshake) for stage in stages]
        self.make: Callable[[Program], Step] = interpreted
        self.fast, last = False, stages[-1]
        self._end = [part for _, gear in gears(last.out_shape, getattr(last, "out_lanes", 1), 1) for part in gear.handshake]   # type: ignore[attr-defined]
        if fast:
            net = self.netlist({planned.layer.name: (0,) * len(planned.layer.sources) for planned in plan.layers}, general=True)
            make = compiled([net.program(), net.program(lean=True)])
            self.fast, self.make = make is not None, make or interpreted

    def lost(self, depths: Mapping[str, Sequence[int]]) -> float:
        """Return by how many cycles a frame the core is slower than planned, its ends never waiting; infinite: it stands still.

        Never 0 where it does not keep the plan's cycles; where that would be long in showing, neither, though it may.

        Parameters
        ----------
        depths : mapping of str to sequence of int
            Of the buffers in front of layers; 0, or a layer without an entry: no buffer.
        """
        plan = self._plan
        rhythm = self.netlist(depths, self.fast).run(_FRAMES * plan.cycles + 4 * sum(planned.cycles for planned in plan.layers)
                                                     + 1000,
                                                     pace=plan.cycles, make=self.make)
        if rhythm.frames:
            return max(0.0, rhythm.cycles / rhythm.frames - plan.cycles)
        return max(1.0, rhythm.ends[-1] - rhythm.ends[-2] - plan.cycles) if len(rhythm.ends) > 1 else inf

    def moves(self, depths: Mapping[str, Sequence[int]]) -> bool:
        """Return whether the core never stands still, whatever stalls: it moves with no more room than its blocks are sure to have.

        Blocks take and give beats in a fixed order, and more room never hinders, so that it does not matter when they come.
        """
        return self.netlist(depths, self.fast).run(lean=True, make=self.make).frames > 0

    def least(self, depths: Mapping[str, Sequence[int]], name: str, k: int) -> int:
        """Return the least depth of a layer's buffer ``k``, the others as they are, with which `moves` still holds."""
        return self.netlist(depths, self.fast).least((name, k), depths[name][k], self.make)

    def latencies(self, depths: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
        """Return the cycles that each buffer takes; 0: none."""
        return tuple(fifo.latency if fifo else 0 for fifos in self._fifos(depths).values() for fifo in fifos)

    def netlist(self, depths: Mapping[str, Sequence[int]], general: bool = False) -> Netlist:
        """Return the handshakes with buffers of these depths, see `keeps`; ``general``: in the same text for any depths."""
        plan = self._plan
        net = Netlist(feed(plan), prod(plan.layers[-1].layer.y.shape), self._under_way, self._gated)
        reads = Counter(source for planned in plan.layers for source in planned.layer.sources)
        ends: dict[str, list[int]] = {}
        fifos = self._fifos(depths)

        def behind(parts: Sequence[Part], *streams: int) -> list[int]:
            given = list(streams)
            for part in parts:
                given = net.add(part, given)
            return given

        def gives(name: str, streams: list[int]) -> None:
            ends[name] = net.add(Fork(reads[name]), streams) if reads[name] > 1 else streams

        gives("", behind([Queue(2)] if self._gated else [], 0))
        for planned, (ways, rest) in zip(plan.layers, self._ways, strict=True):
            name, streams = planned.layer.name, []
            for k, (way, source, fifo) in enumerate(zip(ways, planned.layer.sources, fifos[name], strict=True)):
                held = (fifo.depth, fifo.latency) if fifo else (0, 0)
                given = behind(way, ends[source].pop(0))
                for queue in [AnyQueue(*held)] if general else fifo.handshake if fifo else ():
                    given = net.add(queue, given, (name, k))
                streams += given
            gives(name, behind(rest, *streams))
        behind(self._end, *ends[plan.layers[-1].layer.name])
        return net

    def _fifos(self, depths: Mapping[str, Sequence[int]]) -> dict[str, list[StreamFifo | None]]:
        """Return the buffers in front of each layer."""
        return {p.layer.name: [StreamFifo(shape_of(x.lo, x.hi), p.fold.lanes if isinstance(p.fold, Joining) else p.in_lanes[0],
                                          depth,
                                          technology=self._technology) if depth else None
                               for x, depth in zip(p.layer.xs, depths.get(p.layer.name, (0,)), strict=True)]
                for p in self._plan.layers}
