"""Blocks that reshape a stream and change no value: buffer, width converter, padder, cropper."""

from math import gcd

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Shape, Signal
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, check, check_int, lanes_stream
from .handshake import Crop, Gather, Pad, Part, Queue, Scatter
from .loops import LoopNest

__all__ = ["StreamBuffer", "WidthConverter", "Padder", "Cropper", "cropped"]


class StreamBuffer(Block):
    """Two-word buffer that cuts every path between its two sides, ready included; full rate, latency 1 cycle.

    Parameters
    ----------
    shape : Shape
        Of one lane.
    lanes : int
        Lanes a beat.

    Members
    -------
    i, o : streams of ``lanes`` values
    """

    latency = 1

    def __init__(self, shape: Shape, lanes: int = 1):
        check_int("Lanes", lanes)
        self.shape, self.lanes = shape, lanes
        super().__init__({"i": In(lanes_stream(shape, lanes)), "o": Out(lanes_stream(shape, lanes))})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Queue(2),)

    @property
    def cost(self) -> Cost:
        """Logic cells."""
        return Cost(lc=3 + 2 * self.shape.width * self.lanes)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return the stream unchanged."""
        return x

    def elaborate(self, platform):
        m = Module()
        bits = self.shape.width * self.lanes
        spare, full = Signal(bits, reset_less=True), Signal()
        source = self.i.payload.as_value()
        m.d.comb += self.i.ready.eq(~full)
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [self.o.valid.eq(full | self.i.valid), full.eq(0),
                         self.o.payload.as_value().eq(Mux(full, spare, source))]
        with m.Elif(self.i.valid & ~full):
            m.d.sync += full.eq(1)
        with m.If(~full):
            m.d.sync += spare.eq(source)
        return m


class WidthConverter(Block):
    """Gather or scatter lanes, order kept: ``lanes_in`` values a beat to ``lanes_out``.

    Parameters
    ----------
    shape : Shape
        Of one lane.
    lanes_in, lanes_out : int
        One must divide the other.
    relaxed : bool
        Take the next beat only in the cycle after the last part has left: one cycle more a beat of the wider side, and no
        path from ``o.ready`` to ``i.ready``.

    Members
    -------
    i : stream of ``lanes_in`` values
    o : stream of ``lanes_out`` values
    """

    latency = 1

    def __init__(self, shape: Shape, lanes_in: int, lanes_out: int, *, relaxed: bool = False):
        self.relaxed = relaxed
        check_int("Input lanes", lanes_in)
        check_int("Output lanes", lanes_out)
        check(gcd(lanes_in, lanes_out) in (lanes_in, lanes_out),
              f"One of the lanes must divide the other, not {lanes_in} and {lanes_out}")
        self.shape, self.lanes_in, self.lanes_out = shape, lanes_in, lanes_out
        super().__init__({"i": In(lanes_stream(shape, lanes_in)), "o": Out(lanes_stream(shape, lanes_out))})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Gather(self.lanes_out // self.lanes_in, self.relaxed) if self.lanes_in <= self.lanes_out
                else Scatter(self.lanes_in // self.lanes_out, self.relaxed),)

    @property
    def cost(self) -> Cost:
        """Logic cells."""
        more = self.lanes_in // self.lanes_out if self.lanes_in > self.lanes_out else 4
        return Cost(lc=2 + more + self.shape.width * max(self.lanes_in, self.lanes_out))

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return beats (n, lanes_in) as beats (n * lanes_in / lanes_out, lanes_out)."""
        return x.reshape(-1, self.lanes_out)

    def elaborate(self, platform):
        m = Module()
        ratio = max(self.lanes_in, self.lanes_out) // min(self.lanes_in, self.lanes_out)
        narrow = self.shape.width * min(self.lanes_in, self.lanes_out)
        store = Signal(narrow * ratio, reset_less=True)
        source = self.i.payload.as_value()
        if self.lanes_in <= self.lanes_out:
            count = Signal(range(ratio + 1))             # beats in the store
            full = Signal()
            m.d.comb += [self.o.valid.eq(full), self.i.ready.eq(~full if self.relaxed else ~full | self.o.ready),
                         self.o.payload.as_value().eq(store)]
            with m.If(self.i.valid & self.i.ready):
                m.d.sync += [store.eq(Cat(store, source)[narrow:]), count.eq(Mux(full, 1, count + 1)),
                             full.eq(Mux(full, ratio == 1, count == ratio - 1))]
            with m.Elif(full & self.o.ready):
                m.d.sync += [count.eq(0), full.eq(0)]
        else:
            left = Signal(ratio)                         # a one for every part in the store, from the bottom
            m.d.comb += [self.o.valid.eq(left[0]),
                         self.i.ready.eq(~left[0] if self.relaxed else ~left[0] | (~left[1] & self.o.ready)),
                         self.o.payload.as_value().eq(store[:narrow])]
            with m.If(self.i.valid & self.i.ready):
                m.d.sync += [store.eq(source), left.eq(~0)]
            with m.Elif(self.o.ready):
                m.d.sync += [store.eq(store >> narrow), left.eq(left >> 1)]
        return m


def _within(m: Module, loops: LoopNest, name: str, level: int, count: int, low: int, size: int) -> Signal:
    """Return whether the index of a loop of ``count`` lies in ``low .. low + size - 1``.

    A register, so that no comparator stands in the stream's way.
    """
    index, inside = Signal(range(count), name=name), Signal(init=low == 0, name=f"{name}_inside")
    with m.If(loops.en & loops.last[level + 1]):
        m.d.sync += index.eq(Mux(loops.last[level], 0, index + 1))
        with m.If(loops.last[level]):
            m.d.sync += inside.eq(low == 0)
        with m.Elif(index == low + size - 1):
            m.d.sync += inside.eq(0)
        with m.Elif(index == low - 1):
            m.d.sync += inside.eq(1)
    return inside


class Padder(Block):
    """Put a border around every image of the stream, in raster order.

    Parameters
    ----------
    shape : Shape
        Of one lane.
    out_shape : Shape, optional
        Of one lane of ``o``, where the border's code needs more than ``shape``; holds all of ``shape``.
    lanes : int
        Lanes a beat.
    height, width : int
        Pixels of the image without border.
    words : int
        Beats a pixel.
    pads : (top, left, bottom, right)
        Pixels.
    value : int
        Code of the border.

    Members
    -------
    i, o : streams of ``lanes`` values; combinational from ``i`` to ``o``

    A frame takes ``(height + top + bottom) * (width + left + right) * words`` cycles.
    """

    latency = 0

    def __init__(self, shape: Shape, lanes: int, *, height: int, width: int, words: int,
                 pads: tuple[int, int, int, int], value: int = 0, out_shape: Shape | None = None):
        out_shape = out_shape or shape
        for name, number in (("Lanes", lanes), ("Height", height), ("Width", width), ("Words", words)):
            check_int(name, number)
        for pad in pads:
            check_int("Padding", pad, 0)
        low, high = ((-(1 << out_shape.width - 1), (1 << out_shape.width - 1) - 1) if out_shape.signed
                     else (0, (1 << out_shape.width) - 1))
        check(low <= value <= high, f"Padding value must lie in {low}..{high}, not {value!r}")
        self.shape, self.lanes, self.height, self.width, self.words = shape, lanes, height, width, words
        self.pads, self.value = tuple(pads), value
        super().__init__({"i": In(lanes_stream(shape, lanes)), "o": Out(lanes_stream(out_shape, lanes))})

    @property
    def cycles(self) -> int:
        """Cycles a frame."""
        top, left, bottom, right = self.pads
        return (self.height + top + bottom) * (self.width + left + right) * self.words

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        top, left, bottom, right = self.pads
        return (Pad([top <= y < top + self.height and left <= x < left + self.width
                     for y in range(top + self.height + bottom) for x in range(left + self.width + right)
                     for _ in range(self.words)]),)

    @property
    def cost(self) -> Cost:
        """Logic cells."""
        return Cost(lc=30 + self.shape.width * self.lanes)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return frames of beats (n, height * width * words, lanes) with the border."""
        top, left, bottom, right = self.pads
        image = x.reshape(-1, self.height, self.width, self.words * self.lanes)
        padded = np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=self.value)
        return padded.reshape(len(padded), -1, self.lanes)

    def elaborate(self, platform):
        m = Module()
        top, left, bottom, right = self.pads
        rows, cols = self.height + top + bottom, self.width + left + right
        m.submodules.loops = loops = LoopNest([rows, cols, self.words])
        inside = Signal()
        m.d.comb += inside.eq(_within(m, loops, "row", 0, rows, top, self.height)
                              & _within(m, loops, "col", 1, cols, left, self.width))
        m.d.comb += [self.o.valid.eq(self.i.valid | ~inside), self.i.ready.eq(self.o.ready & inside),
                     loops.en.eq(self.o.valid & self.o.ready)]
        for lane in range(self.lanes):
            m.d.comb += self.o.payload[lane].eq(Mux(inside, self.i.payload[lane], self.value))
        return m


def cropped(size: tuple[int, int], words: int, keep: tuple[int, int], first: tuple[int, int], late: bool) -> list[bool]:
    """Return whether each beat of an image lets one go on; see `Cropper`."""
    (top, left), (height, width) = first, keep
    kept = [top <= y < top + height and left <= x < left + width
            for y in range(size[0]) for x in range(size[1]) for _ in range(words)]
    if late:
        kept[kept.index(True)], kept[-1] = False, True
    return kept


class Cropper(Block):
    """Keep a part of every image of the stream, and swallow the rest.

    Parameters
    ----------
    shape : Shape
        Of one lane.
    lanes : int
        Lanes a beat.
    height, width, words : int
        Image in pixels, beats a pixel.
    keep : (int, int)
        Rows and columns kept.
    first : (int, int)
        Row and column with which they begin.
    late : bool
        Every beat goes on when the next one comes that is kept, the last one with the end of the image, of which it is no part:
        so no result is complete before its frame is. Else it would wait at the core's end, and what a border puts in front of the
        next frame behind it.

    Members
    -------
    i, o : streams of ``lanes`` values; combinational from ``i`` to ``o``
    """

    latency = 0

    def __init__(self, shape: Shape, lanes: int, *, height: int, width: int, words: int, keep: tuple[int, int],
                 first: tuple[int, int] = (0, 0), late: bool = False):
        for name, number in (("Lanes", lanes), ("Height", height), ("Width", width), ("Words", words)):
            check_int(name, number)
        check(all(k >= 1 and at >= 0 and at + k <= size for k, at, size in zip(keep, first, (height, width), strict=True)),
              f"Kept part must lie inside {height}x{width}, not {keep!r} from {first!r} on")
        self.shape, self.lanes, self.height, self.width, self.words = shape, lanes, height, width, words
        self.keep, self.first, self.late = keep, first, late
        check(not late or (first[0] + keep[0], first[1] + keep[1]) != (height, width),
              "What is kept late must end before its image")
        super().__init__({"i": In(lanes_stream(shape, lanes)), "o": Out(lanes_stream(shape, lanes))})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Crop(cropped((self.height, self.width), self.words, self.keep, self.first, self.late)),)

    @property
    def cost(self) -> Cost:
        """Logic cells."""
        rows, cols, words = ((count - 1).bit_length() for count in (self.height, self.width, self.words))
        return Cost(lc=15 + 5 * (rows + cols) + 2 * words + self.late * self.shape.width * self.lanes)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return frames of beats (n, height * width * words, lanes) cropped."""
        image, (top, left) = x.reshape(-1, self.height, self.width, self.words * self.lanes), self.first
        return image[:, top:top + self.keep[0], left:left + self.keep[1]].reshape(len(image), -1, self.lanes)

    def elaborate(self, platform):
        m = Module()
        m.submodules.loops = loops = LoopNest([self.height, self.width, self.words])
        inside = Signal()
        m.d.comb += inside.eq(_within(m, loops, "row", 0, self.height, self.first[0], self.keep[0])
                              & _within(m, loops, "col", 1, self.width, self.first[1], self.keep[1]))
        gives, source = inside, self.i.payload.as_value()
        if self.late:
            held, full = Signal(len(source), reset_less=True), Signal()
            with m.If(loops.en & inside):
                m.d.sync += [held.eq(source), full.eq(1)]
            with m.Elif(loops.en & loops.last[0]):
                m.d.sync += full.eq(0)
            gives, source = full & (inside | loops.last[0]), held
        m.d.comb += [self.o.valid.eq(self.i.valid & gives), self.i.ready.eq(self.o.ready | ~gives),
                     self.o.payload.as_value().eq(source), loops.en.eq(self.i.valid & self.i.ready)]
        return m
