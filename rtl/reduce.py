"""Maximum or sum over beats of a stream: max pooling, global average pooling (the sum)."""

from collections.abc import Sequence

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, Technology, check, check_int, lanes_stream, shape_of
from .handshake import Part, Pipe
from .loops import LoopNest
from .memory import make_ram

__all__ = ["Reduce", "combine"]

# Up to this many bits of state rotate through registers; more go into block RAM.
ROTATE_BITS = 64


def combine(op: str, value, state, first):
    """Return the state of a maximum (``"max"``) or a sum (``"sum"``) with one value more, the first one or another."""
    if op == "sum":
        return value + Mux(first, 0, state)
    return Mux(first | (value > state), value, state)


class Reduce(Block):
    """Combine beats that fall into one slot, and send a slot's result with its last beat.

    The beats come in nested loops; the loops named in ``over`` are reduced, the others make the slots.

    Parameters
    ----------
    op : str
        ``"max"`` or ``"sum"``.
    in_range : (int, int)
        Inclusive range of the values.
    lanes : int
        Values a beat.
    counts : sequence of int
        Trip counts, outermost first, one beat an iteration. The outermost loops that are not in ``over`` and have no
        reduced loop outside them need no storage.
    over : sequence of bool
        Which loops are reduced.
    technology : Technology

    Members
    -------
    i : stream of ``lanes`` values
    o : stream of ``lanes`` results of shape `out_shape`

    One beat a cycle.
    """

    def __init__(self, op: str, in_range: tuple[int, int], *, lanes: int = 1, counts: Sequence[int], over: Sequence[bool],
                 technology: Technology):
        check(op in ("max", "sum"), f"Op must be 'max' or 'sum', not {op!r}")
        check_int("Lanes", lanes)
        check(in_range[0] <= in_range[1], f"Input range must not be empty, not {in_range!r}")
        check(len(counts) == len(over) and any(over), "Loops to reduce must name at least one of the loops")
        for count in counts:
            check_int("Loop count", count)
        self.op, self.in_range, self.lanes, self.technology = op, in_range, lanes, technology
        self.counts, self.over = tuple(counts), tuple(over)
        reduced = int(np.prod([c for c, o in zip(counts, over, strict=True) if o]))
        self.out_range = (in_range[0] * reduced, in_range[1] * reduced) if op == "sum" else in_range
        self.in_shape, self.out_shape = shape_of(*in_range), shape_of(*self.out_range)
        outer = self.over.index(True)
        self.strides, stride = [0] * len(self.counts), 1
        for i in reversed(range(outer, len(self.counts))):
            if not self.over[i]:
                self.strides[i], stride = stride, stride * self.counts[i]
        self.slots = stride
        # Slots visited in turn can rotate; that holds if no reduced loop stands inside one that makes slots.
        inner = [o for c, o in zip(self.counts[outer:], self.over[outer:], strict=True) if c > 1]
        self.rotates = inner == sorted(inner, reverse=True)
        self.in_block = not (self.rotates and self.slots * self.out_shape.width * lanes <= ROTATE_BITS)
        super().__init__({"i": In(lanes_stream(self.in_shape, lanes)), "o": Out(lanes_stream(self.out_shape, lanes))})

    @property
    def latency(self) -> int:
        """Cycles from a slot's last beat to its result."""
        return 2 if self.in_block else 1

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        gives = np.ones(self.counts, bool)
        for axis, over in enumerate(self.over):
            if over:
                gives[(slice(None),) * axis + (slice(self.counts[axis] - 1),)] = False
        return (Pipe(self.latency, gives.ravel().tolist()),)

    @property
    def cost(self) -> Cost:
        """Logic cells, blocks of the slots' memory."""
        width = self.out_shape.width * self.lanes
        if self.in_block:
            return Cost(lc=40 + 4 * width, ebr=self.technology.blocks(width, self.slots))
        return Cost(lc=25 + (self.slots + 2) * width)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return frames of beats (n, beats, lanes) as results (n, slots of all loops, lanes)."""
        block = x.reshape(-1, *self.counts, self.lanes)
        axes = tuple(i + 1 for i, o in enumerate(self.over) if o)
        reduced = block.max(axis=axes) if self.op == "max" else block.sum(axis=axes)
        return reduced.reshape(len(block), -1, self.lanes)

    def elaborate(self, platform):
        m = Module()
        # First and last beat of a slot: the reduced loops alone, which the loops that make slots must not disturb.
        m.submodules.loops = loops = LoopNest(self.counts, self.strides, addr_width=max(1, (self.slots - 1).bit_length()))
        first, last = Signal(), Signal()
        firsts, lasts = [], []
        for i, (count, over) in enumerate(zip(self.counts, self.over, strict=True)):
            if over and count > 1:
                left = Signal(range(count), init=count - 1, name=f"left{i}")
                is_first, is_last = Signal(init=1, name=f"is_first{i}"), Signal(name=f"is_last{i}")
                with m.If(loops.en & loops.last[i + 1]):
                    m.d.sync += [left.eq(Mux(is_last, count - 1, left - 1)), is_first.eq(is_last),
                                 is_last.eq(~is_last & (left == 1))]
                firsts.append(is_first)
                lasts.append(is_last)
        m.d.comb += [first.eq(Cat(firsts).all() if firsts else 1), last.eq(Cat(lasts).all() if lasts else 1)]
        (self._in_block if self.in_block else self._in_registers)(m, loops, first, last)
        return m

    def _in_registers(self, m: Module, loops: LoopNest, first: Signal, last: Signal) -> None:
        width = self.out_shape.width
        state = Signal(self.slots * self.lanes * width, reset_less=True)
        now = Signal(self.lanes * width)
        accept = loops.en
        m.d.comb += [self.i.ready.eq(~self.o.valid | self.o.ready), accept.eq(self.i.valid & self.i.ready)]
        for lane in range(self.lanes):
            part = state[lane * width:(lane + 1) * width]
            old = part.as_signed() if self.out_shape.signed else part
            m.d.comb += now[lane * width:(lane + 1) * width].eq(combine(self.op, self.i.payload[lane], old, first))
        with m.If(accept):
            m.d.sync += [state.eq(Cat(state, now)[len(now):]), self.o.payload.as_value().eq(now)]
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid & last)

    def _in_block(self, m: Module, loops: LoopNest, first: Signal, last: Signal) -> None:
        width = self.out_shape.width
        write, read = make_ram(m, "state", self.slots, width * self.lanes)
        en, accept, same = Signal(), loops.en, Signal()
        held, held_first, held_last, valid = Signal.like(self.i.payload), Signal(), Signal(), Signal()
        again, address, used = Signal(), Signal.like(loops.addr), Signal()
        now, recent = Signal(width * self.lanes), Signal(width * self.lanes, reset_less=True)
        m.d.comb += [en.eq(~self.o.valid | self.o.ready), self.i.ready.eq(en), accept.eq(self.i.valid & en),
                     same.eq(used & (loops.addr == address)),
                     # The slot just written is not read in that cycle: its value is still at hand.
                     read.addr.eq(loops.addr), read.en.eq(accept & ~same),
                     write.addr.eq(address), write.en.eq(valid & en), write.data.eq(now)]
        with m.If(en):
            m.d.sync += valid.eq(self.i.valid)
        with m.If(accept):
            m.d.sync += [held.eq(self.i.payload), held_first.eq(first), held_last.eq(last), again.eq(same),
                         address.eq(loops.addr), used.eq(1)]
        old_word = Mux(again, recent, read.data)
        for lane in range(self.lanes):
            part = old_word[lane * width:(lane + 1) * width]
            old = part.as_signed() if self.out_shape.signed else part
            m.d.comb += now[lane * width:(lane + 1) * width].eq(combine(self.op, held[lane], old, held_first))
        with m.If(en & valid):
            m.d.sync += recent.eq(now)
        with m.If(en):
            m.d.sync += [self.o.valid.eq(valid & held_last), self.o.payload.as_value().eq(now)]
