"""From accumulators to codes: ``clamp((acc * mult + offset) >> shift, lo, hi)``, per tensor or per channel."""

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value
from amaranth.lib.wiring import In, Out

from hwq.arith import scale_shift, width_of

from .common import Block, Cost, Technology, check, check_int, lanes_stream, shape_of
from .constants import Constants
from .handshake import Part, Pipe, Steps

__all__ = ["Requantizer"]


class Requantizer(Block):
    """Multiply, add, shift and clamp; ``lanes`` values a cycle, or in `every` cycles.

    Parameters
    ----------
    in_range : (int, int)
        Inclusive range of the accumulators.
    ranges : int array (channels, 2), optional
        Inclusive range of each channel's accumulators, where known.
    mult, offset : int array (1,) or (channels,)
        Per tensor or per channel; the offset includes the rounding half unless ``half_even``.
    offset_neg : int array (0,), (1,) or (channels,)
        Offset for negative accumulators; empty: none.
    shift : int
        Right shift in bits; negative shifts left.
    lo, hi : int
        Inclusive output range.
    half_even : bool
        Ties to even.
    channels, lanes : int
        Channels, and values a beat; lanes divides channels.
    order : (int, int, int)
        Order of the beats, see `Constants`.
    block_rom : bool
        Parameters per channel lie in block RAM.
    bits : int
        Bits of the multiplier that are multiplied by in a cycle, one adder each, instead of all at once; 0: all.
    technology : Technology

    Members
    -------
    i : stream of ``lanes`` accumulators
    o : stream of ``lanes`` codes of shape `out_shape`

    One beat in `every` cycles.
    """

    def __init__(self, in_range: tuple[int, int], *, mult: np.ndarray, offset: np.ndarray,
                 offset_neg: np.ndarray | None = None, shift: int, lo: int, hi: int, half_even: bool = False,
                 channels: int, ranges: np.ndarray | None = None, lanes: int = 1, order: tuple[int, int, int] | None = None,
                 block_rom: bool = False, bits: int = 0, technology: Technology):
        check_int("Channels", channels)
        check_int("Lanes", lanes)
        check(channels % lanes == 0, f"Lanes must divide the {channels} channels, not {lanes!r}")
        check(lo <= hi, f"Output range must not be empty, not {lo}..{hi}")
        check(in_range[0] <= in_range[1], f"Input range must not be empty, not {in_range!r}")
        check(isinstance(shift, int) and -32 <= shift <= 62, f"Shift must lie in -32..62, not {shift!r}")
        self.mult, self.offset = np.asarray(mult, np.int64), np.asarray(offset, np.int64)
        self.offset_neg = np.asarray(offset_neg if offset_neg is not None else [], np.int64)
        for name, values, optional in (("Mult", self.mult, False), ("Offset", self.offset, False),
                                       ("Offset_neg", self.offset_neg, True)):
            check(values.shape in ((1,), (channels,)) or (optional and values.size == 0),
                  f"{name} must have 1 or {channels} values, not {values.shape}")
        self.order = order or (channels // lanes, 1, 1)
        check(self.order[0] * self.order[2] * lanes == channels,
              f"Order must cover the {channels} channels with {lanes} lanes, not {order!r}")
        self.in_range, self.shift, self.lo, self.hi, self.half_even = in_range, shift, lo, hi, half_even
        self.channels, self.lanes, self.technology = channels, lanes, technology
        self._constants = Constants([self.mult, self.offset, self.offset_neg if self.offset_neg.size else self.offset[:1]], lanes,
                                    self.order, block_rom)
        low, high = (in_range[0], in_range[1]) if ranges is None else (ranges[:, 0], ranges[:, 1])
        offsets = [self.offset, self.offset_neg] if self.offset_neg.size else [self.offset]
        corners = [int(v) for o in offsets for a in (low, high, np.clip(0, low, high)) for v in np.ravel(a * self.mult + o)]
        extra = (1 << (shift - 1)) if half_even and shift > 0 else 0
        self.sum_range = (min(corners), max(corners) + extra)
        self.product_range = (min(a * int(m) for a in in_range for m in self.mult),
                              max(a * int(m) for a in in_range for m in self.mult))
        self.out_shape = shape_of(lo, hi)
        self.scaled = bool((self.mult != 1).any())
        check(isinstance(bits, int) and bits >= 0, f"Bits a cycle must be at least 0, not {bits!r}")
        check(not bits or self.scaled and self.mult.min() >= 0, "A multiplier taken bits at a time must be one, and not negative")
        self.bits = bits
        super().__init__({"i": In(lanes_stream(shape_of(*in_range), lanes)),
                          "o": Out(lanes_stream(self.out_shape, lanes))})

    @property
    def latency(self) -> int:
        """Cycles from a beat in to its beat out."""
        return self._steps + 3 if self.bits else 4 if self.scaled else 2

    @property
    def every(self) -> int:
        """Cycles from one beat to the next, at least."""
        return self._steps + 2 if self.bits else 1

    @property
    def _steps(self) -> int:
        """Cycles of multiplying, where that is done bits at a time."""
        return -(-max(1, int(self.mult.max()).bit_length()) // self.bits)

    @property
    def uses_dsp(self) -> bool:
        """Whether synthesis maps the multiplier onto multiplier blocks (where they are enabled)."""
        return self.scaled and not self.bits and bool(self.technology.dsp_min_width)

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return (Steps(self._steps), Pipe(2)) if self.bits else (Pipe(self.latency),)

    @property
    def cost(self) -> Cost:
        """Logic cells, multipliers, blocks of parameters."""
        width = width_of(*self.sum_range)[0]
        # Factors are cut into 16 bits; synthesis multiplies in logic what is left and too narrow for a block.
        least = -1 if self.in_range[0] < 0 else 0        # where one factor has a sign, the other one gets one
        parts = [[min(16, w - k) for k in range(0, w, 16)] for w in (
            width_of(*self.in_range)[0], width_of(min(least, int(self.mult.min())), int(self.mult.max()))[0])]
        blocks = sum(a + b >= self.technology.dsp_min_width for a in parts[0] for b in parts[1])
        product = 0 if not self.scaled or self.uses_dsp else width * 10
        if self.bits:                                    # what is multiplied, its adders, what has been and is to be
            product = width_of(*self.in_range)[0] * (1 + self.bits) + self._steps * self.bits + 4
        return self._constants.cost(self.technology) + Cost(
            lc=12 + self.lanes * (2 * width + product + self.out_shape.width), dsp=self.lanes * blocks if self.uses_dsp else 0)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return accumulators (n, channels) as codes (n, channels); ``n`` counts pixels, whatever `order`."""
        return scale_shift(np.asarray(x, np.int64), self.mult, self.offset, self.shift, self.lo, self.hi,
                           self.offset_neg if self.offset_neg.size else None, self.half_even)

    def elaborate(self, platform):
        m = Module()
        en = Signal()
        stages = 2 if self.bits else self.latency
        valid = Signal(stages)
        left = Signal(range(self._steps + 2)) if self.bits else None     # steps till the product is there, and one; 0: none is made
        m.d.comb += [en.eq(~self.o.valid | self.o.ready), self.o.valid.eq(valid[-1])]
        takes = self.i.valid & self.i.ready
        done = takes if left is None else left == 1
        with m.If(en):
            m.d.sync += valid.eq((valid << 1) | done)

        constants, there = self._constants.read(m, takes if left is None else done & en)
        if left is None:
            m.d.comb += self.i.ready.eq(en & there)
        else:
            m.d.comb += self.i.ready.eq((left == 0) & there)
            with m.If(takes):
                m.d.sync += left.eq(self._steps + 1)
            with m.Elif((left > 1) | (done & en)):
                m.d.sync += left.eq(left - 1)
        sum_shape = Shape(*width_of(*self.sum_range))
        for lane in range(self.lanes):
            mult, offset, offset_neg = constants[lane]
            acc = self.i.payload[lane]
            product, negative = acc, acc < 0
            if left is not None:
                product, negative = self._by_steps(m, takes, left > 1, acc, mult, lane)
            elif self.scaled:
                product, negative = self._at_once(m, en, acc, mult, lane)
                offset, offset_neg = (self._delayed(m, en, v, f"{n}{lane}") for v, n in ((offset, "offset"), (offset_neg, "neg")))
            total = Signal(sum_shape, name=f"total{lane}", reset_less=True)
            chosen = Mux(negative, offset_neg, offset) if self.offset_neg.size else offset
            with m.If(en):
                m.d.sync += total.eq(product + chosen)
            self._round_and_clamp(m, en, total, self.o.payload[lane])
        return m

    def _at_once(self, m: Module, en: Signal, acc: Value, mult: Value, lane: int) -> tuple[Value, Value]:
        """Return the product two cycles later, and whether what was multiplied is negative."""
        factor = Signal(mult.shape(), name=f"factor{lane}", reset_less=True)
        held = Signal.like(acc, name=f"held{lane}", reset_less=True)
        product = Signal(Shape(*width_of(*self.product_range)), name=f"product{lane}", reset_less=True)
        sign = Signal(2, name=f"sign{lane}", reset_less=True)
        with m.If(en):
            m.d.sync += [factor.eq(mult), held.eq(acc), product.eq(held * factor), sign.eq((sign << 1) | (acc < 0))]
        return product, sign[1]

    def _by_steps(self, m: Module, takes: Value, steps: Value, acc: Value, mult: Value, lane: int) -> tuple[Value, Value]:
        """Return the product once all steps are done, and whether what was multiplied is negative.

        The lowest bits of the multiplier leave its register where those of the product come in.
        """
        held = Signal.like(acc, name=f"held{lane}", reset_less=True)
        high = Signal.like(acc, name=f"high{lane}", reset_less=True)     # of the product so far; less than what is multiplied
        low = Signal(self._steps * self.bits, name=f"low{lane}", reset_less=True)
        def like_acc(value: Value) -> Value:
            return value.as_signed() if acc.shape().signed else value

        total: Value = high
        for bit in range(self.bits):
            above = like_acc(total[bit:])
            total = like_acc(Cat(total[:bit], Mux(low[bit], above + held, above)))
        with m.If(takes):
            m.d.sync += [held.eq(acc), high.eq(0), low.eq(mult)]
        with m.Elif(steps):
            m.d.sync += [high.eq(like_acc(total[self.bits:])), low.eq(Cat(low[self.bits:], total[:self.bits]))]
        return like_acc(Cat(low, high)), held < 0

    def _delayed(self, m: Module, en: Signal, value, name: str):
        """Return ``value`` two cycles later, or itself if it is a constant."""
        if isinstance(value, Const):
            return value
        for step in range(2):
            later = Signal(value.shape(), name=f"{name}_{step}", reset_less=True)
            with m.If(en):
                m.d.sync += later.eq(value)
            value = later
        return value

    def _round_and_clamp(self, m: Module, en: Signal, total: Signal, out) -> None:
        value = total
        if self.half_even and self.shift > 0:
            odd = total[self.shift] if self.shift < len(total) else total[-1]
            value = total + ((1 << (self.shift - 1)) - 1) + odd
        lo = self.sum_range[0] >> self.shift if self.shift >= 0 else self.sum_range[0] << -self.shift
        hi = self.sum_range[1] >> self.shift if self.shift >= 0 else self.sum_range[1] << -self.shift
        if self.shift > 0 and self.shift >= len(value):
            shifted = value[-1].as_signed() if value.shape().signed else Const(0)
        else:
            shifted = value >> self.shift if self.shift >= 0 else value << -self.shift
        clamped = shifted
        # Bounds that the range can never reach cost nothing.
        if hi > self.hi:
            above = shifted > self.hi
            if self.hi > 0 and self.hi & (self.hi + 1) == 0:         # bits tell, without a carry chain
                above = shifted[self.hi.bit_length():].any() & ~(shifted < 0)
            clamped = Mux(above, self.hi, clamped)
        if lo < self.lo:
            clamped = Mux(shifted < self.lo, self.lo, clamped)
        with m.If(en):
            m.d.sync += out.eq(clamped)
