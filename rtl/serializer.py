"""From the ``pe`` sums of a window to a narrower stream, so that the requantizer needs few lanes."""

import numpy as np
from amaranth.hdl import Module, Shape, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, lanes_stream
from .handshake import Part, Pipe
from .matvec import shared_layout
from .shapers import WidthConverter

__all__ = ["Serializer", "SharedSerializer"]


class Serializer(WidthConverter):
    """Send ``pe`` sums as ``pe / lanes`` beats; a new set is taken in the cycle in which the last beat leaves,
    or, if ``relaxed``, in the one after.

    Parameters and members as for `WidthConverter`.
    """


class SharedSerializer(Block):
    """A `Serializer` that adds to each sum what `MatVec` gives for all of them: an adder a lane instead of one a sum.

    Parameters
    ----------
    shape : Shape
        Of a sum.
    share : int
        Bits of what is added.
    out_shape : Shape
        Of a whole sum.
    pe, lanes, relaxed
        As for `Serializer`.

    Members
    -------
    i : stream of `shared_layout`
    o : stream of ``lanes`` sums
    """

    latency = 2

    def __init__(self, shape: Shape, share: int, out_shape: Shape, pe: int, lanes: int, *, relaxed: bool = False):
        self.out_shape, self.pe, self.lanes = out_shape, pe, lanes
        self._parts = WidthConverter(shape, pe, lanes, relaxed=relaxed)
        self._share = share
        super().__init__({"i": In(stream.Signature(shared_layout(shape, pe, share))), "o": Out(lanes_stream(out_shape, lanes))})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (*self._parts.handshake, Pipe(1))

    @property
    def cost(self) -> Cost:
        """Logic cells."""
        return self._parts.cost + Cost(lc=2 + self._share + self.lanes * self.out_shape.width)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return beats (n, pe + 1), the share last, as beats (n * pe / lanes, lanes)."""
        return (x[:, :-1] + x[:, -1:]).reshape(-1, self.lanes)

    def elaborate(self, platform):
        m = Module()
        m.submodules.parts = parts = self._parts
        share = Signal(self._share, reset_less=True)     # of the sums that are being sent
        m.d.comb += [parts.i.payload.eq(self.i.p.sums), parts.i.valid.eq(self.i.valid), self.i.ready.eq(parts.i.ready),
                     parts.o.ready.eq(~self.o.valid | self.o.ready)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += share.eq(self.i.p.share)
        with m.If(parts.o.ready):
            m.d.sync += self.o.valid.eq(parts.o.valid)
            for lane in range(self.lanes):
                m.d.sync += self.o.payload[lane].eq(parts.o.payload[lane] + share)
        return m
