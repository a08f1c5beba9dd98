"""Keep the last words of a stream in a ring of block RAM, or of large RAM with one port, and read them by nested loops."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from math import prod

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, Technology, check, check_int, lanes_layout, lanes_stream
from .handshake import Part, Window
from .loops import LoopNest
from .memory import make_ram, make_spram

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
    spram : bool
        In large RAM. A word that comes waits for a cycle without a read, of which there is one after every `run` reads and at
        the end of every block: often enough, or ``flows`` is false.
    technology : Technology

    Members
    -------
    i : stream of ``lanes`` codes
    o : stream of `window_layout`

    Cycles a frame: `cycles`, without a bubble if the ring is deep enough for what comes before and behind it
    (`hwq.rtl.schedule` tells), but for those in which large RAM is written.
    """

    latency = 3                                          # cycles from the word that completes a block to its first word

    def __init__(self, shape: Shape, lanes: int, *, frame: int, outer: Sequence[tuple[int, int]], loops: Sequence[tuple[int, int]],
                 span: int, mark: int, depth: int | None, spram: bool = False, technology: Technology):
        self.shape, self.lanes, self.span, self.spram, self.technology = shape, lanes, span, spram, technology
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
        self._reads = reads = prod(count for count, _ in self._loops)        # of a block
        self._blocks = blocks = rows * cols
        # Words come in at least as fast as they must if one may take run + 2 cycles.
        fast = bisect_left(range(1, reads + 1), True, key=lambda run: frame * (run + 2) > blocks
                           * (reads + -(-reads // run))) if spram else 0
        self.run, self.flows = max(1, fast) if spram else 0, fast > 0 or not spram
        check(not spram or self.depth <= technology.spram_shape[0],
              f"Large RAM of {technology.name} holds {technology.spram_shape[0]} words, "
              f"not {self.depth}")
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

    def turns(self, parts: int) -> list[int]:
        """Return the cycles without a read in each of so many equal parts of what is read of a block."""
        if not self.spram:
            return [0] * parts
        ends = [self._reads // parts * k // self.run for k in range(parts)] + [-(-self._reads // self.run)]
        return [b - a for a, b in pairwise(ends)]

    @property
    def cycles(self) -> int:
        """Cycles a frame."""
        return self._blocks * (self._reads + sum(self.turns(1)))

    def blocks(self, depth: int) -> int:
        """Return the block RAMs, or large RAMs, that a ring of that depth takes."""
        bits = self.shape.width * self.lanes
        if not self.spram:
            return self.technology.blocks(bits, depth)
        words, width = self.technology.spram_shape
        return -(-depth // words) * -(-bits // width)

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        (rows, _), (cols, _) = self._outer
        row = [self._moves[0]] * (cols - 1)
        moves = [*row, self._moves[1]] * (rows - 1) + [*row, self._moves[2]]
        return (Window(moves, span=self.span, room=self._room_of(self.depth), reads=self._reads,
                       words=prod(count for count, _ in self._loops[self._mark:]), run=self.run),)

    @property
    def cost(self) -> Cost:
        """Logic cells of the counters and addresses; the ring's blocks."""
        lc, blocks = 66 + 5 * self.depth.bit_length() + 10 * self._extra_loops, self.blocks(self.depth)
        if not self.spram:
            return Cost(lc, ebr=blocks)
        # The words that wait for their turn and for their taker, one address of two, and the counter of the run.
        return Cost(lc + 3 * self.shape.width * self.lanes + self.depth.bit_length() + 2 * self.run.bit_length() + 6, spram=blocks)

    @property
    def _extra_loops(self) -> int:
        """Loops beyond those that the fit of `cost` had."""
        return sum(count > 1 for count, _ in self._loops[:-2])

    def elaborate(self, platform):
        m = Module()
        bits = (self.depth - 1).bit_length()
        width = self.shape.width * self.lanes
        write, read = make_spram(m, self.depth, width) if self.spram else make_ram(m, "ring", self.depth, width)
        nest = (*self._outer, *self._loops)
        m.submodules.loops = loops = LoopNest([count for count, _ in nest], [stride for _, stride in nest], period=self._frame,
                                              addr_width=bits)

        # margin = words in the ring - words that one block needs; a block may be read while it is not negative.
        # It is negative by a lot after a block whose successor starts beyond what has been written.
        margin = Signal(signed(max(self.depth, self.span, *self._moves).bit_length() + 2), init=-self.span)
        after = Signal.like(margin, init=0)
        active, step, done, wrote = Signal(), Signal(), Signal(), Signal()
        move, moved = Signal.like(margin, init=0), Signal.like(margin, init=0)
        there_is_room, reads = Signal(), Signal()
        m.d.comb += [step.eq(reads & (self.o.ready | ~self.o.valid)), done.eq(step & loops.last[2]), loops.en.eq(step)]
        if self.spram:
            self._take_turns(m, active, reads, step, done, wrote, there_is_room, write.data)
        else:
            m.d.comb += [reads.eq(active), wrote.eq(self.i.valid & self.i.ready), self.i.ready.eq(there_is_room),
                         write.data.eq(self.i.payload.as_value())]
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
        m.d.sync += [there_is_room.eq((margin < 0) | (held < room >> grain)), write.addr.eq(write.addr + wrote)]
        m.d.comb += write.en.eq(wrote)
        m.d.comb += [read.en.eq(step), read.addr.eq(loops.addr)]
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [self.o.valid.eq(reads), self.o.p.last.eq(loops.last[2 + self._mark])]
        m.d.comb += self.o.p.x.as_value().eq(self._kept(m, read.data) if self.spram else read.data)
        return m

    def _take_turns(self, m: Module, active, reads, step, done, wrote, there_is_room, data) -> None:
        """Hold the word that comes until no word is read; after a run of reads, and behind a block, read none for a cycle."""
        full, turn, count = Signal(), Signal(), Signal(range(max(2, self.run)))
        over = Signal()
        m.d.comb += [reads.eq(active & ~turn), wrote.eq(full & ~step), self.i.ready.eq(there_is_room & ~full),
                     over.eq((step & (count == self.run - 1)) | done)]
        m.d.sync += turn.eq(over)
        with m.If(over):
            m.d.sync += count.eq(0)
        with m.Elif(step):
            m.d.sync += count.eq(count + 1)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [full.eq(1), data.eq(self.i.payload.as_value())]
        with m.Elif(wrote):
            m.d.sync += full.eq(0)

    def _kept(self, m: Module, data):
        """Return the word to send: the one read, or kept from the first cycle on, because a write may change the RAM's output."""
        kept, waits = Signal.like(data, reset_less=True), Signal()
        word = Mux(waits, kept, data)
        m.d.sync += [waits.eq(self.o.valid & ~self.o.ready), kept.eq(word)]
        return word
