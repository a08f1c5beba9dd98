"""Keep the last words of a stream in a ring of block RAM and read them by nested loops."""

from collections.abc import Sequence
from math import prod

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, Technology, check, check_int, lanes_layout, lanes_stream
from .handshake import Part, Window
from .loops import LoopNest
from .memory import make_ram

__all__ = ["Ring", "window_layout"]


def window_layout(shape: Shape, simd: int) -> data.StructLayout:
    """Return a word of ``simd`` codes with the mark of the window's last word."""
    return data.StructLayout({"x": lanes_layout(shape, simd), "last": 1})


class Ring(Block):
    """Store frames of words, and send for each *block* of neighbouring words what nested loops read from it.

    Parameters
    ----------
    shape : Shape
        Of one code.
    lanes : int
        Codes a word.
    frame : int
        Words a frame.
    outer : two (count, stride)
        Loops of the blocks, outermost first; strides in words. A block's words are freed when the next block begins.
    loops : sequence of (count, stride)
        What is read of each block, outermost first.
    span : int
        Words from a block's first to its last one.
    mark : int
        ``last`` of the payload marks the last word of the loops ``loops[mark:]``.
    depth : int or None
        Words of the ring, a power of two; `min_depth` works, `full_depth` never waits for a source that is fast enough.
    technology : Technology

    Members
    -------
    i : stream of ``lanes`` codes
    o : stream of `window_layout`

    Cycles a frame: `cycles`, without a bubble if the ring is deep enough for what comes before and behind it
    (`hwq.rtl.schedule` tells).
    """

    latency = 3                                          # cycles from the word that completes a block to its first word

    def __init__(self, shape: Shape, lanes: int, *, frame: int, outer: Sequence[tuple[int, int]], loops: Sequence[tuple[int, int]],
                 span: int, mark: int, depth: int | None, technology: Technology):
        self.shape, self.lanes, self.span, self.technology = shape, lanes, span, technology
        self._frame, self._outer, self._loops, self._mark = frame, tuple(outer), tuple(loops), mark
        (rows, down), (cols, right) = self._outer
        # How far the oldest word still needed moves when a block is done: in a row, to the next row, to the next frame.
        self._moves = (right, down - (cols - 1) * right, frame - (rows - 1) * down - (cols - 1) * right)
        self.min_depth = 1 << span.bit_length()
        self.full_depth = self.min_depth
        while self._room_of(self.full_depth) < max(self._moves) + 1:
            self.full_depth *= 2
        self.depth = self.min_depth if depth is None else depth
        check_int("Depth", self.depth, self.min_depth)
        check(self.depth & (self.depth - 1) == 0, f"Depth must be a power of two, not {depth!r}")
        self.capacity = self.capacity_of(self.depth)
        super().__init__({"i": In(lanes_stream(shape, lanes)), "o": Out(stream.Signature(window_layout(shape, lanes)))})

    def _room_of(self, depth: int) -> int:
        """Return the words beyond a block's at which the ring counts as full: rounded down, so that three bits tell."""
        room = depth - 1 - self.span
        grain = max(0, room.bit_length() - 3)
        return room >> grain << grain

    def capacity_of(self, depth: int) -> int:
        """Return the words after which a ring of that depth counts as full."""
        return self.span + self._room_of(depth)

    @property
    def starts(self) -> list[int]:
        """Word of the frame at which each block begins."""
        (rows, down), (cols, right) = self._outer
        return [y * down + x * right for y in range(rows) for x in range(cols)]

    @property
    def cycles(self) -> int:
        """Cycles a frame."""
        return prod(count for count, _ in (*self._outer, *self._loops))

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        (rows, _), (cols, _) = self._outer
        row = [self._moves[0]] * (cols - 1)
        moves = [*row, self._moves[1]] * (rows - 1) + [*row, self._moves[2]]
        return (Window(moves, span=self.span, room=self._room_of(self.depth), reads=prod(count for count, _ in self._loops),
                       words=prod(count for count, _ in self._loops[self._mark:])),)

    @property
    def cost(self) -> Cost:
        """Logic cells of the counters and addresses; the ring's blocks."""
        return Cost(lc=66 + 5 * self.depth.bit_length() + 10 * self._extra_loops,
                    ebr=self.technology.blocks(self.shape.width * self.lanes, self.depth))

    @property
    def _extra_loops(self) -> int:
        """Loops beyond those that the fit of `cost` had."""
        return sum(count > 1 for count, _ in self._loops[:-2])

    def elaborate(self, platform):
        m = Module()
        bits = (self.depth - 1).bit_length()
        write, read = make_ram(m, "ring", self.depth, self.shape.width * self.lanes)
        nest = (*self._outer, *self._loops)
        m.submodules.loops = loops = LoopNest([count for count, _ in nest], [stride for _, stride in nest], period=self._frame,
                                              addr_width=bits)

        # margin = words in the ring - words that one block needs; a block may be read while it is not negative.
        # It is negative by a lot after a block whose successor starts beyond what has been written.
        margin = Signal(signed(max(self.depth, self.span, *self._moves).bit_length() + 2), init=-self.span)
        after = Signal.like(margin, init=0)
        active, step, done, wrote = Signal(), Signal(), Signal(), Signal()
        move, moved = Signal.like(margin, init=0), Signal.like(margin, init=0)
        m.d.comb += [step.eq(active & (self.o.ready | ~self.o.valid)), done.eq(step & loops.last[2]),
                     wrote.eq(self.i.valid & self.i.ready), loops.en.eq(step)]
        m.d.comb += move.eq(Mux(loops.last[0], -self._moves[2], Mux(loops.last[1], -self._moves[1], -self._moves[0])))
        with m.If(done):                                 # otherwise nothing is freed
            m.d.comb += moved.eq(move)

        def plus(freed):                                 # one carry chain
            return (Cat(wrote, margin).as_signed() + Cat(wrote, freed).as_signed()) >> 1

        m.d.comb += after.eq(plus(moved))
        m.d.sync += margin.eq(after)
        # Whether the next block may begin is found out beside `done`, which comes late.
        next_there, there = Signal(), Signal()
        m.d.comb += [next_there.eq(plus(move) >= 0), there.eq((margin >= 0) | (wrote & margin.all()))]
        with m.If(done):
            m.d.sync += active.eq(next_there)
        with m.Elif(~active):
            m.d.sync += active.eq(there)

        # One cycle stale: there is one word more than it says.
        room = self._room_of(self.depth)
        grain = max(0, room.bit_length() - 3)
        # Not negative it is at most a word or two more than the room, so that few bits tell, without a carry chain.
        held = (margin >> grain)[:(room + 2 >> grain).bit_length()]
        m.d.sync += [self.i.ready.eq((margin < 0) | (held < room >> grain)), write.addr.eq(write.addr + wrote)]
        m.d.comb += [write.en.eq(wrote), write.data.eq(self.i.payload.as_value())]
        m.d.comb += [read.en.eq(step), read.addr.eq(loops.addr)]
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [self.o.valid.eq(active), self.o.p.last.eq(loops.last[2 + self._mark])]
        m.d.comb += self.o.p.x.as_value().eq(read.data)
        return m
