"""Window sources: from pixels in raster order to the words that a `MatVec` multiplies.

Two blocks with one interface (`WindowSource`): stream ``i`` of pixels, stream ``o`` of `window_layout` words, ``last``
set on the last word of every window. The image already has its border (`Padder`).
"""

from typing import Protocol

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Shape, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, Technology, check, check_int, lanes_stream
from .handshake import Part, Shift
from .loops import LoopNest
from .memory import make_ram
from .ring import Ring, window_layout

__all__ = ["WindowSource", "MemoryWindow", "ShiftWindow", "reach"]


def reach(kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """Return the pixels from a kernel's first to its last tap, vertical and horizontal."""
    return (kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1


class WindowSource(Protocol):
    """What a stage needs of its window source."""

    simd: int
    words: int                                           # words a window (of each part of its channels)
    groups: int                                          # times each of them is sent
    cycles: int                                          # cycles a frame
    latency: int
    cost: Cost

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return frames of beats (n, beats, lanes) as words (n, windows * groups * words, simd)."""


def _sizes(height: int, width: int, kernel: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    check(kernel[0] <= height and kernel[1] <= width, f"Kernel {kernel!r} must fit the image of {height}x{width}")
    return (height - kernel[0]) // stride[0] + 1, (width - kernel[1]) // stride[1] + 1


class MemoryWindow(Ring):
    """Keep the last rows in a ring of block RAM and read each window straight out of it, once per group.

    The channels of a window may be cut into ``parts`` (grouped convolution, pooling): each part is a window of its own,
    sent ``groups`` times before the next part's. The windows come in *pooled order*: with ``pool = (2, 2)``, for each
    2x2 block of windows and each group all four windows follow each other, so that a maximum over them needs one
    register and no memory. Windows that pooling would drop are never computed.

    Parameters
    ----------
    shape : Shape
        Of one code.
    simd : int
        Codes a word; divides the channels of a part.
    height, width, channels : int
        Image with border, in pixels; channels a pixel.
    kernel, stride, dilation : (int, int)
        Vertical, horizontal; in pixels.
    groups : int
        Times each part of a window is sent.
    parts : int
        Parts of the channels.
    pool : (int, int)
        Block of windows sent together; windows beyond whole blocks are left out.
    depth, spram
        See `Ring`.
    technology : Technology

    Members
    -------
    i : stream of ``simd`` codes, ``channels / simd`` beats a pixel
    o : stream of `window_layout`; ``last`` marks the last word of each part of each window

    Cycles a frame: ``blocks * groups * pool * kernel * channels / simd``; see `Ring`.
    """

    def __init__(self, shape: Shape, simd: int, *, height: int, width: int, channels: int, kernel: tuple[int, int],
                 stride: tuple[int, int], groups: int, dilation: tuple[int, int] = (1, 1), parts: int = 1,
                 pool: tuple[int, int] = (1, 1), depth: int | None = None, spram: bool = False, technology: Technology):
        for name, number in (("Simd", simd), ("Height", height), ("Width", width), ("Channels", channels),
                             ("Kernel", kernel[0]), ("Kernel", kernel[1]), ("Stride", stride[0]), ("Stride", stride[1]),
                             ("Dilation", dilation[0]), ("Dilation", dilation[1]), ("Parts", parts),
                             ("Groups", groups), ("Pool", pool[0]), ("Pool", pool[1])):
            check_int(name, number)
        check(channels % parts == 0, f"Parts must divide the {channels} channels, not {parts!r}")
        check(channels // parts % simd == 0, f"Simd must divide the {channels // parts} channels, not {simd!r}")
        taps = reach(kernel, dilation)
        rows, cols = _sizes(height, width, taps, stride)
        check(rows >= pool[0] and cols >= pool[1], f"Pool {pool!r} must fit the {rows}x{cols} windows")
        self.simd, self.height, self.width, self.channels = simd, height, width, channels
        self.kernel, self.stride, self.dilation, self.groups, self.parts, self.pool = kernel, stride, dilation, groups, parts, pool
        self.rows, self.cols = rows // pool[0], cols // pool[1]
        pixel, part = channels // simd, channels // simd // parts
        self.words, self.sends = kernel[0] * kernel[1] * part, parts * groups
        pitch = width * pixel
        down, right = stride[0] * pitch, stride[1] * pixel
        block_h, block_w = ((p - 1) * s + k for p, s, k in zip(pool, stride, taps, strict=True))
        # Columns and channels of one kernel row are neighbours in the ring, if nothing is left out: one loop with stride 1.
        row = [(kernel[1] * pixel, 1)] if parts == 1 and dilation[1] == 1 else [(kernel[1], dilation[1] * pixel), (part, 1)]
        super().__init__(shape, simd, frame=height * pitch, outer=((self.rows, pool[0] * down), (self.cols, pool[1] * right)),
                         loops=((parts, part), (groups, 0), (pool[0], down), (pool[1], right), (kernel[0], dilation[0] * pitch),
                                *row),
                         span=(block_h - 1) * pitch + block_w * pixel, mark=4, depth=depth, spram=spram,
                         technology=technology)

    @property
    def _extra_loops(self) -> int:
        return sum(count > 1 for count in (*self.pool, self.parts)) + (self.parts > 1 or self.dilation[1] > 1)

    def model(self, x: np.ndarray) -> np.ndarray:
        """See `WindowSource.model`."""
        image = x.reshape(-1, self.height, self.width, self.parts, self.channels // self.parts)
        (kh, kw), (sy, sx), (dy, dx), (ph, pw) = self.kernel, self.stride, self.dilation, self.pool
        frames = []
        for frame in image:
            words = []
            for py in range(self.rows):
                for px in range(self.cols):
                    for part in range(self.parts):
                        block = [frame[y * sy:y * sy + kh * dy:dy, z * sx:z * sx + kw * dx:dx, part].reshape(-1, self.simd)
                                 for y in range(py * ph, py * ph + ph) for z in range(px * pw, px * pw + pw)]
                        words += block * self.groups
            frames.append(np.concatenate(words))
        return np.array(frames)


class ShiftWindow(Block):
    """Shift pixels through registers and line memories, and send all taps of all channels at once.

    For few channels (the first layer), where `MemoryWindow` could multiply only ``channels`` codes a cycle, and for wired
    weights. A kernel of one pixel that visits each once is the stream itself.

    Parameters
    ----------
    shape, height, width, channels, kernel, stride, groups, technology
        As for `MemoryWindow`; the width must be at least 2 where the kernel has more than one pixel.

    Members
    -------
    i : stream of ``channels`` codes, one beat a pixel
    o : stream of `window_layout`, ``simd = kernel * channels``, order (row, column, channel), one word a window

    Cycles a frame: ``windows * groups + (pixels - windows)``.
    """

    words = 1

    def __init__(self, shape: Shape, *, height: int, width: int, channels: int, kernel: tuple[int, int],
                 stride: tuple[int, int], groups: int, technology: Technology):
        for name, number in (("Height", height), ("Channels", channels), ("Kernel", kernel[0]), ("Kernel", kernel[1]),
                             ("Stride", stride[0]), ("Stride", stride[1]), ("Groups", groups)):
            check_int(name, number)
        self.bare = kernel == stride == (1, 1) and groups == 1
        check_int("Width", width, 1 if self.bare else 2)
        self.latency = 0 if self.bare else 1
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
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return () if self.bare else (Shift(self.ends, self.groups),)

    @property
    def cost(self) -> Cost:
        """Logic cells of registers and counters; the line memory's blocks."""
        if self.bare:
            return Cost()
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
        if self.bare:
            m.d.comb += [self.o.valid.eq(self.i.valid), self.i.ready.eq(self.o.ready), self.o.p.last.eq(1),
                         self.o.p.x.as_value().eq(self.i.payload.as_value())]
            return m
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
