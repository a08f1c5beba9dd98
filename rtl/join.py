"""Blocks in which streams meet: `StreamAdd` sums two, `StreamConcat` puts channels side by side."""

from collections.abc import Sequence

import numpy as np
from amaranth.hdl import Module, Shape, Signal
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, check, check_int, lanes_stream, shape_of
from .handshake import Meet, Part, Pipe, Turns
from .loops import LoopNest
from .sharing import share
from .wired import AdderNetwork

__all__ = ["StreamAdd", "StreamConcat"]


class StreamAdd(Block):
    """``mult[0] * i0 + mult[1] * i1`` by constant multipliers: an adder graph a lane.

    Parameters
    ----------
    ranges : two (int, int)
        Inclusive range of each operand.
    mult : (int, int)
    lanes : int
        Lanes a beat.

    Members
    -------
    i0, i1 : streams of ``lanes`` values; a beat of each is taken in the same cycle
    o : stream of ``lanes`` sums of `out_range`

    One beat a cycle.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]], mult: tuple[int, int], lanes: int = 1):
        check_int("Lanes", lanes)
        for low, high in ranges:
            check(low <= high, f"Range must not be empty, not {(low, high)!r}")
        check(len(ranges) == len(mult) == 2, f"An addition has 2 operands, not {len(ranges)}")
        self.ranges, self.mult, self.lanes = tuple(ranges), tuple(mult), lanes
        self.network = AdderNetwork(share(np.array([mult], np.int64), list(ranges)), every=1, exact=True)
        ends = [sorted((low * m, high * m)) for (low, high), m in zip(ranges, mult, strict=True)]
        self.out_range = ends[0][0] + ends[1][0], ends[0][1] + ends[1][1]
        self.out_shape = shape_of(*self.out_range)
        self.latency = self.network.latency
        super().__init__({**{f"i{k}": In(lanes_stream(shape_of(*r), lanes)) for k, r in enumerate(ranges)},
                          "o": Out(lanes_stream(self.out_shape, lanes))})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Meet(), Pipe(self.latency))

    @property
    def cost(self) -> Cost:
        """Logic cells of the adder graphs and the valid bits."""
        return Cost(lc=4 + self.latency + self.lanes * self.network.cost.lc)

    def model(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the sums."""
        return a.astype(np.int64) * self.mult[0] + b.astype(np.int64) * self.mult[1]

    def elaborate(self, platform):
        m = Module()
        both, en, valid = Signal(), Signal(), Signal(self.latency)
        m.d.comb += [both.eq(self.i0.valid & self.i1.valid), en.eq(~self.o.valid | self.o.ready), self.o.valid.eq(valid[-1]),
                     self.i0.ready.eq(en & self.i1.valid), self.i1.ready.eq(en & self.i0.valid)]
        with m.If(en):
            m.d.sync += valid.eq(valid << 1 | both)
        for lane in range(self.lanes):
            m.submodules[f"sum{lane}"] = network = AdderNetwork(self.network.graph, every=1, exact=True)
            m.d.comb += [network.en.eq(en), network.x0.eq(self.i0.payload[lane]), network.x1.eq(self.i1.payload[lane]),
                         self.o.payload[lane].eq(network.y0)]
        return m


class StreamConcat(Block):
    """The channels of several streams behind each other, pixel by pixel.

    Parameters
    ----------
    shapes : sequence of Shape
        Of one lane of each operand.
    out_shape : Shape
        Of one lane of ``o``; holds all of ``shapes``.
    lanes : int
        Lanes a beat.
    beats : sequence of int
        Beats a pixel of each operand.

    Members
    -------
    i0, i1, ... : streams of ``lanes`` values
    o : stream of ``lanes`` values; combinational from the operand whose turn it is
    """

    latency = 0

    def __init__(self, shapes: Sequence[Shape], out_shape: Shape, lanes: int, beats: Sequence[int]):
        check_int("Lanes", lanes)
        for count in beats:
            check_int("Beats", count)
        check(len(shapes) == len(beats) >= 2, f"A concatenation has 2 or more operands, not {len(beats)}")
        self.shapes, self.out_shape, self.lanes, self.beats = tuple(shapes), out_shape, lanes, tuple(beats)
        super().__init__({**{f"i{k}": In(lanes_stream(s, lanes)) for k, s in enumerate(shapes)},
                          "o": Out(lanes_stream(out_shape, lanes))})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Turns([k for k, count in enumerate(self.beats) for _ in range(count)]),)

    @property
    def cost(self) -> Cost:
        """Logic cells."""
        return Cost(lc=4 + 2 * sum(self.beats).bit_length() + (len(self.beats) - 1) * (1 + self.out_shape.width * self.lanes))

    def model(self, *xs: np.ndarray) -> np.ndarray:
        """Return beats (n, lanes) of every operand as the beats of ``o``."""
        pixels = [x.reshape(-1, count * self.lanes) for x, count in zip(xs, self.beats, strict=True)]
        return np.concatenate(pixels, axis=1).reshape(-1, self.lanes)

    def elaborate(self, platform):
        m = Module()
        turn, moves, done = Signal(range(len(self.beats))), Signal(), Signal()
        m.d.comb += moves.eq(self.o.valid & self.o.ready)
        with m.Switch(turn):
            for k, count in enumerate(self.beats):
                operand = getattr(self, f"i{k}")
                m.submodules[f"count{k}"] = counter = LoopNest([count])
                with m.Case(k):
                    m.d.comb += [self.o.valid.eq(operand.valid), operand.ready.eq(self.o.ready), counter.en.eq(moves),
                                 done.eq(moves & counter.last[0])]
                    m.d.comb += [out.eq(lane) for out, lane in zip(self.o.payload, operand.payload, strict=True)]
                    with m.If(done):
                        m.d.sync += turn.eq((k + 1) % len(self.beats))
        return m
