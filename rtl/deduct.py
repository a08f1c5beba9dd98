"""Take each output's constant off its sums, where what follows must see the true sign."""

import numpy as np
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, Technology, check, check_int, lanes_stream, shape_of
from .constants import Constants
from .handshake import Part, Pipe

__all__ = ["Deduct"]


class Deduct(Block):
    """Subtract a constant of each output.

    Parameters
    ----------
    ranges : int array (outputs, 2)
        Inclusive range of each output's values.
    constants : int array (outputs,)
    pe : int
        Outputs a beat; divides the outputs.
    repeat : int
        Beats one after another for each group of outputs.
    block_rom : bool
        The constants lie in block RAM.
    technology : Technology

    Members
    -------
    i, o : streams of ``pe`` values; ``o`` just as wide as the ranges ask for

    One beat a cycle.
    """

    latency = 1

    def __init__(self, ranges: np.ndarray, constants: np.ndarray, *, pe: int = 1, repeat: int = 1, block_rom: bool = False,
                 technology: Technology):
        check_int("Pe", pe)
        check_int("Repeat", repeat)
        check(len(constants) % pe == 0, f"Pe must divide the {len(constants)} outputs, not {pe!r}")
        self.constants, self.pe, self.repeat, self.groups = constants, pe, repeat, len(constants) // pe
        self.technology, self._table = technology, Constants([constants], pe, (self.groups, repeat, 1), block_rom)
        self.ranges = ranges - constants[:, None]
        self.out_range = min(0, int(self.ranges.min())), max(0, int(self.ranges.max()))
        self.out_shape = shape_of(*self.out_range)
        in_range = min(0, int(ranges.min())), max(0, int(ranges.max()))
        super().__init__({"i": In(lanes_stream(shape_of(*in_range), pe)), "o": Out(lanes_stream(self.out_shape, pe))})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Pipe(self.latency),)

    @property
    def cost(self) -> Cost:
        """Logic cells, blocks of constants."""
        return Cost(lc=10 + self.pe * self.out_shape.width) + self._table.cost(self.technology)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return beats (n, pe) less their constants."""
        group = np.arange(len(x)) // self.repeat % self.groups
        return x - self.constants.reshape(self.groups, self.pe)[group]

    def elaborate(self, platform):
        m = Module()
        en, goes = Signal(), Signal()
        constants, there = self._table.read(m, goes)
        m.d.comb += [en.eq(~self.o.valid | self.o.ready), self.i.ready.eq(en & there), goes.eq(self.i.valid & self.i.ready)]
        with m.If(en):
            m.d.sync += [self.o.valid.eq(goes), *(out.eq(value - constant) for out, value, (constant,) in zip(
                self.o.payload, self.i.payload, constants, strict=True))]
        return m
