"""Multiplying lanes made of look-up tables: weights cut into digits whose multiples of a code need no adder.

A code is unsigned here (the caller moves signed ones up). A negative multiple ``-v`` is written ``~v`` in a fixed number
of bits, which is ``2**bits - 1`` too much: a constant of the weight. So every value is unsigned, no sign is extended, and
what is too much in all comes off once, after the sums. Adders stand between registers, one carry chain each.

* fixed point: two bits at a time make a digit of -2..1, one cell a bit; digits below the top one have that range only if
  2 is taken off them, which adds ``2 * sum(x)`` at their place, the same for all outputs;
* an odd top bit, +-1 and ternary weights: one cell a bit;
* powers of two: one or two levels of shift.
"""

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal

from hwq.formats import Bipolar, Format, PowerOfTwo

__all__ = ["Leaf", "Recoding", "recode", "Term", "register_sum"]


@dataclass(frozen=True)
class Leaf:
    """One digit of every weight: how it multiplies a code.

    Attributes
    ----------
    kind : str
        ``digit`` (-2..1), ``gate`` (0, 1), ``minus`` (0, -1), ``sign`` (+-1), ``ternary`` (-1..1) or ``shift`` (powers of two).
    place : int
        The digit counts ``2**place``.
    low, width : int
        Its bits in the ROM entry.
    """

    kind: str
    place: int
    low: int
    width: int

    @property
    def stages(self) -> int:
        """Registers from code to multiple."""
        return 2 if self.kind == "shift" and self.width > 3 else 1

    @property
    def reach(self) -> int:
        """Bits by which the multiple is wider than the code."""
        return {"digit": 1, "shift": (1 << (self.width - 1)) - 2}.get(self.kind, 0)

    def too_much(self, bits: np.ndarray, x_width: int) -> np.ndarray:
        """Return by how much the multiple of a code of ``x_width`` bits is too large, for each entry's own ``bits``."""
        full = (1 << x_width + self.reach) - 1
        if self.kind == "digit":
            return np.select([bits == 2, bits == 3], [full, (1 << x_width) - 1], 0)
        negative = {"gate": bits < 0, "minus": bits == 1, "sign": bits == 0}.get(self.kind, bits >> (self.width - 1) == 1)
        return np.where(negative, full, 0)

    def build(self, m: Module, en, x, code, name: str):
        """Return the registered multiple of ``x`` and the greatest value it can have."""
        w = len(x)
        bits: list = []
        if self.kind == "digit":
            # As AND, OR and XOR: a multiplexer would become a register with reset.
            one, two, negative = code[0], code[1] & ~code[0], code[1]
            bits = [((one & x[i]) | (two & x[i - 1] if i else 0)) ^ negative for i in range(w)] + [two & ~x[w - 1]]
        elif self.kind == "gate":
            bits = [code[0] & x[i] for i in range(w)]
        elif self.kind == "minus":
            bits = [code[0] & ~x[i] for i in range(w)]
        elif self.kind == "sign":
            bits = [x[i] ^ ~code[0] for i in range(w)]
        elif self.kind == "ternary":
            bits = [code[0] & (x[i] ^ code[1]) for i in range(w)]
        else:
            return self._shift(m, en, x, code, name)
        out = Signal(len(bits), name=name, reset_less=True)
        with m.If(en):
            m.d.sync += out.eq(Cat(bits))
        return out, (1 << len(bits)) - 1

    def _shift(self, m: Module, en, x, code, name: str):
        w, total = len(x), len(x) + self.reach
        exponent, negative = code[:self.width - 1], code[self.width - 1]
        step = self.stages                               # 2: first the even shifts, then one bit more or not
        terms: list[list] = [[] for _ in range(total)]
        for k in range((1 << (self.width - 1)) - 1):
            if step == 2 and k % 2:
                continue
            chosen = exponent == k + 1
            if step == 2:
                chosen = chosen | (exponent == k + 2)
            for i in range(w):
                if k + i < total:
                    terms[k + i].append(chosen & x[i])
        value = Cat(*(Cat(each).any() if each else Const(0, 1) for each in terms))
        if step == 2:
            first = Signal(total, name=f"{name}_even", reset_less=True)
            more, minus = Signal(name=f"{name}_more", reset_less=True), Signal(name=f"{name}_minus", reset_less=True)
            with m.If(en):
                m.d.sync += [first.eq(value), more.eq((exponent != 0) & ~exponent[0]), minus.eq(negative)]
            value, negative = Mux(more, first << 1, first)[:total], minus
        out = Signal(total, name=name, reset_less=True)
        with m.If(en):
            m.d.sync += out.eq(value ^ negative.replicate(total))
        return out, (1 << total) - 1


@dataclass(frozen=True, eq=False)
class Recoding:
    """Weights as the lanes want them.

    Attributes
    ----------
    codes : int array
        ROM entries, in the weights' shape.
    width : int
        Bits of an entry: those of the format.
    leaves : tuple of Leaf
    x_sum : int
        Times that the sum of the codes belongs to the true sum.
    too_much : int array
        By how much the multiples of each weight are too large.
    """

    codes: np.ndarray
    width: int
    leaves: tuple[Leaf, ...]
    x_sum: int
    too_much: np.ndarray

    @property
    def stages(self) -> int:
        """Registers from codes to multiples."""
        return max(leaf.stages for leaf in self.leaves)


def recode(weight: np.ndarray, weight_format: Format, x_width: int) -> Recoding:
    """Return the weights recoded for unsigned codes of ``x_width`` bits."""
    codes = weight_format.encode(weight).astype(np.int64)
    width, x_sum = weight_format.width, 0
    if isinstance(weight_format, Bipolar):
        leaves = [Leaf("sign", 0, 0, 1)]
    elif isinstance(weight_format, PowerOfTwo):
        leaves = [Leaf("ternary" if width == 2 else "shift", 0, 0, width)]
    elif width == 2 and weight_format.signed and np.abs(weight).max(initial=0) <= 1:
        codes, leaves = (codes >> 1) << 1 | (codes & 1), [Leaf("ternary", 0, 0, 2)]     # 0, 1, 3 for 0, 1, -1
    else:
        leaves, flip = [], 0
        for low in range(0, width - 1, 2):
            top = low + 2 == width and weight_format.signed
            leaves.append(Leaf("digit", low, low, 2))
            if not top:                                  # bits 0..3 are the digit and 2 more
                flip |= 2 << low
                x_sum += 2 << low
        if width % 2:
            leaves.append(Leaf("minus" if weight_format.signed else "gate", width - 1, width - 1, 1))
        codes = codes ^ flip
    too_much = sum(leaf.too_much((codes >> leaf.low) & ((1 << leaf.width) - 1), x_width) << leaf.place for leaf in leaves)
    return Recoding(codes, width, tuple(leaves), x_sum, np.asarray(too_much))


@dataclass(frozen=True, eq=False)
class Term:
    """A registered unsigned number ``value << place``, at most ``most << place``."""

    value: Signal
    most: int
    place: int = 0


def _register(m: Module, en, value, most: int, place: int, name: str) -> Term:
    out = Signal(max(1, most.bit_length()), name=name, reset_less=True)
    with m.If(en):
        m.d.sync += out.eq(value)
    return Term(out, most, place)


def register_sum(m: Module, en, terms: list[Term], name: str) -> Term:
    """Add the terms two by two with a register after every adder; `levels` of ``len(terms)`` cycles."""
    level = 0
    while len(terms) > 1:
        after = []
        terms = sorted(terms, key=lambda t: t.place)
        for k in range(0, len(terms), 2):
            label = f"{name}_{level}_{k // 2}"
            if k + 1 == len(terms):
                after.append(_register(m, en, terms[k].value, terms[k].most, terms[k].place, label))
                continue
            a, b = terms[k], terms[k + 1]
            gap, most = b.place - a.place, a.most + (b.most << (b.place - a.place))
            if gap >= len(a.value):
                total = Cat(a.value, Const(0, gap - len(a.value)), b.value)
            elif gap:
                total = Cat(a.value[:gap], a.value[gap:] + b.value)      # the lowest bits need no adder
            else:
                total = a.value + b.value
            after.append(_register(m, en, total, most, a.place, label))
        terms, level = after, level + 1
    return terms[0]
