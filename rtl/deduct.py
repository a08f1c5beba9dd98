"""Take each output's constant off its sums, where what follows must see the true sign."""

import numpy as np
from amaranth.hdl import Array, Module, Signal
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, check, check_int, lanes_stream, shape_of
from .handshake import Part, Pipe
from .loops import Sweep

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

    Members
    -------
    i, o : streams of ``pe`` values; ``o`` just as wide as the ranges ask for

    One beat a cycle.
    """

    latency = 1

    def __init__(self, ranges: np.ndarray, constants: np.ndarray, *, pe: int = 1, repeat: int = 1):
        check_int("Pe", pe)
        check_int("Repeat", repeat)
        check(len(constants) % pe == 0, f"Pe must divide the {len(constants)} outputs, not {pe!r}")
        self.constants, self.pe, self.repeat, self.groups = constants, pe, repeat, len(constants) // pe
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
        """Logic cells."""
        bits = max(1, int(np.abs(self.constants).max()).bit_length())
        return Cost(lc=10 + self.pe * (self.out_shape.width + bits * max(1, self.groups / 16)))

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return beats (n, pe) less their constants."""
        group = np.arange(len(x)) // self.repeat % self.groups
        return x - self.constants.reshape(self.groups, self.pe)[group]

    def elaborate(self, platform):
        m = Module()
        m.submodules.loops = loops = Sweep([self.groups, self.repeat], [1, 0], addr_width=max(1, (self.groups - 1).bit_length()))
        en = Signal()
        m.d.comb += [en.eq(~self.o.valid | self.o.ready), self.i.ready.eq(en), loops.en.eq(self.i.valid & en)]
        with m.If(en):
            m.d.sync += self.o.valid.eq(self.i.valid)
            for p in range(self.pe):
                constant = Array(int(c) for c in self.constants[p::self.pe])[loops.addr]
                m.d.sync += self.o.payload[p].eq(self.i.payload[p] - constant)
        return m
