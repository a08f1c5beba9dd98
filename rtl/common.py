"""What the blocks share: streams, parameter checks, cost rows, and the technology argument."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from math import ceil
from typing import Any

from amaranth.hdl import Shape
from amaranth.lib import data, stream, wiring

from hwq.arith import width_of
from hwq.errors import ModelError

__all__ = ["Block", "Cost", "Technology", "GENERIC", "ICE40", "ICE40UP", "ECP5", "lanes_layout", "lanes_stream", "shape_of",
           "check_int", "check", "pack_lanes"]


class Block(wiring.Component):
    """Base of all blocks.

    The planner makes many only to ask their cost. So the ports, which take long to make, come into being when the
    first of them is asked for, and Amaranth need not warn of blocks that are never elaborated.

    ``handshake``, of blocks with one input and one output or those that fork or join, are the parts that say when beats move
    (`hwq.rtl.handshake`), the input's first.
    """

    _MustUse__silence = True

    def __init__(self, members: dict[str, wiring.Member]):
        self.members = members

    def __getattr__(self, name: str):
        members = self.__dict__.get("members")
        if members is None or "_Component__signature" in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        super().__init__(members)
        return getattr(self, name)


@dataclass(frozen=True)
class Cost:
    """Estimated resources: logic cells, block RAMs (EBR), multiplier blocks (DSP), large RAMs of one port (SPRAM).

    Logic cells are a fit to synthesis results (docs/benchmarks.md gives the error); the others are counted.
    """

    lc: float = 0
    ebr: int = 0
    dsp: int = 0
    spram: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.lc + other.lc, self.ebr + other.ebr, self.dsp + other.dsp, self.spram + other.spram)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.lc - other.lc, self.ebr - other.ebr, self.dsp - other.dsp, self.spram - other.spram)

    def rounded(self) -> dict[str, int]:
        """Return the resources by name, logic cells as a whole number."""
        return asdict(self) | {"lc": round(self.lc)}


@dataclass(frozen=True)
class Technology:
    """What a family's memories and multipliers are like.

    Attributes
    ----------
    name : str
        ``generic``, ``ice40`` (HX, LP), ``ice40up`` (UltraPlus: multiplier blocks), ``ecp5``.
    block_shapes : tuple of (depth, width)
        Shapes of one block RAM, in words and bits; empty means that memories are not counted in blocks.
    startup_cycles : int
        Cycles for which the core holds itself in reset after configuration. iCE40 block RAM reads zeros for about
        3 us; Amaranth's platform waits 15 us, which 1,023 cycles give up to 68 MHz. On ECP5, flip-flops leave the
        configuration's reset at no particular edge of the clock; some cycles later all have.
    dsp_min_width : int
        Least width of a product, in bits, that synthesis maps onto a multiplier block (0: none).
    spram_shape : (int, int)
        Words and bits of one large RAM with a single port and no contents at the start; (0, 0): there is none.
    dsp_pairs : bool
        A multiplier block takes two products of narrow factors (`hwq.rtl.product_pair.ProductPair`).
    free_words : int
        Words of a ROM in logic among which cells choose that are no look-up tables.
    rom_growth : float
        Logic cells of a deeper ROM in logic, for each look-up table of 16 bits that its contents would fill.
    """

    name: str
    block_shapes: tuple[tuple[int, int], ...] = ()
    startup_cycles: int = 0
    dsp_min_width: int = 0
    dsp_pairs: bool = False
    spram_shape: tuple[int, int] = (0, 0)
    free_words: int = 16
    rom_growth: float = 2.05

    @property
    def block_bits(self) -> int:
        """Bits that one block RAM holds; 0 where memories are not counted in blocks."""
        return max((depth * width for depth, width in self.block_shapes), default=0)

    def blocks(self, width: int, depth: int) -> int:
        """Return the block RAMs that a memory of ``depth`` words of ``width`` bits takes."""
        if not self.block_shapes:
            return 0
        return min(ceil(depth / d) * ceil(width / w) for d, w in self.block_shapes)

    def rom_cells(self, depth: int) -> float:
        """Return the logic cells a bit of a ROM of ``depth`` words in logic: a table holds 16, and others choose among tables."""
        if depth <= self.free_words:
            return max(1.0, depth / 16)
        return depth / 16 * self.rom_growth


_EBR = ((256, 16), (512, 8), (1024, 4), (2048, 2))
GENERIC = Technology("generic")
ICE40 = Technology("ice40", _EBR, startup_cycles=1023)
ICE40UP = Technology("ice40up", _EBR, startup_cycles=1023, dsp_min_width=11, dsp_pairs=True, spram_shape=(1 << 14, 16))
# MULT18X18D; Yosys 0.70 maps a product of 9 bits on. Every ninth bit is lost in shapes narrower than 9.
ECP5 = Technology("ecp5", ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1)), startup_cycles=255, dsp_min_width=9,
                  free_words=128, rom_growth=1.35)


def shape_of(lo: int, hi: int) -> Shape:
    """Return the least Amaranth shape that holds ``lo..hi``."""
    return Shape(*width_of(lo, hi))


@cache
def lanes_layout(shape: Shape, lanes: int) -> data.ArrayLayout:
    """Return the payload of ``lanes`` values side by side, lane 0 in the low bits."""
    return data.ArrayLayout(shape, lanes)


@cache
def lanes_stream(shape: Shape, lanes: int) -> stream.Signature:
    """Return a stream of ``lanes`` values a beat."""
    return stream.Signature(lanes_layout(shape, lanes))


def check(condition: bool, message: str) -> None:
    """Raise `ModelError` unless ``condition`` holds."""
    if not condition:
        raise ModelError(message)


def check_int(name: str, value: Any, least: int = 1) -> int:
    """Return ``value`` if it is an integer of at least ``least``, else raise `ModelError`."""
    check(isinstance(value, int) and not isinstance(value, bool) and value >= least,
          f"{name} must be an integer of at least {least}, not {value!r}")
    return value


def pack_lanes(values: Iterable[int], width: int) -> int:
    """Return one memory word: the values side by side, two's complement, the first in the low bits."""
    word = 0
    for index, value in enumerate(values):
        word |= (int(value) & ((1 << width) - 1)) << (index * width)
    return word
