"""Items of a growing adder graph by their values, sums of terms, and the pairs of terms that are worth an adder."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwq.arith import width_of

from .adders import digits

__all__ = ["Items", "Made", "Pool", "State", "Term", "how_made", "tidy"]

_CANDIDATES = 200                                        # items that are weighed at a time

Term = tuple[int, int, int]                              # item, shift, sign
Made = tuple[int, int, int, int]                         # a, b, shift of b, sign of b


class Items:
    """All items met so far by their values: coefficients packed into one integer, first non-zero one positive, one of them odd."""

    def __init__(self, ranges: Sequence[tuple[int, int]], bits: int):
        self.ranges, self.bits = ranges, bits
        self.low, self.high = np.array(ranges, np.int64).T
        self._half = sum(1 << (bits * i + bits - 1) for i in range(len(ranges)))
        self.values = [1 << (bits * i) for i in range(len(ranges))]
        self.index = {value: k for k, value in enumerate(self.values)}
        self.odd = [1 << i for i in range(len(ranges))]
        self._bounds: list[tuple[int, int] | None] = [(int(a), int(b)) for a, b in ranges]
        self._widths: list[int] = [width_of(*r)[0] for r in ranges]
        self._signed: list[tuple[tuple[int, int], tuple[int, int]] | None] = [None] * len(ranges)
        self._made: dict[Made, Term | None] = {}
        self.even: set[Made] = set()                     # sums with lowest bits that are always 0

    def coefficients(self, item: int) -> np.ndarray:
        """Return an item's coefficients."""
        step = self.bits // 8
        raw = (self.values[item] + self._half).to_bytes(len(self.ranges) * step + 1, "little")[:-1]
        return np.frombuffer(raw, f"<u{step}").astype(np.int64) - (1 << self.bits - 1)

    def bounds(self, item: int) -> tuple[int, int]:
        """Return an item's exact range."""
        found = self._bounds[item]
        if found is None:
            c = self.coefficients(item)
            up, down = np.maximum(c, 0), np.minimum(c, 0)
            found = self._bounds[item] = int(up @ self.low + down @ self.high), int(up @ self.high + down @ self.low)
        return found

    def width(self, item: int) -> int:
        """Return the bits of an item, of the sign that takes fewer."""
        width = self._widths[item]
        if not width:
            low, high = self.bounds(item)
            width = self._widths[item] = min(width_of(low, high)[0], width_of(-high, -low)[0])
        return width

    def signed(self, item: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return (width, greatest value if none is negative, else -1) of an item, and of it negated."""
        found = self._signed[item]
        if found is None:
            low, high = self.bounds(item)
            found = self._signed[item] = ((width_of(low, high)[0], high if low >= 0 else -1),
                                          (width_of(-high, -low)[0], -low if high <= 0 else -1))
        return found

    def make(self, a: int, b: int, shift: int, sign: int) -> Term | None:
        """Return ``a + sign * (b << shift)`` as a term; None if it is 0."""
        key = a, b, shift, sign
        if key in self._made:
            return self._made[key]
        value = self.values[a] + sign * (self.values[b] << shift)
        odd = self.odd[a] if shift else self.odd[a] ^ self.odd[b]
        drop, outer = 0, 1
        if value < 0:
            value, outer = -value, -1
        if value:
            while not odd:                               # all coefficients are even
                value, drop = value >> 1, drop + 1
                odd = sum(1 << i for i in range(len(self.ranges)) if value >> (self.bits * i) & 1)
            item = self.index.get(value)
            if item is None:
                item = self.index[value] = len(self.values)
                self.values.append(value)
                self.odd.append(odd)
                self._bounds.append(None)
                self._widths.append(0)
                self._signed.append(None)
            made: Term | None = (item, drop, outer)
            if drop:
                self.even.add(key)
        else:
            made = None
        self._made[key] = made
        return made


class Pool:
    """Pairs of terms in the forms that are still too long, by the item that they make."""

    def __init__(self, items: Items, forms: dict[int, list[Term]], made: dict[int, Made]):
        self.items, self.forms, self.made, self.n = items, forms, made, len(items.ranges)
        self.where: dict[int, dict[tuple[int, Term, Term], Made]] = {}
        self.counts: dict[int, set[int]] = {}            # items by how often they occur
        self.there: set[int] = set()                     # items that cost nothing
        self.found: dict[tuple[int, Term, Term], int] = {}
        for key in forms:
            self.enter(key)

    def is_open(self, key: int) -> bool:
        """Return whether a form is still too long."""
        return self._too_long(key, len(self.forms[key]))

    @staticmethod
    def _too_long(key: int, terms: int) -> bool:
        """Return whether a form must get shorter: an output (negative key) to one term, an item to two."""
        return terms > (1 if key < 0 else 2)

    def candidates(self, least: int) -> list[int]:
        """Return items that cost nothing, and those that occur most often, but at least so often."""
        result = list(self.there)
        for count in sorted(self.counts, reverse=True):
            if count < least or len(result) >= _CANDIDATES:
                break
            result += self.counts[count]
        return result

    def enter(self, key: int) -> None:
        """Take up all pairs of a form, if it is too long."""
        terms = self.forms[key]
        if self.is_open(key):
            for i, p in enumerate(terms):
                for q in terms[i + 1:]:
                    self._add(key, p, q)

    def leave(self, key: int) -> None:
        """Forget all pairs of a form."""
        terms = self.forms[key]
        for i, p in enumerate(terms):
            for q in terms[i + 1:]:
                self.forget(key, p, q)

    def _add(self, key: int, p: Term, q: Term) -> None:
        if p > q:
            p, q = q, p
        how = how_made(p, q)
        term = self.items.make(*how)
        item = -1 if term is None else term[0]
        if item == key:
            return
        spots = self.where.get(item)
        if spots is None:
            spots = self.where[item] = {}
            if item < self.n or item in self.made or item in self.forms:
                self.there.add(item)
        else:
            self.counts[len(spots)].discard(item)
        spot = key, p, q
        spots[spot] = how
        self.found[spot] = item
        count = len(spots)
        if count in self.counts:
            self.counts[count].add(item)
        else:
            self.counts[count] = {item}

    def forget(self, key: int, p: Term, q: Term) -> None:
        """Take a pair out."""
        spot = (key, p, q) if p < q else (key, q, p)
        item = self.found.pop(spot, None)
        if item is not None:
            spots = self.where[item]
            self.counts[len(spots)].discard(item)
            del spots[spot]
            if spots:
                self.counts[len(spots)].add(item)
            else:
                del self.where[item]
                self.there.discard(item)

    def merge(self, key: int, p: Term, q: Term) -> None:
        """Replace two terms of a form by what they make."""
        terms = self.forms[key]
        low = min(p, q, key=lambda t: (t[1], t[0]))
        made = self.items.make(*how_made(p, q))
        fresh = made and (made[0], made[1] + low[1], made[2] * low[2])
        if not fresh or any(t[:2] == fresh[:2] for t in terms):      # nothing, or one that is there already: begin anew
            self.leave(key)
            terms.remove(p)
            terms.remove(q)
            terms[:] = tidy([*terms, *([fresh] if fresh else [])], None)
            self.enter(key)
            return
        for old in (p, q):
            terms.remove(old)
            for other in terms:
                self.forget(key, old, other)
        self.forget(key, p, q)
        if self._too_long(key, len(terms) + 1):
            for other in terms:
                self._add(key, other, fresh)
        else:
            self.leave(key)
        terms.append(fresh)


def how_made(p: Term, q: Term) -> Made:
    """Return how to add two terms, up to the shift and sign of the lower one."""
    if p[1] > q[1] or (p[1] == q[1] and p[0] > q[0]):
        p, q = q, p
    return p[0], q[0], q[1] - p[1], p[2] * q[2]


def tidy(terms: Sequence[Term], rng: random.Random | None) -> list[Term]:
    """Return the same sum with the fewest digits for each item."""
    totals: dict[int, int] = {}
    for item, shift, sign in terms:
        totals[item] = totals.get(item, 0) + (sign << shift)
    return [(item, shift, sign) for item, total in totals.items() for shift, sign in digits(total, rng)]


@dataclass
class State:
    """Items that are made, and the outputs as terms."""

    made: dict[int, Made]
    outs: list[Term | None]

    def copy(self) -> "State":
        return State(self.made.copy(), self.outs.copy())
