"""Stages in which branches meet: the buffers of the operands, the addition or concatenation, a requantization."""

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .accelerator import Chain
from .branches import StreamFifo
from .common import Block, Cost, Technology, check, lanes_stream, shape_of
from .handshake import Part
from .join import StreamAdd, StreamConcat
from .requantizer import Requantizer
from .schedule import Actor, Filter
from .schedule_branches import Join
from .shapers import StreamBuffer
from .stage import Requant, gear_actors, gears
from .thresholds import Thresholder

__all__ = ["Joining", "JoinStage", "AddStage", "ConcatStage"]


@dataclass(frozen=True)
class Joining:
    """How a join is laid out in hardware.

    Attributes
    ----------
    lanes : int
        Values a beat.
    depths : tuple of int
        Beats that each operand's buffer holds; empty: not chosen yet.
    scale_bits : int
        See `hwq.rtl.stage.Folding`.
    """

    lanes: int = 1
    depths: tuple[int, ...] = ()
    scale_bits: int = 0


class JoinStage(Block):
    """Base: operands ``i0``, ``i1``, ... through a buffer each into one block, and what follows it.

    Attributes
    ----------
    operands : int
    out_lanes, out_shape
        Lanes and shape of ``o``.
    cycles : int
        Cycles a frame: one a beat of the output, or as the requantization has them.
    """

    requantizer: Requantizer | Thresholder | None = None

    def __init__(self, x_ranges: Sequence[tuple[int, int]], in_lanes: Sequence[int], join: Joining, meet: Block, behind: list,
                 turns: list[tuple[int, ...]], latency: int, technology: Technology):
        self.operands, self.out_lanes, self.join = len(x_ranges), join.lanes, join
        shapes = [shape_of(*r) for r in x_ranges]
        self.fifos = [StreamFifo(shape, join.lanes, depth, technology=technology)
                      for shape, depth in zip(shapes, join.depths or (1,) * len(shapes), strict=True)]
        self._gears = [(lanes, join.lanes) for lanes in in_lanes]
        self._before = [Chain([*gears(shape, *lanes), ("fifo", fifo)])
                        for shape, lanes, fifo in zip(shapes, self._gears, self.fifos, strict=True)]
        self.meet, self._behind = meet, Chain([*behind, ("buffer", StreamBuffer(self.out_shape, join.lanes))])
        self._turns, self._latency = turns, latency
        super().__init__({**{f"i{k}": In(lanes_stream(shape, lanes))
                             for k, (shape, lanes) in enumerate(zip(shapes, in_lanes, strict=True))},
                          "o": Out(lanes_stream(self.out_shape, join.lanes))})

    @property
    def cost(self) -> Cost:
        """Sum of the blocks."""
        return sum((chain.cost for chain in (*self._before, self._behind)), self.meet.cost)

    def elaborate(self, platform):
        m = Module()
        m.submodules.meet, m.submodules.behind = self.meet, self._behind
        for k, chain in enumerate(self._before):
            m.submodules[f"operand{k}"] = chain
            wiring.connect(m, wiring.flipped(getattr(self, f"i{k}")), chain.i)
            wiring.connect(m, chain.o, getattr(self.meet, f"i{k}"))
        wiring.connect(m, self.meet.o, self._behind.i)
        wiring.connect(m, self._behind.o, wiring.flipped(self.o))
        return m

    @property
    def handshakes(self) -> tuple[list[tuple[Part, ...]], tuple[Part, ...]]:
        """The parts of each operand's way to its buffer, and those behind the buffers; see `Block.handshake`."""
        before = [tuple(part for named in chain.blocks[:-1] for part in named.block.handshake) for chain in self._before]   # type: ignore[attr-defined]
        return before, (*self.meet.handshake, *self._behind.handshake)                                       # type: ignore[attr-defined]

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model in front of ``after``: what takes the operands' beats first, in order."""
        latency = self._latency
        if self.requantizer and self.requantizer.every > 1:
            latency -= self.requantizer.latency
            after = Filter(after, [True], self.requantizer.latency, self.requantizer.every)
        join = Join(Filter(after, [True], latency), self.operands, self._turns)
        rows = [[*gear_actors(operand, *lanes), operand] for operand, lanes in zip(join.operands, self._gears, strict=True)]
        return [*(row[0] for row in rows), *(actor for row in rows for actor in row[1:])]


class AddStage(JoinStage):
    """Sum of two streams, each times a constant, and its requantization.

    Parameters
    ----------
    x_ranges : two (int, int)
        Inclusive range of each operand.
    mult : (int, int)
    requant : Requant, optional
    pixels, channels : int
        Of the image.
    in_lanes : two int
        Lanes of each operand's stream.
    join : Joining
    technology : Technology

    Members
    -------
    i0, i1 : streams of the operands' lanes
    o : stream of ``join.lanes`` results
    """

    def __init__(self, x_ranges: Sequence[tuple[int, int]], *, mult: tuple[int, int], requant: Requant | None, pixels: int,
                 channels: int,
                 in_lanes: Sequence[int], join: Joining, technology: Technology):
        check(channels % join.lanes == 0, f"Lanes must divide the {channels} channels, not {join.lanes!r}")
        add = StreamAdd(x_ranges, mult, join.lanes)
        beats = channels // join.lanes
        self.cycles, self.out_shape = pixels * beats, add.out_shape
        behind: list[tuple[str, Block]] = []
        latency = add.latency + 1
        if requant is not None:
            self.requantizer = requantizer = requant.block(add.out_range, channels, join.lanes, (beats, 1, 1), technology,
                                                           bits=join.scale_bits)
            behind, latency, self.out_shape = [("requantizer", requantizer)], latency + requantizer.latency, requantizer.out_shape
            self.cycles *= requantizer.every
        super().__init__(x_ranges, in_lanes, join, add, behind, [(0, 1)], latency, technology)


class ConcatStage(JoinStage):
    """Channels of several streams behind each other, pixel by pixel.

    Parameters
    ----------
    x_ranges : sequence of (int, int)
        Inclusive range of each operand.
    pixels : int
    channels : sequence of int
        Of each operand.
    in_lanes : sequence of int
        Lanes of each operand's stream.
    join : Joining
    technology : Technology

    Members
    -------
    i0, i1, ... : streams of the operands' lanes
    o : stream of ``join.lanes`` values
    """

    def __init__(self, x_ranges: Sequence[tuple[int, int]], *, pixels: int, channels: Sequence[int], in_lanes: Sequence[int],
                 join: Joining, technology: Technology):
        check(all(count % join.lanes == 0 for count in channels),
              f"Lanes must divide the channels {tuple(channels)}, not {join.lanes!r}")
        beats = [count // join.lanes for count in channels]
        self.cycles = pixels * sum(beats)
        self.out_shape = shape_of(min(low for low, _ in x_ranges), max(high for _, high in x_ranges))
        meet = StreamConcat([shape_of(*r) for r in x_ranges], self.out_shape, join.lanes, beats)
        super().__init__(x_ranges, in_lanes, join, meet, [], [(k,) for k, count in enumerate(beats) for _ in range(count)], 1,
                         technology)
