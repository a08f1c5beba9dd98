"""Stages: the chains of blocks that layers become. A stage takes and gives one stream in raster order."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import TypeVar

import numpy as np
from amaranth.lib import wiring

from hwq.formats import Format

from .accelerator import Chain
from .common import Technology, check, check_int, shape_of
from .deduct import Deduct
from .matvec import MatVec
from .reduce import ArgMax, Reduce
from .requantizer import Requantizer
from .ring import Ring
from .schedule import Actor, Filter, Gear, RingActor, ShiftActor, Sink, steady_state
from .serializer import Serializer
from .shapers import Cropper, Padder, StreamBuffer, WidthConverter
from .window import MemoryWindow, ShiftWindow, reach
from .wired import WiredMatVec

__all__ = ["Folding", "Requant", "ConvStage", "PoolStage", "GlobalPoolStage", "ArgMaxStage", "deep", "gears", "gear_actors",
           "groups_at_once", "trimmed_width"]

Deep = TypeVar("Deep", bound=Ring)

# Levels of adders between registers in a wired layer.
_WIRED_LEVELS = 2


@dataclass(frozen=True)
class Folding:
    """How a layer is laid out in hardware.

    Attributes
    ----------
    pe, simd : int
        Outputs side by side, products a sum and cycle.
    source : str
        ``"memory"`` or ``"shift"`` window.
    lanes : int
        Lanes of the requantizer.
    block_rom : bool
        Weights in block RAM.
    style : str
        How `MatVec` multiplies; ``"wired"``: `WiredMatVec` behind a shift window, all outputs at once.
    depth : int
        Words of the ring (`MemoryWindow`), a power of two; 0: as many as the least blocks hold.
    steps : int
        Of the search for a wired layer's adder graph.
    """

    pe: int = 1
    simd: int = 1
    source: str = "memory"
    lanes: int = 1
    block_rom: bool = True
    style: str = "lut"
    depth: int = 0
    steps: int = 0


@dataclass(frozen=True, eq=False)
class Requant:
    """Parameters of a `Requantizer` that come from the network; see there."""

    mult: np.ndarray
    offset: np.ndarray
    offset_neg: np.ndarray
    shift: int
    lo: int
    hi: int
    half_even: bool = False

    def block(self, in_range: tuple[int, int], channels: int, lanes: int, order: tuple[int, int, int],
              technology: Technology, too_much: np.ndarray | None = None, ranges: np.ndarray | None = None) -> Requantizer:
        """Return the block for accumulators of ``in_range``, each too large by its channel's ``too_much``."""
        offset = self.offset
        if too_much is not None and too_much.any():
            offset = offset - too_much * self.mult
        return Requantizer(in_range, mult=self.mult, offset=offset, offset_neg=self.offset_neg, shift=self.shift,
                           lo=self.lo, hi=self.hi, half_even=self.half_even, channels=channels, lanes=lanes, order=order,
                           ranges=ranges, technology=technology)


def gears(shape, lanes_in: int, lanes_out: int) -> list[tuple[str, wiring.Component]]:
    """Return the converters from one number of lanes to another: none, one, or two by way of their divisor."""
    if lanes_in == lanes_out:
        return []
    middle = gcd(lanes_in, lanes_out)
    if middle in (lanes_in, lanes_out):
        return [("gear", WidthConverter(shape, lanes_in, lanes_out))]
    return [("gear_down", WidthConverter(shape, lanes_in, middle)), ("gear_up", WidthConverter(shape, middle, lanes_out))]


def gear_actors(after: Actor, lanes_in: int, lanes_out: int) -> list[Actor]:
    """Return the actors of `gears`, first one first, in front of ``after``."""
    middle = gcd(lanes_in, lanes_out)
    actors: list[Actor] = []
    for a, b in ((middle, lanes_out), (lanes_in, middle)):
        if a != b:
            actors.insert(0, Gear(actors[0] if actors else after, a, b))
    return actors


def _pool_actor(after: Actor, height: int, width: int, words: int, kernel: tuple[int, int]) -> Actor:
    gives = [y % kernel[0] == kernel[0] - 1 and x % kernel[1] == kernel[1] - 1 and x < width // kernel[1] * kernel[1]
             for y in range(height) for x in range(width) for _ in range(words)]
    return Filter(after, gives, 4)


class ConvStage(Chain):
    """Convolution or linear layer with requantization, and max pooling over whole blocks of its windows.

    Parameters
    ----------
    weight : int array (outputs, kh, kw, channels / groups)
        Integer values; a linear layer has kh = kw = 1.
    weight_format : Format
        Of the ROM entries.
    x_range : (int, int)
        Inclusive range of the codes that come in.
    height, width : int
        Image without border, in pixels; 1, 1 for a linear layer.
    stride, dilation : (int, int)
    groups : int
        Groups of channels. Either ``pe`` divides a group's outputs and ``simd`` its channels, or the stage computes
        several whole groups side by side: ``pe`` is a multiple of a group's outputs, ``simd`` its channels.
    pads : (top, left, bottom, right)
    pad_value : int
        Code outside the image; may lie outside ``x_range``.
    bias : int array (outputs,), optional
        Added to the sums, one adder a sum: where it could not go into the requantization's offset.
    requant : Requant
    pool : (int, int)
        Kernel and stride of the max pooling, (1, 1) for none.
    in_lanes : int
        Lanes of the input stream.
    fold : Folding
    technology : Technology

    Members
    -------
    i : stream of ``in_lanes`` codes
    o : stream of ``fold.lanes`` results

    Cycles a frame: see `cycles`.
    """

    def __init__(self, weight: np.ndarray, weight_format: Format, x_range: tuple[int, int], *, height: int, width: int,
                 stride: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1), groups: int = 1,
                 pads: tuple[int, int, int, int] = (0, 0, 0, 0), pad_value: int = 0, bias: np.ndarray | None = None, requant: Requant,
                 pool: tuple[int, int] = (1, 1), in_lanes: int = 1, fold: Folding, technology: Technology):
        outputs, kh, kw, per_group = weight.shape
        channels = per_group * groups
        check_int("Pe", fold.pe)
        check_int("Simd", fold.simd)
        check(outputs % fold.pe == 0, f"Pe must divide the {outputs} outputs, not {fold.pe!r}")
        check(fold.pe % fold.lanes == 0, f"Requantizer lanes must divide pe = {fold.pe}, not {fold.lanes!r}")
        check(fold.source in ("memory", "shift"), f"Window source must be 'memory' or 'shift', not {fold.source!r}")
        parts = groups_at_once(fold.pe, outputs, groups)
        check(parts == 1 or fold.simd == per_group, f"Simd must be {per_group} where pe spans groups, not {fold.simd!r}")
        sends = outputs // fold.pe // (groups // parts)  # of each window, or of each part of it
        fused = pool if fold.source == "memory" else (1, 1)
        (height, width), pads, keep = _trim((height, width), pads, reach((kh, kw), dilation), stride, pool)
        in_shape = shape_of(*x_range)
        if any(pads):                                    # the border's code may lie outside what comes in
            x_range = min(x_range[0], pad_value), max(x_range[1], pad_value)
        x_shape = shape_of(*x_range)
        beat = fold.simd * parts if fold.source == "memory" else channels
        geometry = dict(height=keep[0] + pads[0] + pads[2], width=keep[1] + pads[1] + pads[3], channels=channels,
                        kernel=(kh, kw), stride=stride, groups=sends, technology=technology)
        self.window: MemoryWindow | ShiftWindow
        if fold.source == "memory":
            self.window = deep(fold.depth, lambda depth: MemoryWindow(
                x_shape, beat, pool=fused, dilation=dilation, parts=groups // parts, depth=depth, **geometry))
        else:
            check(groups == 1 and dilation == (1, 1), "Shift window takes neither groups nor dilation")
            self.window = ShiftWindow(x_shape, **geometry)
            check(fold.simd == self.window.simd, f"Simd of a shift window must be {self.window.simd}, not {fold.simd!r}")
        repeat = fused[0] * fused[1]
        blocks: list[tuple[str, wiring.Component]] = gears(in_shape, in_lanes, beat)
        if keep != (height, width):
            blocks.append(("crop", Cropper(in_shape, beat, height=height, width=width, words=channels // beat, keep=keep)))
        if any(pads):
            blocks.append(("padder", Padder(in_shape, beat, height=keep[0], width=keep[1], words=channels // beat, pads=pads,
                                            value=pad_value, out_shape=x_shape)))
        self._input = (height, width, channels // beat), keep, pads, (in_lanes, beat), pool
        arranged = weight.reshape(outputs, self.window.words, self.window.simd // parts)
        self.matvec: MatVec | WiredMatVec
        if fold.style == "wired":
            check(fold.source == "shift" and fold.pe == outputs,
                  f"Style wired takes a shift window and all {outputs} outputs at once, not pe = {fold.pe} and a {fold.source} window")
            self.matvec = WiredMatVec(arranged, x_range, every=_WIRED_LEVELS, steps=fold.steps)
        else:
            self.matvec = MatVec(arranged, weight_format, x_range, pe=fold.pe, parts=parts, repeat=repeat, block_rom=fold.block_rom,
                                 style=fold.style, technology=technology)
        order = (outputs // fold.pe, repeat, fold.pe // fold.lanes)
        in_range, ranges, too_much = self.matvec.acc_range, self.matvec.ranges, self.matvec.too_much
        blocks += [("window", self.window), ("matvec", self.matvec)]
        constants = too_much if bias is None else too_much - bias
        if (bias is not None and bias.any()) or (requant.offset_neg.size and constants.any()):   # it must see the true sign
            deduct = Deduct(ranges, constants, pe=fold.pe, repeat=repeat)
            in_range, ranges, too_much = deduct.out_range, deduct.ranges, np.zeros_like(too_much)
            blocks.append(("deduct", deduct))
        self.requantizer = requant.block(in_range, outputs, fold.lanes, order, technology, too_much, ranges)
        # Sums that come more slowly than they leave need no path of ready through the serializer.
        self._relaxed = self.window.words > fold.pe // fold.lanes
        if fold.pe > fold.lanes:
            blocks.append(("serializer", Serializer(shape_of(*in_range), fold.pe, fold.lanes, relaxed=self._relaxed)))
        blocks.append(("requantizer", self.requantizer))
        out_range = (requant.lo, requant.hi)
        if repeat > 1:
            blocks.append(("pool", Reduce("max", out_range, lanes=fold.lanes, counts=(repeat, order[2]), over=(True, False),
                                          technology=technology)))
        elif pool != (1, 1):
            blocks += pool_blocks(out_range, fold.lanes, self.window.rows, self.window.cols, outputs, pool, technology)
        self.out_shape, self.out_lanes, self.fold = self.requantizer.out_shape, fold.lanes, fold
        if pool != (1, 1) or not self._relaxed or fold.pe == fold.lanes:     # else the serializer cuts what the next stage's ready reaches
            blocks.append(("buffer", StreamBuffer(self.out_shape, fold.lanes)))
        super().__init__(blocks)

    @property
    def cycles(self) -> int:
        """Cycles a frame that the stage itself needs: the most of window, requantizer and input."""
        results = self.window.rows * self.window.cols * self.matvec.outputs // self.fold.lanes
        results *= self.matvec.repeat
        (height, width, words), keep, pads, _, _ = self._input
        border = (keep[0] + pads[0] + pads[2]) * (keep[1] + pads[1] + pads[3]) * words
        beats = self.fold.pe // self.fold.lanes
        if isinstance(self.window, ShiftWindow) and beats > self.window.groups:      # windows wait, and where none ends little is made up
            results = _paced(tuple(self.window.ends), self.window.groups, beats, self.matvec.latency)
        return max(self.window.cycles, results, height * width * words, border)

    @property
    def frames(self) -> int:
        """Frames that can be under way in the stage."""
        if not isinstance(self.window, MemoryWindow):
            return 2 + self.matvec.latency // (self.window.rows * self.window.cols)
        return 2 + self.window.frames

    @property
    def eager(self) -> bool:
        """Whether the first windows of a frame lie in the border, so that their results need nothing of the frame."""
        first = self.window.span if isinstance(self.window, MemoryWindow) else self.window.ends.index(True) + 1
        return not any(self._inside[:first])

    @property
    def _inside(self) -> list[bool]:
        """Whether each beat of the image with its border comes from outside."""
        (_, _, words), keep, pads, _, _ = self._input
        return [pads[0] <= y < pads[0] + keep[0] and pads[1] <= x < pads[1] + keep[1]
                for y in range(keep[0] + pads[0] + pads[2]) for x in range(keep[1] + pads[1] + pads[3]) for _ in range(words)]

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``, first actor first."""
        (height, width, words), keep, _, lanes, pool = self._input
        inside = self._inside
        beats = self.fold.pe // self.fold.lanes
        latency = self.requantizer.latency + 5
        actors: list[Actor] = []
        if isinstance(self.window, MemoryWindow):
            w = self.window
            repeat = w.pool[0] * w.pool[1]               # of a pooled block, only the maxima leave the stage
            actors = [RingActor(after, inside, starts=w.starts, span=w.span, capacity=w.capacity, groups=w.sends,
                                group_cycles=repeat * max(w.words, beats if repeat > 1 else 1), beats=beats,
                                latency=self.window.latency + self.matvec.latency + latency, gap=1 + self._relaxed)]
        else:
            if pool != (1, 1):
                actors = [_pool_actor(after, self.window.rows, self.window.cols, self.matvec.outputs // self.fold.lanes, pool)]
            actors.insert(0, ShiftActor(actors[0] if actors else after, inside, windows=self.window.ends,
                                        groups=self.window.groups, beats=beats, depth=self.matvec.latency, latency=latency))
        if keep != (height, width):
            actors.insert(0, Filter(actors[0], [y < keep[0] and x < keep[1] for y in range(height) for x in range(width)
                                                for _ in range(words)], 0))
        return gear_actors(actors[0], *lanes) + actors


@lru_cache
def _paced(windows: tuple[bool, ...], groups: int, beats: int, depth: int) -> int:
    """Return the cycles a frame of a shift window on its own, its pixels and results never waiting."""
    def make() -> list[Actor]:
        sink = Sink()
        return [ShiftActor(sink, [True] * len(windows), windows=windows, groups=groups, beats=beats, depth=depth, latency=0), sink]

    return steady_state(make, len(windows))[0]


def groups_at_once(pe: int, outputs: int, groups: int) -> int:
    """Return how many whole groups of channels ``pe`` outputs span, at least 1; refuse what spans parts of several."""
    each = outputs // groups
    check(each % pe == 0 or (pe % each == 0 and groups % (pe // each) == 0),
          f"Pe must divide the {each} outputs of a group, or be a multiple that divides the groups, not {pe}")
    return max(1, pe // each)


def deep(depth: int, make: Callable[[int | None], Deep]) -> Deep:
    """Return the ring of that depth; 0: the deepest that takes no more blocks than the least."""
    if depth:
        return make(depth)
    ring = make(None)
    bits, found = ring.shape.width * ring.lanes, ring.min_depth
    while found < ring.full_depth and ring.technology.blocks(bits, 2 * found) == ring.technology.blocks(bits, found):
        found *= 2
    return make(found)


def trimmed_width(size: tuple[int, int], pads: tuple[int, int, int, int], kernel: tuple[int, int], stride: tuple[int, int],
                  pool: tuple[int, int]) -> int:
    """Return the pixels of a row that reach the window source of a `ConvStage`; a shift window needs two."""
    _, pads, keep = _trim(size, pads, kernel, stride, pool)
    return keep[1] + pads[1] + pads[3]


def _window_fits(size: tuple[int, int], pads: tuple[int, int, int, int], kernel: tuple[int, int], stride: tuple[int, int],
                pool: tuple[int, int]) -> bool:
    """Return whether at least one block of windows fits the image with its border."""
    return all((n + p + q - k) // s + 1 >= m and n + p + q >= k for n, p, q, k, s, m in
               zip(size, pads[:2], pads[2:], kernel, stride, pool, strict=True))


def _trim(size: tuple[int, int], pads: tuple[int, int, int, int], kernel: tuple[int, int], stride: tuple[int, int],
          pool: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int]]:
    """Return (size, pads, keep): without the border, and the part of the image, that no window reaches.

    What is never read needs no place in the ring.
    """
    if not _window_fits(size, pads, kernel, stride, pool):
        return size, pads, size                          # the window says what is wrong
    after, keep = list(pads[2:]), list(size)
    for i in range(2):
        whole = size[i] + pads[i] + pads[i + 2]
        windows = (whole - kernel[i]) // stride[i] + 1
        excess = whole - (windows // pool[i] * pool[i] - 1) * stride[i] - kernel[i]
        cut = min(after[i], excess)
        after[i] -= cut
        keep[i] -= excess - cut
    if min(keep) < 1:                                    # a border that covers everything: nothing to gain
        return size, pads, size
    return size, (pads[0], pads[1], after[0], after[1]), (keep[0], keep[1])


def pool_blocks(in_range: tuple[int, int], lanes: int, height: int, width: int, channels: int, kernel: tuple[int, int],
                technology: Technology) -> list[tuple[str, wiring.Component]]:
    """Return the blocks of a max pooling whose stride is its kernel, rows and columns beyond whole windows left out."""
    shape = shape_of(*in_range)
    rows, cols = height // kernel[0], width // kernel[1]
    check(rows >= 1 and cols >= 1, f"Pool {kernel!r} must fit the image of {height}x{width}")
    check(channels % lanes == 0, f"Lanes must divide the {channels} channels, not {lanes!r}")
    blocks: list[tuple[str, wiring.Component]] = []
    words = channels // lanes
    if (rows * kernel[0], cols * kernel[1]) != (height, width):
        blocks.append(("crop", Cropper(shape, lanes, height=height, width=width, words=words,
                                       keep=(rows * kernel[0], cols * kernel[1]))))
    blocks.append(("pool", Reduce("max", in_range, lanes=lanes, counts=(rows, kernel[0], cols, kernel[1], words),
                                  over=(False, True, False, True, False), technology=technology)))
    return blocks


class PoolStage(Chain):
    """Max pooling with stride = kernel as a stage of its own.

    Parameters
    ----------
    in_range, lanes, height, width, channels, kernel, technology
        Inclusive range of the codes, lanes of the stream, the image, the kernel.

    Members
    -------
    i, o : streams of ``lanes`` codes

    Cycles a frame: one a beat of the input.
    """

    def __init__(self, in_range: tuple[int, int], *, lanes: int = 1, height: int, width: int, channels: int,
                 kernel: tuple[int, int], technology: Technology):
        self.cycles = height * width * channels // lanes
        self._pool = height, width, channels // lanes, kernel
        self.out_lanes, self.out_shape = lanes, shape_of(*in_range)
        super().__init__([*pool_blocks(in_range, lanes, height, width, channels, kernel, technology),
                          ("buffer", StreamBuffer(self.out_shape, lanes))])

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``."""
        return [_pool_actor(after, *self._pool)]


class GlobalPoolStage(Chain):
    """Global average pooling: sums over the image, then the requantizer that divides.

    Parameters
    ----------
    in_range, lanes, pixels, channels, requant, technology
        Inclusive range of the codes, lanes of the stream, pixels of the image, channels, the division.

    Members
    -------
    i : stream of ``lanes`` codes
    o : stream of ``lanes`` results

    Cycles a frame: one a beat of the input.
    """

    def __init__(self, in_range: tuple[int, int], *, lanes: int = 1, pixels: int, channels: int, requant: Requant,
                 technology: Technology):
        check(channels % lanes == 0, f"Lanes must divide the {channels} channels, not {lanes!r}")
        self.cycles = pixels * channels // lanes
        reduce = Reduce("sum", in_range, lanes=lanes, counts=(pixels, channels // lanes), over=(True, False),
                        technology=technology)
        requantizer = requant.block(reduce.out_range, channels, lanes, (channels // lanes, 1, 1), technology)
        self.out_lanes, self.out_shape = lanes, requantizer.out_shape
        super().__init__([("sum", reduce), ("requantizer", requantizer), ("buffer", StreamBuffer(self.out_shape, lanes))])
        self._loops = pixels, channels // lanes
        self._latency = reduce.latency + requantizer.latency + 1

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``."""
        pixels, beats = self._loops
        return [Filter(after, [False] * (pixels - 1) * beats + [True] * beats, self._latency)]


class ArgMaxStage(Chain):
    """Index of the largest of a frame's values, which come ``lanes`` a beat.

    Parameters
    ----------
    in_range, lanes, count
        Inclusive range of the values, lanes of the stream, values a frame.

    Members
    -------
    i : stream of ``lanes`` values
    o : stream of one index

    Cycles a frame: one a value.
    """

    out_lanes = 1

    def __init__(self, in_range: tuple[int, int], *, lanes: int = 1, count: int):
        self.cycles, self._lanes = count, lanes
        self._largest = ArgMax(in_range, count)
        self.out_shape = self._largest.out_shape
        super().__init__([*gears(shape_of(*in_range), lanes, 1), ("largest", self._largest)])

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``."""
        largest = self._largest.actor(after)
        return [*gear_actors(largest, self._lanes, 1), largest]
