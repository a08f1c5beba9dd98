"""Constants that a block needs for its beats, in turn: wires where all beats have the same, else a ROM."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from amaranth.hdl import Const, Module, Shape, Signal, Value

from .common import Cost, Technology, pack_lanes, shape_of
from .loops import Sweep
from .memory import make_rom

__all__ = ["Constants"]


@dataclass(frozen=True, eq=False)
class Constants:
    """Fields of one value for all channels, or of a value for each.

    Attributes
    ----------
    fields : sequence of int array (1,) or (channels,)
    lanes : int
        Channels of a beat; divides them.
    order : (int, int, int)
        Order of the beats: (groups, repeat, beats a group), for each group ``repeat`` times its beats.
    block : bool
        The ROM lies in block RAM, not in logic.
    """

    fields: Sequence[np.ndarray]
    lanes: int
    order: tuple[int, int, int]
    block: bool = False

    @cached_property
    def _columns(self) -> list[tuple[np.ndarray, Shape]]:
        """The fields, one value where all are the same, and their shapes."""
        columns = [values if (values != values[0]).any() else values[:1] for values in self.fields]
        return [(values, shape_of(int(values.min()), int(values.max()))) for values in columns]

    @property
    def rom(self) -> tuple[int, int]:
        """Words and bits of the ROM; 0 bits: there is none."""
        each = sum(shape.width for values, shape in self._columns if values.size > 1)
        return self.order[0] * self.order[2], each * self.lanes

    def cost(self, technology: Technology) -> Cost:
        """Return what the ROM takes."""
        depth, bits = self.rom
        return Cost(ebr=technology.blocks(bits, depth)) if self.block and bits else Cost(lc=bits * technology.rom_cells(depth))

    def read(self, m: Module, goes: Value) -> tuple[list[list[Value]], Value]:
        """Add the ROM, which is read one beat ahead.

        Parameters
        ----------
        m : Module
        goes : Value
            The beat goes at the end of this cycle.

        Returns
        -------
        beat : list of list of Value
            Each lane's fields.
        there : Value
            Whether the beat's constants are: from the second cycle on. No beat may go before.
        """
        depth, bits = self.rom
        if not bits:
            return [[Const(int(values[0]), shape) for values, shape in self._columns] for _ in range(self.lanes)], Const(1)
        groups, repeat, beats = self.order
        read = make_rom(m, "rom", [self._word(beat) for beat in range(depth)], bits, block=self.block)
        m.submodules.loops = loops = Sweep([groups, repeat, beats], [beats, 0, 1], addr_width=max(1, (depth - 1).bit_length()))
        there = Signal(name="constants_there")
        m.d.sync += there.eq(1)
        m.d.comb += [loops.en.eq(goes | ~there), read.addr.eq(loops.addr), read.en.eq(loops.en)]
        lanes: list[list[Value]] = []
        position = 0
        for _ in range(self.lanes):
            lanes.append([])
            for values, shape in self._columns:
                if values.size == 1:
                    lanes[-1].append(Const(int(values[0]), shape))
                    continue
                part = read.data[position:position + shape.width]
                lanes[-1].append(part.as_signed() if shape.signed else part)
                position += shape.width
        return lanes, there

    def _word(self, beat: int) -> int:
        word = 0
        for lane in reversed(range(self.lanes)):
            for values, shape in reversed(self._columns):
                if values.size > 1:
                    word = word << shape.width | pack_lanes([values[beat * self.lanes + lane]], shape.width)
        return word
