"""Nested loops in hardware: counters, their last flags, and one affine address that needs a single adder."""

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import In, Out

from .common import Block, check, check_int

__all__ = ["LoopNest", "Sweep"]


class LoopNest(Block):
    """Walk nested loops and give ``sum(index[i] * stride[i])`` modulo ``2**addr_width``.

    Parameters
    ----------
    counts : sequence of int
        Trip counts, outermost first.
    strides : sequence of int, optional
        Address strides, same order; without them there is no address.
    period : int
        What the address gains each time the whole nest restarts.
    addr_width : int
        Bits of the address.

    Members
    -------
    en : In(1)
        Go on to the next iteration at the end of this cycle.
    addr : Out(addr_width)
        Address of this iteration.
    first : Out(n + 1)
        Bit i: the loops i and further in all stand at their first index. Bit n is always 1.
    last : Out(n + 1)
        Bit i: the loops i and further in all stand at their last index, so that ``en`` carries out of loop i.
    """

    def __init__(self, counts: Sequence[int], strides: Sequence[int] | None = None, *, period: int = 0,
                 addr_width: int = 1):
        for count in counts:
            check_int("Loop count", count)
        check(strides is None or len(strides) == len(counts), "Loops need as many strides as counts")
        self.counts, self.strides, self.period, self.addr_width = tuple(counts), strides, period, addr_width
        n = len(self.counts)
        super().__init__({"en": In(1), "addr": Out(addr_width), "first": Out(n + 1), "last": Out(n + 1)})

    def model(self) -> list[int]:
        """Return the addresses of one pass."""
        addresses = [0]
        for count, stride in zip(self.counts, self.strides or [0] * len(self.counts), strict=True):
            addresses = [a + i * stride for a in addresses for i in range(count)]
        return [a % (1 << self.addr_width) for a in addresses]

    def elaborate(self, platform):
        m = Module()
        n = len(self.counts)
        at_first, at_last = [], []
        for i, count in enumerate(self.counts):
            if count == 1:
                at_first.append(1)
                at_last.append(1)
                continue
            # Flags are registers: the carry chain then starts at flip-flops, not behind comparators.
            left = Signal(range(count), init=count - 1, name=f"left{i}")
            is_first = Signal(init=1, name=f"is_first{i}")
            is_last = Signal(init=0, name=f"is_last{i}")
            at_first.append(is_first)
            at_last.append(is_last)
            with m.If(self.en & self.last[i + 1]):
                m.d.sync += [left.eq(Mux(is_last, count - 1, left - 1)), is_first.eq(is_last),
                             is_last.eq(~is_last & (left == 1))]
        m.d.comb += [self.first[n].eq(1), self.last[n].eq(1)]
        for i in reversed(range(n)):
            m.d.comb += [self.first[i].eq(self.first[i + 1] & at_first[i]),
                         self.last[i].eq(self.last[i + 1] & at_last[i])]
        if self.strides is not None:
            # Where loop i carries, all loops inside it go back: the step is a constant for each i.
            back, steps = 0, []
            for i in reversed(range(n)):
                steps.append((i, self.strides[i] - back))
                back += (self.counts[i] - 1) * self.strides[i]
            step = Signal(self.addr_width)
            modulus = 1 << self.addr_width
            m.d.comb += step.eq((self.period - back) % modulus)
            for i, delta in reversed(steps):
                if self.counts[i] > 1:
                    with m.If(self.last[i + 1] & ~at_last[i]):
                        m.d.comb += step.eq(delta % modulus)
            with m.If(self.en):
                m.d.sync += self.addr.eq(self.addr + step)
        return m


class Sweep(Block):
    """The addresses of nested loops without their flags: loops that run on from each other are one counter.

    Parameters
    ----------
    counts, strides, addr_width
        As for `LoopNest`.

    Members
    -------
    en, addr : as for `LoopNest`
    """

    def __init__(self, counts: Sequence[int], strides: Sequence[int], *, addr_width: int):
        check(len(strides) == len(counts), "Loops need as many strides as counts")
        merged: list[tuple[int, int]] = []
        for count, stride in zip(counts, strides, strict=True):
            check_int("Loop count", count)
            if merged and merged[-1][1] == count * stride:
                merged[-1] = merged[-1][0] * count, stride
            elif count > 1:
                merged.append((count, stride))
        self.loops, self.addr_width = merged, addr_width
        super().__init__({"en": In(1), "addr": Out(addr_width)})

    def model(self) -> list[int]:
        """Return the addresses of one pass."""
        return LoopNest([c for c, _ in self.loops], [s for _, s in self.loops], addr_width=self.addr_width).model()

    def elaborate(self, platform):
        m = Module()
        if len(self.loops) != 1 or self.loops[0][1] != 1:
            m.submodules.nest = nest = LoopNest([c for c, _ in self.loops], [s for _, s in self.loops], addr_width=self.addr_width)
            m.d.comb += [nest.en.eq(self.en), self.addr.eq(nest.addr)]
            return m
        count = self.loops[0][0]
        m.d.sync += self.addr.eq(self.addr + self.en)    # a carry chain that begins with the enable needs no clock enable
        if count != 1 << self.addr_width:                # otherwise it wraps by itself
            wrap = Signal()
            with m.If(self.en):
                m.d.sync += wrap.eq(self.addr == count - 2)
                with m.If(wrap):
                    m.d.sync += self.addr.eq(0)
        return m
