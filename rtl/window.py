"""Window sources: from pixels in raster order to the words that a `MatVec` multiplies.

Two blocks with one interface (`WindowSource`): stream ``i`` of pixels, stream ``o`` of `window_layout` words, ``last``
set on the last word of every window. The image already has its border (`Padder`).
"""

from typing import Protocol

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Shape, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, Technology, check, check_int, lanes_layout, lanes_stream
from .loops import LoopNest
from .memory import make_ram

__all__ = ["WindowSource", "MemoryWindow", "ShiftWindow", "window_layout"]


def window_layout(shape: Shape, simd: int) -> data.StructLayout:
    """Return a word of ``simd`` codes with the mark of the window's last word."""
    return data.StructLayout({"x": lanes_layout(shape, simd), "last": 1})


class WindowSource(Protocol):
    """What a stage needs of its window source."""

    simd: int
    words: int                                           # words a window
    groups: int                                          # times each window is sent
    cycles: int                                          # cycles a frame
    latency: int
    cost: Cost

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return frames of beats (n, beats, lanes) as words (n, windows * groups * words, simd)."""


def _sizes(height: int, width: int, kernel: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    check(kernel[0] <= height and kernel[1] <= width, f"Kernel {kernel!r} must fit the image of {height}x{width}")
    return (height - kernel[0]) // stride[0] + 1, (width - kernel[1]) // stride[1] + 1


class MemoryWindow(Block):
    """Keep the last rows in a ring of block RAM and read each window straight out of it, once per group.

    The windows come in *pooled order*: with ``pool = (2, 2)``, for each 2x2 block of windows and each group all four
    windows follow each other, so that a maximum over them needs one register and no memory. Windows that pooling
    would drop are never computed.

    Parameters
    ----------
    shape : Shape
        Of one code.
    simd : int
        Codes a word; divides the channels.
    height, width, channels : int
        Image with border, in pixels; channels a pixel.
    kernel, stride : (int, int)
        Vertical, horizontal; in pixels.
    groups : int
        Times each window is sent (output channels / pe).
    pool : (int, int)
        Block of windows sent together; windows beyond whole blocks are left out.
    depth : int
        Words of the ring, a power of two; `min_depth` works, `full_depth` never waits for a source that is fast enough.
    technology : Technology

    Members
    -------
    i : stream of ``simd`` codes, ``channels / simd`` beats a pixel
    o : stream of `window_layout`

    Cycles a frame: ``blocks * groups * pool * kernel * channels / simd``, without a bubble if the ring is deep enough for
    what comes before and behind it (`hwq.rtl.schedule` tells).
    """

    latency = 3                                          # cycles from the word that completes a window to its first word

    def __init__(self, shape: Shape, simd: int, *, height: int, width: int, channels: int, kernel: tuple[int, int],
                 stride: tuple[int, int], groups: int, pool: tuple[int, int] = (1, 1), depth: int | None = None,
                 technology: Technology):
        for name, number in (("Simd", simd), ("Height", height), ("Width", width), ("Channels", channels),
                             ("Kernel", kernel[0]), ("Kernel", kernel[1]), ("Stride", stride[0]), ("Stride", stride[1]),
                             ("Groups", groups), ("Pool", pool[0]), ("Pool", pool[1])):
            check_int(name, number)
        check(channels % simd == 0, f"Simd must divide the {channels} channels, not {simd!r}")
        rows, cols = _sizes(height, width, kernel, stride)
        check(rows >= pool[0] and cols >= pool[1], f"Pool {pool!r} must fit the {rows}x{cols} windows")
        self.shape, self.simd, self.height, self.width, self.channels = shape, simd, height, width, channels
        self.kernel, self.stride, self.groups, self.pool, self.technology = kernel, stride, groups, pool, technology
        self.rows, self.cols = rows // pool[0], cols // pool[1]
        cw = channels // simd
        self.words = kernel[0] * kernel[1] * cw
        self._pitch = width * cw
        self._step = (stride[0] * self._pitch, stride[1] * cw)
        block_h, block_w = ((p - 1) * s + k for p, s, k in zip(pool, stride, kernel, strict=True))
        self.span = (block_h - 1) * self._pitch + block_w * cw
        down, right = pool[0] * self._step[0], pool[1] * self._step[1]
        frame = height * self._pitch
        # How far the oldest word still needed moves when a block is done: in a row, to the next row, to the next frame.
        self._moves = (right, down - (self.cols - 1) * right, frame - (self.rows - 1) * down - (self.cols - 1) * right)
        self._frame, self._down, self._right = frame, down, right
        self.min_depth = 1 << self.span.bit_length()
        self.full_depth = 1 << (self.span + max(self._moves) + 1).bit_length()
        self.depth = self.min_depth if depth is None else depth
        check_int("Depth", self.depth, self.min_depth)
        check(self.depth & (self.depth - 1) == 0, f"Depth must be a power of two, not {depth!r}")
        super().__init__({"i": In(lanes_stream(shape, simd)), "o": Out(stream.Signature(window_layout(shape, simd)))})

    @property
    def starts(self) -> list[int]:
        """Word of the frame at which each block of windows begins."""
        return [y * self._down + x * self._right for y in range(self.rows) for x in range(self.cols)]

    @property
    def cycles(self) -> int:
        """Cycles a frame."""
        return self.rows * self.cols * self.groups * self.pool[0] * self.pool[1] * self.words

    @property
    def cost(self) -> Cost:
        """Logic cells of the counters and addresses; the ring's blocks."""
        return Cost(lc=55 + 5 * self.depth.bit_length(),
                    ebr=self.technology.blocks(self.shape.width * self.simd, self.depth))

    def model(self, x: np.ndarray) -> np.ndarray:
        """See `WindowSource.model`."""
        image = x.reshape(-1, self.height, self.width, self.channels)
        (kh, kw), (sy, sx), (ph, pw) = self.kernel, self.stride, self.pool
        frames = []
        for frame in image:
            words = []
            for py in range(self.rows):
                for px in range(self.cols):
                    block = [frame[y * sy:y * sy + kh, z * sx:z * sx + kw].reshape(-1, self.simd)
                             for y in range(py * ph, py * ph + ph) for z in range(px * pw, px * pw + pw)]
                    words += block * self.groups
            frames.append(np.concatenate(words))
        return np.array(frames)

    def elaborate(self, platform):
        m = Module()
        bits = (self.depth - 1).bit_length()
        write, read = make_ram(m, "ring", self.depth, self.shape.width * self.simd)
        cw = self.channels // self.simd
        # Columns and channels of one kernel row are neighbours in the ring: one loop with stride 1.
        counts = [self.rows, self.cols, self.groups, *self.pool, self.kernel[0], self.kernel[1] * cw]
        strides = [self._down, self._right, 0, *self._step, self._pitch, 1]
        m.submodules.loops = loops = LoopNest(counts, strides, period=self._frame, addr_width=bits)

        # margin = words in the ring - words that one block needs; a block may be read while it is not negative.
        # It is negative by a lot after a block whose successor starts beyond what has been written.
        margin = Signal(signed(max(self.depth, self.span, *self._moves).bit_length() + 2), init=-self.span)
        after = Signal.like(margin, init=0)
        active, step, done, wrote = Signal(), Signal(), Signal(), Signal()
        moved = Signal.like(margin, init=0)          # not done: nothing is freed
        m.d.comb += [step.eq(active & (self.o.ready | ~self.o.valid)), done.eq(step & loops.last[2]),
                     wrote.eq(self.i.valid & self.i.ready), loops.en.eq(step)]
        with m.If(done):
            m.d.comb += moved.eq(Mux(loops.last[0], -self._moves[2], Mux(loops.last[1], -self._moves[1], -self._moves[0])))
        m.d.comb += after.eq(margin + moved + wrote)
        m.d.sync += margin.eq(after)
        with m.If(done | ~active):
            m.d.sync += active.eq(after >= 0)

        # One cycle stale, hence the two words of reserve.
        m.d.sync += self.i.ready.eq(margin <= self.depth - 2 - self.span)
        m.d.comb += [write.en.eq(wrote), write.data.eq(self.i.payload.as_value())]
        with m.If(wrote):
            m.d.sync += write.addr.eq(write.addr + 1)
        m.d.comb += [read.en.eq(step), read.addr.eq(loops.addr)]
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [self.o.valid.eq(active), self.o.p.last.eq(loops.last[5])]
        m.d.comb += self.o.p.x.as_value().eq(read.data)
        return m


class ShiftWindow(Block):
    """Shift pixels through registers and line memories, and send all taps of all channels at once.

    For few channels (the first layer), where `MemoryWindow` could multiply only ``channels`` codes a cycle.

    Parameters
    ----------
    shape, height, width, channels, kernel, stride, groups, technology
        As for `MemoryWindow`; the width must be at least 2.

    Members
    -------
    i : stream of ``channels`` codes, one beat a pixel
    o : stream of `window_layout`, ``simd = kernel * channels``, order (row, column, channel), one word a window

    Cycles a frame: ``windows * groups + (pixels - windows)``.
    """

    words = 1
    latency = 1

    def __init__(self, shape: Shape, *, height: int, width: int, channels: int, kernel: tuple[int, int],
                 stride: tuple[int, int], groups: int, technology: Technology):
        for name, number in (("Height", height), ("Channels", channels), ("Kernel", kernel[0]), ("Kernel", kernel[1]),
                             ("Stride", stride[0]), ("Stride", stride[1]), ("Groups", groups)):
            check_int(name, number)
        check_int("Width", width, 2)
        self.rows, self.cols = _sizes(height, width, kernel, stride)
        self.shape, self.height, self.width, self.channels = shape, height, width, channels
        self.kernel, self.stride, self.groups, self.technology = kernel, stride, groups, technology
        self.simd = kernel[0] * kernel[1] * channels
        super().__init__({"i": In(lanes_stream(shape, channels)),
                          "o": Out(stream.Signature(window_layout(shape, self.simd)))})

    @property
    def ends(self) -> list[bool]:
        """Whether a window ends, for each pixel of a frame."""
        at = [{k - 1 + i * s for i in range(n)} for k, s, n in zip(self.kernel, self.stride, (self.rows, self.cols), strict=True)]
        return [y in at[0] and x in at[1] for y in range(self.height) for x in range(self.width)]

    @property
    def cycles(self) -> int:
        """Cycles a frame."""
        return self.height * self.width + self.rows * self.cols * (self.groups - 1)

    @property
    def cost(self) -> Cost:
        """Logic cells of registers and counters; the line memory's blocks."""
        pixel = self.shape.width * self.channels
        ebr = self.technology.blocks(pixel * (self.kernel[0] - 1), self.width) if self.kernel[0] > 1 else 0
        return Cost(lc=60 + pixel * self.kernel[0] * self.kernel[1], ebr=ebr)

    def model(self, x: np.ndarray) -> np.ndarray:
        """See `WindowSource.model`."""
        image = x.reshape(-1, self.height, self.width, self.channels)
        (kh, kw), (sy, sx) = self.kernel, self.stride
        windows = [image[:, y * sy:y * sy + kh, z * sx:z * sx + kw].reshape(len(image), 1, -1)
                   for y in range(self.rows) for z in range(self.cols)]
        return np.concatenate(windows, axis=1).repeat(self.groups, axis=1)

    def elaborate(self, platform):
        m = Module()
        pixel = self.shape.width * self.channels
        kh, kw = self.kernel
        accept, pending, emit = Signal(), Signal(), Signal()
        m.submodules.pixels = pixels = LoopNest([self.height, self.width])
        m.submodules.passes = passes = LoopNest([self.groups])
        m.d.comb += [self.i.ready.eq(~pending | (self.o.ready & passes.last[0])),
                     accept.eq(self.i.valid & self.i.ready), pixels.en.eq(accept),
                     self.o.valid.eq(pending), passes.en.eq(pending & self.o.ready), self.o.p.last.eq(1)]

        x = Signal(range(self.width))
        column = self.i.payload.as_value()               # newest column of taps, oldest row in the low bits
        if kh > 1:
            write, read = make_ram(m, "lines", self.width, pixel * (kh - 1))
            column = Cat(read.data, self.i.payload.as_value())
            following = Signal.like(x)
            m.d.comb += [following.eq(Mux(pixels.last[1], 0, x + 1)), write.en.eq(accept), write.addr.eq(x),
                         write.data.eq(column[pixel:]), read.addr.eq(following), read.en.eq(accept)]
        with m.If(accept):
            m.d.sync += x.eq(Mux(pixels.last[1], 0, x + 1))
        taps = [Signal(pixel * kh, name=f"taps{i}", reset_less=True) for i in range(kw)]
        with m.If(accept):
            for older, newer in zip(taps, [*taps[1:], column], strict=True):
                m.d.sync += older.eq(newer)

        # A window ends at (y, x) if both are the kernel's size plus a multiple of the stride.
        due = []
        for name, size, k, s, en, wrap in (("row", self.rows, kh, self.stride[0], accept & pixels.last[1], pixels.last[0]),
                                           ("col", self.cols, kw, self.stride[1], accept, pixels.last[1])):
            wait = Signal(range(max(k, s)), init=k - 1, name=f"{name}_wait")
            left = Signal(range(size + 1), init=size, name=f"{name}_left")
            here = Signal(name=f"{name}_here")
            m.d.comb += here.eq((wait == 0) & (left != 0))
            with m.If(en):
                with m.If(wrap):
                    m.d.sync += [wait.eq(k - 1), left.eq(size)]
                with m.Elif(here):
                    m.d.sync += [wait.eq(s - 1), left.eq(left - 1)]
                with m.Elif(wait != 0):
                    m.d.sync += wait.eq(wait - 1)
            due.append(here)
        m.d.comb += emit.eq(due[0] & due[1])
        with m.If(accept):
            m.d.sync += pending.eq(emit)
        with m.Elif(self.o.ready & passes.last[0]):
            m.d.sync += pending.eq(0)

        rows = [Cat(taps[col][row * pixel:(row + 1) * pixel] for col in range(kw)) for row in range(kh)]
        m.d.comb += self.o.p.x.as_value().eq(Cat(rows))
        return m
