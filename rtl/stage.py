"""Stages: the chains of blocks that layers become. A stage takes and gives one stream in raster order."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import gcd
from typing import TypeVar

import numpy as np
from amaranth.lib import wiring

from hwq.formats import Format

from .accelerator import Chain
from .border import Border
from .common import Technology, check, check_int, shape_of
from .deduct import Deduct
from .matvec import MatVec
from .reduce import Reduce
from .requantizer import Requantizer
from .ring import Ring
from .schedule import Actor, Filter, Gear, RingActor, ShiftActor, Sink, steady_state
from .serializer import Serializer, SharedSerializer
from .shapers import Cropper, StreamBuffer, WidthConverter
from .thresholds import Thresholder
from .window import MemoryWindow, ShiftWindow, reach
from .wired import WiredMatVec

__all__ = ["Folding", "Requant", "ConvStage", "RequantStage", "deep", "gears", "gear_actors", "groups_at_once", "pool_actor",
           "pool_blocks"]

Deep = TypeVar("Deep", bound=Ring)

# Levels of adders between registers in a wired layer.
_WIRED_LEVELS = 2


@dataclass(frozen=True)
class Folding:
    """How a layer is laid out in hardware.

    Attributes
    ----------
    pe, simd : int
        Outputs side by side, products a sum and cycle. Of a memory window and one group, ``pe`` need not divide the outputs:
        the last one is computed again to fill up, and left out.
    source : str
        ``"memory"`` or ``"shift"`` window.
    lanes : int
        Lanes of the requantizer.
    block_rom : bool
        Weights in block RAM.
    logic_bits : int
        Bits of each of their words that lie in logic all the same.
    style : str
        How `MatVec` multiplies; ``"wired"``: `WiredMatVec` behind a shift window, all outputs at once.
    depth : int
        Words of the ring (`Ring`), a power of two; 0: as many as the least blocks hold. All that layers without weights have.
    spram : bool
        The ring in large RAM.
    block_scales : bool
        What the requantizer, and a bias in front of it, take per output lies in block RAM.
    scale_bits : int
        Bits of its multiplier that the requantizer multiplies by in a cycle; 0: all.
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
    logic_bits: int = 0
    spram: bool = False
    block_scales: bool = False
    scale_bits: int = 0

    @property
    def window(self) -> str:
        """What plans and reports call the window source: ``"memory"``, ``"spram"`` or ``"shift"``."""
        return "spram" if self.spram else self.source


@dataclass(frozen=True, eq=False)
class Requant:
    """Parameters of a `Requantizer`, or of a `Thresholder` if there are thresholds, that come from the network; see there."""

    mult: np.ndarray
    offset: np.ndarray
    offset_neg: np.ndarray
    shift: int
    lo: int
    hi: int
    half_even: bool = False
    thresholds: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    def repeated(self, rows: np.ndarray) -> "Requant":
        """Return the parameters of the channels ``rows``; what all channels share stays."""
        return replace(self, **{name: each[rows] for name in ("mult", "offset", "offset_neg", "thresholds")
                                if len(each := getattr(self, name)) > 1})

    @property
    def steps(self) -> bool:
        """Whether there is a multiplier that can be taken bits at a time."""
        return not self.thresholds.size and bool((self.mult != 1).any()) and self.mult.min() >= 0

    def run(self, channels: int) -> int:
        """Return how many channels in a row, a divisor of their number, have the same parameters."""
        changes = [int(k) + 1 for each in (self.mult, self.offset, self.offset_neg, self.thresholds) if len(each) > 1
                   for k in np.flatnonzero((np.diff(each, axis=0) != 0).reshape(len(each) - 1, -1).any(axis=1))]
        return gcd(channels, *changes)

    def block(self, in_range: tuple[int, int], channels: int, lanes: int, order: tuple[int, int, int],
              technology: Technology, too_much: np.ndarray | None = None, ranges: np.ndarray | None = None, block_rom: bool = False,
              bits: int = 0) -> Requantizer | Thresholder:
        """Return the block for accumulators of ``in_range``, each too large by its channel's ``too_much``."""
        if self.thresholds.size:
            limits = self.thresholds if too_much is None else self.thresholds + too_much[:, None]
            return Thresholder(in_range, thresholds=limits, lo=self.lo, channels=channels, lanes=lanes, order=order,
                               technology=technology)
        offset = self.offset
        if too_much is not None and too_much.any():
            offset = offset - too_much * self.mult
        return Requantizer(in_range, mult=self.mult, offset=offset, offset_neg=self.offset_neg, shift=self.shift,
                           lo=self.lo, hi=self.hi, half_even=self.half_even, channels=channels, lanes=lanes, order=order,
                           ranges=ranges, block_rom=block_rom, bits=bits, technology=technology)


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


def pool_actor(after: Actor, height: int, width: int, words: int, kernel: tuple[int, int], latency: int = 4) -> Actor:
    """Return the event model of `pool_blocks`, and of what follows within ``latency`` cycles, in front of ``after``."""
    gives = [y % kernel[0] == kernel[0] - 1 and x % kernel[1] == kernel[1] - 1 and x < width // kernel[1] * kernel[1]
             for y in range(height) for x in range(width) for _ in range(words)]
    return Filter(after, gives, latency)


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
                 pads: tuple[int, int, int, int] = (0, 0, 0, 0), pad_value: int = 0, bias: np.ndarray | None = None,
                 requant: Requant,
                 pool: tuple[int, int] = (1, 1), in_lanes: int = 1, fold: Folding, technology: Technology):
        wanted, kh, kw, per_group = weight.shape
        channels = per_group * groups
        check_int("Pe", fold.pe)
        check_int("Simd", fold.simd)
        spare = -wanted % fold.pe                        # computed, and left out
        check(spare == 0 or (groups == 1 and fold.source == "memory" and fold.pe < wanted and wanted % fold.lanes == 0),
              f"Pe must divide the {wanted} outputs, not {fold.pe!r}")
        if spare:
            rows = np.minimum(np.arange(wanted + spare), wanted - 1)
            weight, requant, bias = weight[rows], requant.repeated(rows), None if bias is None else bias[rows]
        outputs = wanted + spare
        check(fold.pe % fold.lanes == 0, f"Requantizer lanes must divide pe = {fold.pe}, not {fold.lanes!r}")
        check(fold.source in ("memory", "shift"), f"Window source must be 'memory' or 'shift', not {fold.source!r}")
        parts = groups_at_once(fold.pe, outputs, groups)
        check(parts == 1 or fold.simd == per_group, f"Simd must be {per_group} where pe spans groups, not {fold.simd!r}")
        sends = outputs // fold.pe // (groups // parts)  # of each window, or of each part of it
        fused = pool if fold.source == "memory" else (1, 1)
        beat = fold.simd * parts if fold.source == "memory" else channels
        self._border = border = Border.trimmed((height, width), pads, reach((kh, kw), dilation), stride, pool, channels // beat)
        in_shape = shape_of(*x_range)
        if any(border.pads):                             # the border's code may lie outside what comes in
            x_range = min(x_range[0], pad_value), max(x_range[1], pad_value)
        x_shape = shape_of(*x_range)
        geometry = dict(height=border.height, width=border.width, channels=channels, kernel=(kh, kw), stride=stride, groups=sends,
                        technology=technology)
        self.window: MemoryWindow | ShiftWindow
        if fold.source == "memory":
            self.window = deep(fold.depth, lambda depth: MemoryWindow(
                x_shape, beat, pool=fused, dilation=dilation, parts=groups // parts, depth=depth, spram=fold.spram, **geometry))
        else:
            check(groups == 1 and dilation == (1, 1), "Shift window takes neither groups nor dilation")
            self.window = ShiftWindow(x_shape, **geometry)
            check(fold.simd == self.window.simd, f"Simd of a shift window must be {self.window.simd}, not {fold.simd!r}")
        repeat = fused[0] * fused[1]
        blocks: list[tuple[str, wiring.Component]] = gears(in_shape, in_lanes, beat)
        blocks += border.blocks(in_shape, beat, pad_value, x_shape)
        self._lanes, self._pool = (in_lanes, beat), pool
        arranged = weight.reshape(outputs, self.window.words, self.window.simd // parts)
        self.matvec: MatVec | WiredMatVec
        # The second offset and the bias that needs an adder of its own want whole sums.
        late = fold.pe > fold.lanes and not requant.offset_neg.size and (bias is None or not bias.any())
        if fold.style == "wired":
            check(fold.source == "shift" and fold.pe == outputs,
                  f"Style wired takes a shift window and all {outputs} outputs at once, not pe = {fold.pe} and a {fold.source} "
                  "window")
            self.matvec = WiredMatVec(arranged, x_range, every=_WIRED_LEVELS, steps=fold.steps)
        else:
            self.matvec = MatVec(arranged, weight_format, x_range, pe=fold.pe, parts=parts, repeat=repeat, block_rom=fold.block_rom,
                                 logic_bits=fold.logic_bits,
                                 style=fold.style, late=late, technology=technology)
        order = (outputs // fold.pe, repeat, fold.pe // fold.lanes)
        in_range, ranges, too_much = self.matvec.acc_range, self.matvec.ranges, self.matvec.too_much
        blocks += [("window", self.window), ("matvec", self.matvec)]
        constants = too_much if bias is None else too_much - bias
        if (bias is not None and bias.any()) or (requant.offset_neg.size and constants.any()):   # it must see the true sign
            deduct = Deduct(ranges, constants, pe=fold.pe, repeat=repeat, block_rom=fold.block_scales, technology=technology)
            in_range, ranges, too_much = deduct.out_range, deduct.ranges, np.zeros_like(too_much)
            blocks.append(("deduct", deduct))
        self.requantizer = requant.block(in_range, outputs, fold.lanes, order, technology, too_much, ranges, fold.block_scales,
                                         fold.scale_bits)
        # Sums that come more slowly than they leave need no path of ready through the serializer.
        self._relaxed = self.window.words > fold.pe // fold.lanes
        if isinstance(self.matvec, MatVec) and self.matvec.shares:
            blocks.append(("serializer", SharedSerializer(self.matvec.sum_shape, self.matvec.share_most.bit_length(),
                                                          self.matvec.acc_shape,
                                                          fold.pe, fold.lanes, relaxed=self._relaxed)))
        elif fold.pe > fold.lanes:
            blocks.append(("serializer", Serializer(shape_of(*in_range), fold.pe, fold.lanes, relaxed=self._relaxed)))
        blocks.append(("requantizer", self.requantizer))
        out_range = (requant.lo, requant.hi)
        if repeat > 1:
            blocks.append(("pool", Reduce("max", out_range, lanes=fold.lanes, counts=(repeat, order[2]), over=(True, False),
                                          technology=technology)))
        elif pool != (1, 1):
            blocks += pool_blocks("max", out_range, fold.lanes, self.window.rows, self.window.cols, outputs, pool, technology)
        self.out_shape, self.out_lanes, self.fold = self.requantizer.out_shape, fold.lanes, fold
        # else the serializer cuts what the next stage's ready reaches
        if pool != (1, 1) or not self._relaxed or fold.pe == fold.lanes:
            blocks.append(("buffer", StreamBuffer(self.out_shape, fold.lanes)))
        self._kept = [k < wanted // fold.lanes for k in range(outputs // fold.lanes)]
        if spare:
            blocks.append(("spare", Cropper(self.out_shape, fold.lanes, height=1, width=len(self._kept), words=1,
                                            keep=(1, sum(self._kept)))))
        super().__init__(blocks)

    @property
    def cycles(self) -> int:
        """Cycles a frame that the stage itself needs: the most of window, requantizer and input."""
        results = self.window.rows * self.window.cols * self.matvec.outputs // self.fold.lanes
        results *= self.matvec.repeat * self.requantizer.every
        beats, every = self.fold.pe // self.fold.lanes, self.requantizer.every
        # windows wait, and where none ends little is made up
        if isinstance(self.window, ShiftWindow) and beats * every > self.window.groups:
            results = _paced(tuple(self.window.ends), self.window.groups, beats, every, self.matvec.latency)
        return max(self.window.cycles, results, self._border.cycles)

    @property
    def ring(self) -> Ring | None:
        """The memory window, None for a shift window."""
        return self.window if isinstance(self.window, MemoryWindow) else None

    @property
    def eager(self) -> bool:
        """Whether the first windows of a frame lie in the border, so that their results need nothing of the frame."""
        first = self.window.span if isinstance(self.window, MemoryWindow) else self.window.ends.index(True) + 1
        return not any(self._border.inside[:first])

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``, first actor first."""
        inside, pool = self._border.inside, self._pool
        beats, every = self.fold.pe // self.fold.lanes, self.requantizer.every
        latency = self.requantizer.latency + 6
        actors: list[Actor] = []
        if isinstance(self.window, MemoryWindow):
            w = self.window
            after = after if all(self._kept) else Filter(after, self._kept, 0)
            repeat = w.pool[0] * w.pool[1]               # of a pooled block, only the maxima leave the stage
            actors = [RingActor(after, inside, starts=w.starts, span=w.span, capacity=w.capacity, groups=w.sends,
                                group_cycles=repeat * max(w.words, beats * every if repeat > 1 else 1), run=w.run,
                                turns=w.turns(w.sends), beats=beats, every=every,
                                latency=self.window.latency + self.matvec.latency + latency,
                                gap=1 + self._relaxed if beats > 1 else max(every, 1 + self._relaxed))]
        else:
            if pool != (1, 1):
                actors = [pool_actor(after, self.window.rows, self.window.cols, self.matvec.outputs // self.fold.lanes, pool)]
            actors.insert(0, ShiftActor(actors[0] if actors else after, inside, windows=self.window.ends,
                                        groups=self.window.groups, beats=beats, every=every, depth=self.matvec.latency,
                                        latency=latency, bare=self.window.bare))
        actors = self._border.actors(actors[0]) + actors
        return gear_actors(actors[0], *self._lanes) + actors


@lru_cache
def _paced(windows: tuple[bool, ...], groups: int, beats: int, every: int, depth: int) -> int:
    """Return the cycles a frame of a shift window on its own, its pixels and results never waiting."""
    def make() -> list[Actor]:
        sink = Sink(sum(windows) * groups * beats)
        return [ShiftActor(sink, [True] * len(windows), windows=windows, groups=groups, beats=beats, every=every, depth=depth,
                           latency=0), sink]

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
    found = ring.min_depth
    while found < ring.full_depth and ring.blocks(2 * found) == ring.blocks(found):
        found *= 2
    return make(found)


def pool_blocks(op: str, in_range: tuple[int, int], lanes: int, height: int, width: int, channels: int, kernel: tuple[int, int],
                technology: Technology) -> list[tuple[str, wiring.Component]]:
    """Return the blocks of a pooling whose stride is its kernel, rows and columns beyond whole windows left out."""
    shape = shape_of(*in_range)
    rows, cols = height // kernel[0], width // kernel[1]
    check(rows >= 1 and cols >= 1, f"Pool {kernel!r} must fit the image of {height}x{width}")
    check(channels % lanes == 0, f"Lanes must divide the {channels} channels, not {lanes!r}")
    blocks: list[tuple[str, wiring.Component]] = []
    words = channels // lanes
    if (rows * kernel[0], cols * kernel[1]) != (height, width):
        blocks.append(("crop", Cropper(shape, lanes, height=height, width=width, words=words,
                                       keep=(rows * kernel[0], cols * kernel[1]))))
    blocks.append(("pool", Reduce(op, in_range, lanes=lanes, counts=(rows, kernel[0], cols, kernel[1], words),
                                  over=(False, True, False, True, False), technology=technology)))
    return blocks


class RequantStage(Chain):
    """Requantization as a stage of its own.

    Parameters
    ----------
    x_range, lanes, pixels, channels, requant, bits, technology
        Inclusive range of the values, lanes of the stream, pixels of the image (1 for a flat tensor), channels, the function, see
        `Requantizer`.

    Members
    -------
    i : stream of ``lanes`` values
    o : stream of ``lanes`` codes

    Cycles a frame: `Requantizer.every` a beat.
    """

    def __init__(self, x_range: tuple[int, int], *, lanes: int = 1, pixels: int, channels: int, requant: Requant,
                 bits: int = 0, technology: Technology):
        check(channels % lanes == 0, f"Lanes must divide the {channels} channels, not {lanes!r}")
        run = requant.run(channels)                      # of a flat image whose pixels have parameters of their own, its channels
        rows = np.repeat(np.arange(0, channels, run), lanes)
        if run > lanes and run % lanes == 0 and run < channels:
            self.requantizer = requant.repeated(rows).block(x_range, len(rows), lanes, (channels // run, run // lanes, 1),
                                                            technology, bits=bits)
        else:
            self.requantizer = requant.block(x_range, channels, lanes, (channels // lanes, 1, 1), technology, bits=bits)
        self.cycles = pixels * channels // lanes * self.requantizer.every
        self.out_lanes, self.out_shape = lanes, self.requantizer.out_shape
        super().__init__([("requantizer", self.requantizer), ("buffer", StreamBuffer(self.out_shape, lanes))])

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``."""
        return [Filter(after, [True], self.requantizer.latency + 1, self.requantizer.every)]
