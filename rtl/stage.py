"""Stages: the chains of blocks that layers become. A stage takes and gives one stream in raster order."""

from dataclasses import dataclass
from math import gcd

import numpy as np
from amaranth.lib import wiring

from hwq.formats import Format

from .accelerator import Chain
from .common import Technology, check, check_int, shape_of
from .matvec import MatVec
from .reduce import Reduce
from .requantizer import Requantizer
from .serializer import Serializer
from .shapers import Cropper, Padder, StreamBuffer, WidthConverter
from .window import MemoryWindow, ShiftWindow

__all__ = ["Folding", "Requant", "ConvStage", "PoolStage", "GlobalPoolStage", "gears"]


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
    block_rom, dsp : bool
        Weights in block RAM; products in multiplier blocks.
    full_rate : bool
        Ring deep enough never to wait (`MemoryWindow`); otherwise as deep as its least blocks allow.
    """

    pe: int = 1
    simd: int = 1
    source: str = "memory"
    lanes: int = 1
    block_rom: bool = True
    dsp: bool = True
    full_rate: bool = False


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
              technology: Technology) -> Requantizer:
        """Return the block for accumulators of ``in_range``."""
        return Requantizer(in_range, mult=self.mult, offset=self.offset, offset_neg=self.offset_neg, shift=self.shift,
                           lo=self.lo, hi=self.hi, half_even=self.half_even, channels=channels, lanes=lanes, order=order,
                           technology=technology)


def gears(shape, lanes_in: int, lanes_out: int) -> list[tuple[str, wiring.Component]]:
    """Return the converters from one number of lanes to another: none, one, or two by way of their divisor."""
    if lanes_in == lanes_out:
        return []
    middle = gcd(lanes_in, lanes_out)
    if middle in (lanes_in, lanes_out):
        return [("gear", WidthConverter(shape, lanes_in, lanes_out))]
    return [("gear_down", WidthConverter(shape, lanes_in, middle)), ("gear_up", WidthConverter(shape, middle, lanes_out))]


class ConvStage(Chain):
    """Convolution or linear layer with requantization, and max pooling over whole blocks of its windows.

    Parameters
    ----------
    weight : int array (outputs, kh, kw, channels)
        Integer values; a linear layer has kh = kw = 1.
    weight_format : Format
        Of the ROM entries.
    x_range : (int, int)
        Inclusive range of the codes.
    height, width : int
        Image without border, in pixels; 1, 1 for a linear layer.
    stride : (int, int)
    pads : (top, left, bottom, right)
    pad_value : int
        Code outside the image.
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
                 stride: tuple[int, int] = (1, 1), pads: tuple[int, int, int, int] = (0, 0, 0, 0), pad_value: int = 0,
                 requant: Requant, pool: tuple[int, int] = (1, 1), in_lanes: int = 1, fold: Folding, technology: Technology):
        outputs, kh, kw, channels = weight.shape
        check_int("Pe", fold.pe)
        check_int("Simd", fold.simd)
        check(outputs % fold.pe == 0, f"Pe must divide the {outputs} outputs, not {fold.pe!r}")
        check(fold.pe % fold.lanes == 0, f"Requantizer lanes must divide pe = {fold.pe}, not {fold.lanes!r}")
        check(fold.source in ("memory", "shift"), f"Window source must be 'memory' or 'shift', not {fold.source!r}")
        x_shape = shape_of(*x_range)
        padded = (height + pads[0] + pads[2], width + pads[1] + pads[3])
        groups = outputs // fold.pe
        geometry = dict(height=padded[0], width=padded[1], channels=channels, kernel=(kh, kw), stride=stride, groups=groups,
                        technology=technology)
        self.window: MemoryWindow | ShiftWindow
        fused = pool if fold.source == "memory" else (1, 1)
        if fold.source == "memory":
            self.window = MemoryWindow(x_shape, fold.simd, pool=fused, **geometry)
            depth = self.window.min_depth
            while depth < self.window.full_depth and (fold.full_rate or technology.blocks(
                    x_shape.width * fold.simd, 2 * depth) == technology.blocks(x_shape.width * fold.simd, depth)):
                depth *= 2
            self.window = MemoryWindow(x_shape, fold.simd, pool=fused, depth=depth, **geometry)
            beat = fold.simd
        else:
            self.window = ShiftWindow(x_shape, **geometry)
            check(fold.simd == self.window.simd, f"Simd of a shift window must be {self.window.simd}, not {fold.simd!r}")
            beat = channels
        repeat = fused[0] * fused[1]
        blocks: list[tuple[str, wiring.Component]] = gears(x_shape, in_lanes, beat)
        if any(pads):
            blocks.append(("padder", Padder(x_shape, beat, height=height, width=width, words=channels // beat, pads=pads,
                                            value=pad_value)))
        arranged = weight.reshape(outputs, self.window.words, self.window.simd)
        self.matvec = MatVec(arranged, weight_format, x_range, pe=fold.pe, repeat=repeat, block_rom=fold.block_rom,
                             dsp=fold.dsp, technology=technology)
        order = (groups, repeat, fold.pe // fold.lanes)
        self.requantizer = requant.block(self.matvec.acc_range, outputs, fold.lanes, order, technology)
        blocks += [("window", self.window), ("matvec", self.matvec),
                   ("serializer", Serializer(self.matvec.acc_shape, fold.pe, fold.lanes)),
                   ("requantizer", self.requantizer)]
        out_range = (requant.lo, requant.hi)
        if repeat > 1:
            blocks.append(("pool", Reduce("max", out_range, lanes=fold.lanes, counts=(repeat, order[2]), over=(True, False),
                                          technology=technology)))
        elif pool != (1, 1):
            blocks += pool_blocks(out_range, fold.lanes, self.window.rows, self.window.cols, outputs, pool, technology)
        self.out_shape, self.out_lanes, self.fold = self.requantizer.out_shape, fold.lanes, fold
        blocks.append(("buffer", StreamBuffer(self.out_shape, fold.lanes)))
        super().__init__(blocks)

    @property
    def cycles(self) -> int:
        """Cycles a frame in steady state: the slowest of window, requantizer and padder."""
        results = self.window.rows * self.window.cols * self.matvec.outputs // self.fold.lanes
        results *= self.matvec.repeat
        pads = [named.block.cycles for named in self.blocks if isinstance(named.block, Padder)]
        return max(self.window.cycles, results, *pads, 0)


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
        self.out_lanes, self.out_shape = lanes, shape_of(*in_range)
        super().__init__([*pool_blocks(in_range, lanes, height, width, channels, kernel, technology),
                          ("buffer", StreamBuffer(self.out_shape, lanes))])


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
