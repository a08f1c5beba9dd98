"""Stages that pool: the largest element or the sum of windows, or of the whole image."""

import numpy as np
from amaranth.hdl import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from .accelerator import Chain
from .border import Border, Pads
from .common import Block, Cost, Technology, check, check_int, lanes_stream, shape_of
from .handshake import Part, Pipe
from .reduce import Reduce, combine
from .ring import window_layout
from .schedule import Actor, Filter, RingActor
from .shapers import StreamBuffer
from .stage import Requant, deep, pool_actor, pool_blocks
from .window import MemoryWindow

__all__ = ["WindowReduce", "PoolStage", "GlobalPoolStage"]


class WindowReduce(Block):
    """Combine the words of each window into one: the largest values, or the sums.

    Parameters
    ----------
    op : str
        ``"max"`` or ``"sum"``.
    in_range : (int, int)
        Inclusive range of the values.
    lanes, words : int
        Values a word, words a window.

    Members
    -------
    i : stream of `window_layout`
    o : stream of ``lanes`` results of shape `out_shape`, one beat a window

    One word a cycle.
    """

    latency = 1                                          # cycles from a window's last word to its result

    def __init__(self, op: str, in_range: tuple[int, int], *, lanes: int = 1, words: int):
        check(op in ("max", "sum"), f"Op must be 'max' or 'sum', not {op!r}")
        check_int("Lanes", lanes)
        check_int("Words", words)
        check(in_range[0] <= in_range[1], f"Input range must not be empty, not {in_range!r}")
        self.op, self.lanes, self.words = op, lanes, words
        self.in_shape = shape_of(*in_range)
        self.out_range = (in_range[0] * words, in_range[1] * words) if op == "sum" else in_range
        self.out_shape = shape_of(*self.out_range)
        super().__init__({"i": In(stream.Signature(window_layout(self.in_shape, lanes))),
                          "o": Out(lanes_stream(self.out_shape, lanes))})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Pipe(self.latency, marked=True),)

    @property
    def cost(self) -> Cost:
        """Logic cells."""
        return Cost(lc=4 + 2 * self.out_shape.width * self.lanes)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return words (n * words, lanes) as results (n, lanes)."""
        windows = x.reshape(-1, self.words, self.lanes)
        return windows.max(axis=1) if self.op == "max" else windows.sum(axis=1)

    def elaborate(self, platform):
        m = Module()
        first = Signal(init=1)
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid & self.i.p.last)
        with m.If(self.i.valid & self.i.ready):          # a result that waits keeps its words out, so it is the state, too
            m.d.sync += first.eq(self.i.p.last)
            for lane in range(self.lanes):
                value, state = self.i.p.x[lane], self.o.payload[lane]
                m.d.sync += state.eq(combine(self.op, value, state, first))
        return m


class PoolStage(Chain):
    """Largest element or sum of each window, the latter perhaps divided by a requantization.

    Windows side by side (stride = kernel, no border) are combined as they come; others are read from a ring.

    Parameters
    ----------
    op : str
        ``"max"``, whose border never wins, or ``"sum"``, whose border counts zero.
    in_range, lanes, height, width, channels
        Inclusive range of the codes, lanes of the stream, the image.
    kernel, stride : (int, int)
    pads : (top, left, bottom, right)
    requant : Requant, optional
    bits : int
        See `hwq.rtl.requantizer.Requantizer`.
    depth : int
        Words of the ring; 0: as many as the least blocks hold.
    technology : Technology

    Members
    -------
    i : stream of ``lanes`` codes
    o : stream of ``lanes`` results

    Cycles a frame: one a beat of the input, or one for each word of each window; at least `Requantizer.every` for each result.
    """

    def __init__(self, op: str, in_range: tuple[int, int], *, lanes: int = 1, height: int, width: int, channels: int,
                 kernel: tuple[int, int], stride: tuple[int, int], pads: Pads = (0, 0, 0, 0), requant: Requant | None = None,
                 bits: int = 0, depth: int = 0, technology: Technology):
        check(channels % lanes == 0, f"Lanes must divide the {channels} channels, not {lanes!r}")
        words, in_shape = channels // lanes, shape_of(*in_range)
        self.ring: MemoryWindow | None = None
        reduce: Reduce | WindowReduce
        if stride == kernel and not any(pads):
            blocks = pool_blocks(op, in_range, lanes, height, width, channels, kernel, technology)
            reduce = blocks[-1][1]                       # type: ignore[assignment]
            self._side_by_side = height, width, words, kernel
            self.cycles, results = height * width * words, height // kernel[0] * (width // kernel[1]) * words
        else:
            self._border = border = Border.trimmed((height, width), pads, kernel, stride, words=words)
            value = in_range[0] if op == "max" else 0
            x_range = (min(in_range[0], value), max(in_range[1], value)) if any(pads) else in_range     # a zero takes no more bits
            self.ring = window = deep(depth, lambda depth: MemoryWindow(
                in_shape, lanes, height=border.height, width=border.width, channels=channels, kernel=kernel, stride=stride,
                groups=1, parts=words, depth=depth, technology=technology))
            blocks = border.blocks(in_shape, lanes, value, in_shape)
            reduce = WindowReduce(op, x_range, lanes=lanes, words=window.words)
            blocks += [("window", window), ("pool", reduce)]
            self.cycles, results = max(border.cycles, window.cycles), window.rows * window.cols * words
        self.out_lanes, self.out_shape, self._latency, self._every = lanes, reduce.out_shape, 2, 1
        if requant:
            requantizer = requant.block(reduce.out_range, channels, lanes, (words, 1, 1), technology, bits=bits)
            self.out_shape, self._latency = requantizer.out_shape, self._latency + requantizer.latency
            self._every, self.cycles = requantizer.every, max(self.cycles, results * requantizer.every)
            blocks.append(("requantizer", requantizer))
        super().__init__([*blocks, ("buffer", StreamBuffer(self.out_shape, lanes))])

    @property
    def eager(self) -> bool:
        """Whether the first window of a frame lies in the border."""
        return self.ring is not None and not any(self._border.inside[:self.ring.span])

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``, first actor first."""
        if self.ring is None and self._every > 1:
            after = Filter(after, [True], self._latency, self._every)
            return [pool_actor(after, *self._side_by_side), after]
        if self.ring is None:
            return [pool_actor(after, *self._side_by_side, latency=self._latency + 2)]
        w = self.ring
        ring = RingActor(after, self._border.inside, starts=w.starts, span=w.span, capacity=w.capacity, groups=w.sends,
                         group_cycles=w.words, beats=1, every=self._every, latency=self._latency, gap=self._every)
        return [*self._border.actors(ring), ring]


class GlobalPoolStage(Chain):
    """Global average pooling: sums over the image, then the requantizer that divides.

    Parameters
    ----------
    in_range, lanes, pixels, channels, requant, bits, technology
        Inclusive range of the codes, lanes of the stream, pixels of the image, channels, the division, see `Requantizer`.

    Members
    -------
    i : stream of ``lanes`` codes
    o : stream of ``lanes`` results

    Cycles a frame: one a beat of the input, and at least `Requantizer.every` for each result.
    """

    def __init__(self, in_range: tuple[int, int], *, lanes: int = 1, pixels: int, channels: int, requant: Requant,
                 bits: int = 0, technology: Technology):
        check(channels % lanes == 0, f"Lanes must divide the {channels} channels, not {lanes!r}")
        reduce = Reduce("sum", in_range, lanes=lanes, counts=(pixels, channels // lanes), over=(True, False),
                        technology=technology)
        requantizer = requant.block(reduce.out_range, channels, lanes, (channels // lanes, 1, 1), technology, bits=bits)
        self.cycles = max(pixels, requantizer.every) * channels // lanes
        self.out_lanes, self.out_shape = lanes, requantizer.out_shape
        super().__init__([("sum", reduce), ("requantizer", requantizer), ("buffer", StreamBuffer(self.out_shape, lanes))])
        self._loops = pixels, channels // lanes
        self._requantizer, self._latency = requantizer, reduce.latency + requantizer.latency + 1

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``."""
        (pixels, beats), latency, requantizer = self._loops, self._latency, self._requantizer
        actors: list[Actor] = []
        if requantizer.every > 1:
            actors, latency = [Filter(after, [True], requantizer.latency, requantizer.every)], latency - requantizer.latency
        return [Filter(actors[0] if actors else after, [False] * (pixels - 1) * beats + [True] * beats, latency), *actors]
