"""Stages that move codes and compute nothing: a border, enlargement, some of the channels, another number of lanes."""

from collections.abc import Sequence

import numpy as np
from amaranth.hdl import Module, Mux, Shape, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from .accelerator import Chain
from .border import Border, Pads
from .common import Block, Cost, Technology, check, check_int, lanes_stream, shape_of
from .handshake import Crop, Part
from .ring import Ring, window_layout
from .schedule import Actor, Filter, PadActor, RingActor
from .shapers import StreamBuffer
from .stage import deep, gear_actors, gears

__all__ = ["PadStage", "Repeat", "UpsampleStage", "Select", "SelectStage", "whole_lanes", "GearedStage"]


class PadStage(Chain):
    """A border of a constant code, or a crop.

    Parameters
    ----------
    x_range, lanes, height, width, channels
        Inclusive range of the codes, lanes of the stream, the image.
    pads : (top, left, bottom, right)
        Below 0: pixels of the image that are left out.
    value : int
        Code of the border; may lie outside ``x_range``.

    Members
    -------
    i, o : streams of ``lanes`` codes

    Cycles a frame: one a beat of the output or of the input, see `Border.cycles`.
    """

    def __init__(self, x_range: tuple[int, int], *, lanes: int = 1, height: int, width: int, channels: int, pads: Pads, value: int):
        check(channels % lanes == 0, f"Lanes must divide the {channels} channels, not {lanes!r}")
        check(any(pads), "Padding must not be empty")
        self._border = Border.of((height, width), pads, channels // lanes)
        self.cycles, self.out_lanes = self._border.cycles, lanes
        self.out_shape = shape_of(min(x_range[0], value), max(x_range[1], value)) if max(pads) > 0 else shape_of(*x_range)
        super().__init__([*self._border.blocks(shape_of(*x_range), lanes, value, self.out_shape),
                          ("buffer", StreamBuffer(self.out_shape, lanes))])

    @property
    def eager(self) -> bool:
        """Whether the border comes before the first code of the frame."""
        return not self._border.inside[0]

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``."""
        if not any(self._border.pads):
            return [Filter(after, self._border.gives, 1)]
        pad = PadActor(after, self._border.inside)
        return [*self._border.actors(pad), pad]


class Repeat(Ring):
    """Send every pixel ``factor[1]`` times in a row and every row ``factor[0]`` times: nearest-neighbour enlargement.

    Parameters
    ----------
    shape : Shape
        Of one code.
    lanes, height, width, words : int
        Codes a beat; the image in pixels; beats a pixel.
    factor : (int, int)
        Vertical, horizontal.
    depth, technology
        See `Ring`. It holds rows, or pixels where rows are sent once.

    Members
    -------
    i : stream of ``lanes`` codes
    o : stream of `window_layout`; ``last`` is always set

    Cycles a frame: one a beat of the output.
    """

    def __init__(self, shape: Shape, lanes: int, *, height: int, width: int, words: int, factor: tuple[int, int],
                 depth: int | None = None, technology: Technology):
        for name, number in (("Lanes", lanes), ("Height", height), ("Width", width), ("Words", words),
                             ("Factor", factor[0]), ("Factor", factor[1])):
            check_int(name, number)
        self.height, self.width, self.words, self.factor = height, width, words, factor
        row = width * words
        outer, loops = ((height, row), (width, words)), ((factor[1], 0), (words, 1))
        if factor[0] > 1:
            outer, loops = ((height, row), (1, 0)), ((factor[0], 0), (width, words), *loops)      # type: ignore[assignment]
        super().__init__(shape, lanes, frame=height * row, outer=outer, loops=loops, span=row if factor[0] > 1 else words,
                         mark=len(loops), depth=depth, technology=technology)

    @property
    def cost(self) -> Cost:
        """Logic cells of the counters and addresses; the ring's blocks."""
        return Cost(lc=20 + 5 * self.depth.bit_length() + 8 * self._extra_loops,
                    ebr=self.technology.blocks(self.shape.width * self.lanes, self.depth))

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return frames of beats (n, height * width * words, lanes) enlarged."""
        image = x.reshape(-1, self.height, self.width, self.words * self.lanes)
        return image.repeat(self.factor[0], axis=1).repeat(self.factor[1], axis=2).reshape(len(image), -1, self.lanes)


class _Unmark(Block):
    """Drop the mark of a window word."""

    def __init__(self, shape: Shape, lanes: int):
        super().__init__({"i": In(stream.Signature(window_layout(shape, lanes))), "o": Out(lanes_stream(shape, lanes))})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return ()

    @property
    def cost(self) -> Cost:
        """Nothing."""
        return Cost()

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.o.payload.eq(self.i.p.x), self.o.valid.eq(self.i.valid), self.i.ready.eq(self.o.ready)]
        return m


class UpsampleStage(Chain):
    """Nearest-neighbour enlargement by integer factors.

    Parameters
    ----------
    x_range, lanes, height, width, channels
        Inclusive range of the codes, lanes of the stream, the image.
    factor : (int, int)
    depth : int
        Words of the ring; 0: as many as the least blocks hold.
    technology : Technology

    Members
    -------
    i, o : streams of ``lanes`` codes

    Cycles a frame: one a beat of the output.
    """

    def __init__(self, x_range: tuple[int, int], *, lanes: int = 1, height: int, width: int, channels: int, factor: tuple[int, int],
                 depth: int = 0, technology: Technology):
        check(channels % lanes == 0, f"Lanes must divide the {channels} channels, not {lanes!r}")
        self.out_lanes, self.out_shape = lanes, shape_of(*x_range)
        self.ring = deep(depth, lambda depth: Repeat(self.out_shape, lanes, height=height, width=width, words=channels // lanes,
                                                     factor=factor, depth=depth, technology=technology))
        self.cycles = self.ring.cycles
        super().__init__([("repeat", self.ring), ("unmark", _Unmark(self.out_shape, lanes)),
                          ("buffer", StreamBuffer(self.out_shape, lanes))])

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``."""
        ring = self.ring
        words = ring.cycles // len(ring.starts)
        return [RingActor(after, [True] * (ring.height * ring.width * ring.words), starts=ring.starts, span=ring.span,
                          capacity=ring.capacity, groups=words, group_cycles=1, beats=1, latency=1, gap=1)]


class Select(Block):
    """Let some beats of every pixel through, and swallow the others.

    Parameters
    ----------
    shape : Shape
        Of one lane.
    lanes : int
        Lanes a beat.
    keep : sequence of bool
        Whether each beat of a pixel goes on; some do and some do not.

    Members
    -------
    i, o : streams of ``lanes`` values; combinational from ``i`` to ``o``

    A beat a cycle comes in.
    """

    latency = 0

    def __init__(self, shape: Shape, lanes: int, keep: Sequence[bool]):
        check_int("Lanes", lanes)
        check(any(keep) and not all(keep), "Some of a pixel's beats must go on, and some not")
        self.shape, self.lanes, self.keep = shape, lanes, tuple(bool(each) for each in keep)
        super().__init__({"i": In(lanes_stream(shape, lanes)), "o": Out(lanes_stream(shape, lanes))})

    @property
    def _turns(self) -> list[int]:
        """Return the beats whose follower in the stream has another fate."""
        return [k for k, each in enumerate(self.keep) if each != self.keep[(k + 1) % len(self.keep)]]

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Crop(self.keep),)

    @property
    def cost(self) -> Cost:
        """Logic cells of the counter and of what compares with it."""
        bits = (len(self.keep) - 1).bit_length()
        return Cost(lc=5 + 2 * bits + min(len(self._turns) * (1 + bits // 4), 1 << max(bits - 3, 0)))

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return beats (n, lanes), those of whole pixels, without the ones that are swallowed."""
        return x.reshape(-1, len(self.keep), self.lanes)[:, list(self.keep)].reshape(-1, self.lanes)

    def elaborate(self, platform):
        m = Module()
        index, inside = Signal(range(len(self.keep))), Signal(init=self.keep[0])     # a register: no comparator in the stream's way
        m.d.comb += [self.o.valid.eq(self.i.valid & inside), self.i.ready.eq(self.o.ready | ~inside),
                     self.o.payload.eq(self.i.payload)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += index.eq(Mux(index == len(self.keep) - 1, 0, index + 1))
            with m.Switch(index), m.Case(*self._turns):
                m.d.sync += inside.eq(~inside)
        return m


def whole_lanes(chosen: np.ndarray, lanes: int) -> int:
    """Return the most lanes, a divisor of ``lanes``, with which every beat is chosen as a whole or not at all."""
    return next(d for d in range(lanes, 0, -1) if lanes % d == 0 and len(np.unique(chosen // d)) * d == len(chosen))


class SelectStage(Chain):
    """Some of the channels.

    Parameters
    ----------
    x_range, lanes, channels
        Inclusive range of the codes, lanes of the stream (see `whole_lanes`), channels that come in.
    pixels : int
    chosen : int array
        Channels that go on, ascending.

    Members
    -------
    i, o : streams of ``lanes`` codes

    Cycles a frame: one a beat of the input.
    """

    def __init__(self, x_range: tuple[int, int], *, lanes: int = 1, pixels: int, channels: int, chosen: np.ndarray):
        check(channels % lanes == 0 and whole_lanes(chosen, lanes) == lanes,
              f"Lanes must divide the channels into beats that are chosen whole, not {lanes!r}")
        self._keep = np.isin(np.arange(0, channels, lanes), chosen).tolist()
        self.cycles, self.out_lanes, self.out_shape = pixels * len(self._keep), lanes, shape_of(*x_range)
        super().__init__([("select", Select(self.out_shape, lanes, self._keep)), ("buffer", StreamBuffer(self.out_shape, lanes))])

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``."""
        return [Filter(after, self._keep, 1)]


class GearedStage(Chain):
    """A stage of fewer lanes than its stream has.

    Parameters
    ----------
    shape : Shape
        Of what comes in.
    in_lanes, lanes : int
        Lanes of the stream, and of the stage, which divide them.
    stage : Chain
        One stream in, one out.

    Members
    -------
    i : stream of ``in_lanes`` values
    o : the stage's

    Cycles a frame: the stage's.
    """

    def __init__(self, shape: Shape, in_lanes: int, lanes: int, stage: Chain):
        check(in_lanes % lanes == 0 and in_lanes > lanes,
              f"Lanes must be fewer than the stream's {in_lanes} and divide them, not {lanes!r}")
        self._stage, self._lanes = stage, (in_lanes, lanes)
        self.cycles, self.out_shape = stage.cycles, stage.out_shape                         # type: ignore[attr-defined]
        self.out_lanes, self.ring, self.eager = (getattr(stage, name, default)
                                                 for name, default in (("out_lanes", 1), ("ring", None), ("eager", False)))
        super().__init__([*gears(shape, in_lanes, lanes), ("stage", stage)])

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``, first actor first."""
        mine: list[Actor] = self._stage.actors(after)                                       # type: ignore[attr-defined]
        return [*gear_actors(mine[0], *self._lanes), *mine]
