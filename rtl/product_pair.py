"""Two products of up to eight bits by one multiplier block of an iCE40 UltraPlus (SB_MAC16)."""

import numpy as np
from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Shape, Signal
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, check, lanes_layout

__all__ = ["ProductPair"]


class ProductPair(Block):
    """``p[k] = a[k] * b[k]`` for k = 0, 1: 8x8 mode of an SB_MAC16, registers in the block before and behind the multipliers.

    The simulator of Amaranth, which knows no cells, sees the same function behaviourally; text is made with the cell
    (`hwq.rtl.rtlil.rtlil_text`).

    Parameters
    ----------
    a_shape, b_shape : Shape
        Of the factors, at most `WIDEST` bits; the cell wants both ``a`` of one sign, and both ``b``.

    Members
    -------
    en : In(1)
        The registers take up what comes.
    a, b : In, two lanes
    p : Out, two lanes of signed(16)

    Latency: `latency` cycles with ``en``. Both factors unsigned are limited to a product of 15 bits, so that it has a sign.
    """

    WIDEST = 8
    latency = 2
    cost = Cost(dsp=1)

    def __init__(self, a_shape: Shape, b_shape: Shape):
        for name, shape in (("a", a_shape), ("b", b_shape)):
            check(1 <= shape.width <= self.WIDEST, f"Factor {name} must have 1 to {self.WIDEST} bits, not {shape.width}")
        check(a_shape.signed or b_shape.signed or a_shape.width + b_shape.width < 16,
              f"Unsigned factors must have at most 15 bits together, not {a_shape.width + b_shape.width}")
        self.a_shape, self.b_shape = a_shape, b_shape
        super().__init__({"en": In(1), "a": In(lanes_layout(a_shape, 2)), "b": In(lanes_layout(b_shape, 2)),
                          "p": Out(lanes_layout(Shape(16, True), 2))})

    def model(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the products of factors (n, 2)."""
        return a.astype(np.int64) * b

    def elaborate(self, platform):
        m = Module()
        if platform is None:
            a, b = Signal.like(self.a), Signal.like(self.b)
            with m.If(self.en):
                m.d.sync += [a.eq(self.a), b.eq(self.b)]
                for k in range(2):
                    m.d.sync += self.p[k].eq(a[k] * b[k])
            return m
        ports = {f"i_{name}": Const(0, 1) for name in (
            "AHOLD", "BHOLD", "CHOLD", "DHOLD", "IRSTTOP", "IRSTBOT", "ORSTTOP", "ORSTBOT", "OLOADTOP", "OLOADBOT", "ADDSUBTOP",
            "ADDSUBBOT", "OHOLDTOP", "OHOLDBOT", "CI", "ACCUMCI", "SIGNEXTIN")}
        for name, lanes in (("A", self.a), ("B", self.b)):
            factor = [Signal(Shape(8, lanes[k].shape().signed), name=f"{name.lower()}{k}") for k in range(2)]
            m.d.comb += [factor[k].eq(lanes[k]) for k in range(2)]
            ports[f"i_{name}"] = Cat(factor)
        m.submodules.block = Instance(
            "SB_MAC16", i_CLK=ClockSignal(), i_CE=self.en, i_C=Const(0, 16), i_D=Const(0, 16), o_O=self.p.as_value(), **ports,
            p_A_REG=Const(1, 1), p_B_REG=Const(1, 1), p_TOP_8x8_MULT_REG=Const(1, 1), p_BOT_8x8_MULT_REG=Const(1, 1),
            p_TOPOUTPUT_SELECT=Const(2, 2), p_BOTOUTPUT_SELECT=Const(2, 2), p_MODE_8x8=Const(1, 1),
            p_A_SIGNED=Const(self.a_shape.signed, 1), p_B_SIGNED=Const(self.b_shape.signed, 1))
        return m
