"""The largest of a frame's values, by their places: argmax and top-k."""

import numpy as np
from amaranth.hdl import Const, Module, Mux, Shape, Signal
from amaranth.lib.wiring import In, Out

from .accelerator import Chain
from .common import Block, Cost, check, check_int, lanes_stream, shape_of
from .handshake import Part, Pipe
from .loops import LoopNest
from .schedule import Actor, Filter
from .stage import gear_actors, gears

__all__ = ["TopK", "RankStage"]


class TopK(Block):
    """Indices of the ``k`` largest of ``count`` values that come one a beat, largest first; of equals the lowest index first.

    Parameters
    ----------
    in_range : (int, int)
        Inclusive range of the values.
    count : int
        Values a frame, at least 2.
    k : int
        At most ``count``.

    Members
    -------
    i : stream of one value
    o : stream of ``k`` indices, one beat a frame
    """

    latency = 1

    def __init__(self, in_range: tuple[int, int], count: int, k: int = 1):
        check_int("Count", count, 2)
        check_int("K", k)
        check(k <= count, f"K must be at most the {count} values, not {k!r}")
        check(in_range[0] <= in_range[1], f"Input range must not be empty, not {in_range!r}")
        self.in_range, self.count, self.k = in_range, count, k
        self.out_shape = Shape((count - 1).bit_length())
        super().__init__({"i": In(lanes_stream(shape_of(*in_range), 1)), "o": Out(lanes_stream(self.out_shape, k))})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Pipe(self.latency, [False] * (self.count - 1) + [True]),)

    @property
    def cost(self) -> Cost:
        """Logic cells."""
        return Cost(lc=10 + 2 * self.out_shape.width + self.k * (3 * shape_of(*self.in_range).width + 2 * self.out_shape.width))

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return frames of values (n, count) as indices (n, k)."""
        return np.argsort(-x, axis=1, kind="stable")[:, :self.k]

    def actor(self, after: Actor) -> Actor:
        """Return the event model of the block in front of ``after``."""
        return Filter(after, [False] * (self.count - 1) + [True], self.latency)

    def elaborate(self, platform):
        m = Module()
        m.submodules.loops = loops = LoopNest([self.count])
        value, index, first = self.i.payload[0], Signal(self.out_shape), loops.first[0]
        m.d.comb += [self.i.ready.eq(~self.o.valid | self.o.ready), loops.en.eq(self.i.valid & self.i.ready)]
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid & loops.last[0])
        with m.If(loops.en):
            m.d.sync += index.eq(Mux(loops.last[0], 0, index + 1))
        # Places in order, insertion sort: the value takes the first that it beats, and those behind move on.
        filled, beaten, before = ~first, Const(0, 1), (value, index)
        for place in range(self.k):
            best = Signal(value.shape(), name=f"best{place}", reset_less=True)
            at = self.o.payload[place]
            beats = Signal(name=f"beats{place}")
            m.d.comb += beats.eq(~filled | (value > best))
            with m.If(loops.en & beats):
                m.d.sync += [best.eq(Mux(beaten, before[0], value)), at.eq(Mux(beaten, before[1], index))]
            follows = Signal(name=f"filled{place}")
            with m.If(loops.en):
                m.d.sync += follows.eq(filled)
            filled, beaten, before = follows & ~first, beats, (best, at)
        return m


class RankStage(Chain):
    """Indices of the ``k`` largest of a frame's values, which come ``lanes`` a beat.

    Parameters
    ----------
    in_range, lanes, count, k
        Inclusive range of the values, lanes of the stream, values a frame, places.

    Members
    -------
    i : stream of ``lanes`` values
    o : stream of ``k`` indices

    Cycles a frame: one a value.
    """

    def __init__(self, in_range: tuple[int, int], *, lanes: int = 1, count: int, k: int = 1):
        self.cycles, self.out_lanes, self._lanes = count, k, lanes
        self._largest = TopK(in_range, count, k)
        self.out_shape = self._largest.out_shape
        super().__init__([*gears(shape_of(*in_range), lanes, 1), ("largest", self._largest)])

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``."""
        largest = self._largest.actor(after)
        return [*gear_actors(largest, self._lanes, 1), largest]
