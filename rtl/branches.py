"""Where a stream branches and where it waits for another: `StreamFork`, `StreamFifo`."""

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Shape, Signal
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, Technology, check_int, lanes_stream
from .handshake import Fork, Part, Queue
from .memory import make_ram

__all__ = ["StreamFork", "StreamFifo"]

# Up to this many bits wait in registers; more go into block RAM.
_REGISTER_BITS = 64


class StreamFork(Block):
    """Give every beat to several readers, each of which takes it when it likes; the next one comes when all have.

    Parameters
    ----------
    shape : Shape
        Of one lane.
    lanes : int
        Lanes a beat.
    readers : int
        At least 2.

    Members
    -------
    i : stream of ``lanes`` values
    o0, o1, ... : the same; combinational from ``i``, and no reader's ready is seen by another
    """

    latency = 0

    def __init__(self, shape: Shape, lanes: int, readers: int):
        check_int("Lanes", lanes)
        self.shape, self.lanes, self.readers = shape, lanes, check_int("Readers", readers, 2)
        super().__init__({"i": In(lanes_stream(shape, lanes)),
                          **{f"o{k}": Out(lanes_stream(shape, lanes)) for k in range(readers)}})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Fork(self.readers),)

    @property
    def cost(self) -> Cost:
        """Logic cells."""
        return Cost(lc=1 + 2 * self.readers)

    def model(self, x: np.ndarray) -> list[np.ndarray]:
        """Return the stream for each reader."""
        return [x] * self.readers

    def elaborate(self, platform):
        m = Module()
        took, done = Signal(self.readers), Signal(self.readers)          # before this beat's last cycle; by its end
        for k in range(self.readers):
            o = getattr(self, f"o{k}")
            m.d.comb += [o.payload.eq(self.i.payload), o.valid.eq(self.i.valid & ~took[k]), done[k].eq(took[k] | o.ready)]
        m.d.comb += self.i.ready.eq(done.all())
        with m.If(self.i.valid):
            m.d.sync += took.eq(Mux(self.i.ready, 0, done))
        return m


class StreamFifo(Block):
    """Hold up to ``depth`` beats: in registers where they are few bits, else in block RAM. Full rate from depth `latency` + 1 on.

    Parameters
    ----------
    shape : Shape
        Of one lane.
    lanes : int
        Lanes a beat.
    depth : int
        Beats that are taken before the first one must leave; no more.
    technology : Technology

    Members
    -------
    i, o : streams of ``lanes`` values; no path from one side to the other
    """

    def __init__(self, shape: Shape, lanes: int, depth: int, *, technology: Technology):
        check_int("Lanes", lanes)
        self.shape, self.lanes, self.depth, self.technology = shape, lanes, check_int("Depth", depth), technology
        self.in_block = depth > 2 and depth * shape.width * lanes > _REGISTER_BITS
        super().__init__({"i": In(lanes_stream(shape, lanes)), "o": Out(lanes_stream(shape, lanes))})

    @property
    def latency(self) -> int:
        """Cycles from a beat in to its beat out."""
        return 2 if self.in_block else 1

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Queue(self.depth, self.latency),)

    @property
    def cost(self) -> Cost:
        """Logic cells, blocks."""
        width = self.shape.width * self.lanes
        if self.in_block:
            return Cost(lc=10 + 5 * self.depth.bit_length(), ebr=self.technology.blocks(width, self.depth))
        return Cost(lc=2 + self.depth * (1 + width))

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return the stream unchanged."""
        return x

    def elaborate(self, platform):
        m = Module()
        (self._in_block if self.in_block else self._in_registers)(m)
        return m

    def _in_registers(self, m: Module) -> None:
        """Beats move towards place 0; ``full`` marks the places in use, a run of ones from the bottom."""
        full, after = Signal(self.depth), Signal(self.depth)
        places = [Signal(self.shape.width * self.lanes, name=f"place{k}", reset_less=True) for k in range(self.depth)]
        put, take = self.i.valid & self.i.ready, self.o.valid & self.o.ready
        m.d.comb += [self.i.ready.eq(~full[-1]), self.o.valid.eq(full[0]), self.o.payload.as_value().eq(places[0]),
                     after.eq(Mux(take, full >> 1, full))]
        m.d.sync += full.eq(Mux(put, Cat(1, after), after))
        for k, place in enumerate(places):
            with m.If(~after[k]):
                m.d.sync += place.eq(self.i.payload.as_value())
            if k + 1 < self.depth:
                with m.Elif(take):
                    m.d.sync += place.eq(places[k + 1])

    def _in_block(self, m: Module) -> None:
        write, read = make_ram(m, "ram", self.depth, self.shape.width * self.lanes)
        held, stored = Signal(range(self.depth + 1)), Signal(range(self.depth + 1))      # in all; of these not read yet
        put, take, fetch = self.i.valid & self.i.ready, self.o.valid & self.o.ready, Signal()
        m.d.comb += [self.i.ready.eq(held != self.depth), fetch.eq((stored != 0) & (self.o.ready | ~self.o.valid)),
                     write.en.eq(put), write.data.eq(self.i.payload.as_value()), read.en.eq(fetch),
                     self.o.payload.as_value().eq(read.data)]
        m.d.sync += [held.eq(held + put - take), stored.eq(stored + put - fetch)]
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += self.o.valid.eq(fetch)
        for port, moves in ((write, put), (read, fetch)):
            with m.If(moves):
                m.d.sync += port.addr.eq(Mux(port.addr == self.depth - 1, 0, port.addr + 1))
