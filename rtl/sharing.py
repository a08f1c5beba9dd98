"""Find small adder graphs: greedy sharing of common sub-expressions, then a search that tears parts down and builds them anew.

A *form* is a sum of terms (item, shift, sign); outputs begin as forms over the inputs, one term a signed digit. Two terms
whose sum occurs in several forms are worth an adder. What two terms make is known by its value, a vector of coefficients up
to sign and shift, so that an item that exists already is found whatever it was made of. All is decided by the seed and the
number of steps, never by time.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from hwq.arith import width_of

from .adders import AdderGraph, Node, check_vector, digits, segments
from .common import check_int
from .phases import choose_phases

__all__ = ["Effort", "share"]

_CANDIDATES = 200                                        # items that are weighed at a time
_HEAT = 6.0                                              # logic cells; of the annealing's begin
_LOST = 40                                               # so much worse than the best, go back to it
_PAIRS = 60_000                                          # pairs of terms that are looked at together

Term = tuple[int, int, int]                              # item, shift, sign
Made = tuple[int, int, int, int]                         # a, b, shift of b, sign of b


@dataclass(frozen=True)
class Effort:
    """How long to search.

    Attributes
    ----------
    starts : int
        Greedy runs, each with other weights.
    steps : int
        Parts torn down and built anew, from the best of them.
    seed : int
    """

    starts: int = 1
    steps: int = 0
    seed: int = 0


class _Items:
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


class _Pool:
    """Pairs of terms in the forms that are still too long, by the item that they make."""

    def __init__(self, items: _Items, forms: dict[int, list[Term]], made: dict[int, Made]):
        self.items, self.forms, self.made, self.n = items, forms, made, len(items.ranges)
        self.where: dict[int, dict[tuple[int, Term, Term], Made]] = {}
        self.counts: dict[int, set[int]] = {}            # items by how often they occur
        self.there: set[int] = set()                     # items that cost nothing
        self.found: dict[tuple[int, Term, Term], int] = {}
        for key in forms:
            self.enter(key)

    def is_open(self, key: int) -> bool:
        """Return whether a form is still too long."""
        return len(self.forms[key]) > (1 if key < 0 else 2)

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
        how = _how(p, q)
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
        made = self.items.make(*_how(p, q))
        fresh = made and (made[0], made[1] + low[1], made[2] * low[2])
        if not fresh or any(t[:2] == fresh[:2] for t in terms):      # nothing, or one that is there already: begin anew
            self.leave(key)
            terms.remove(p)
            terms.remove(q)
            terms[:] = _tidy([*terms, *([fresh] if fresh else [])], None)
            self.enter(key)
            return
        for old in (p, q):
            terms.remove(old)
            for other in terms:
                self.forget(key, old, other)
        self.forget(key, p, q)
        if len(terms) + 1 > (1 if key < 0 else 2):
            for other in terms:
                self._add(key, other, fresh)
        else:
            self.leave(key)
        terms.append(fresh)


def _how(p: Term, q: Term) -> Made:
    """Return how to add two terms, up to the shift and sign of the lower one."""
    if p[1] > q[1] or (p[1] == q[1] and p[0] > q[0]):
        p, q = q, p
    return p[0], q[0], q[1] - p[1], p[2] * q[2]


def _recode(value: int, rng: random.Random | None) -> list[tuple[int, int]]:
    """Return signed digits of a number, as few as can be; which of them by chance, or canonical ones."""
    result, shift = [], 0
    while value:
        if value & 1:
            sign = 2 - (value & 3)
            if rng and abs(value) > 1 and len(digits(value + sign)) + 1 == len(digits(value)) and rng.random() < 0.5:
                sign = -sign
            result.append((shift, sign))
            value -= sign
        value >>= 1
        shift += 1
    return result


def _tidy(terms: Sequence[Term], rng: random.Random | None) -> list[Term]:
    """Return the same sum with the fewest digits for each item."""
    totals: dict[int, int] = {}
    for item, shift, sign in terms:
        totals[item] = totals.get(item, 0) + (sign << shift)
    return [(item, shift, sign) for item, total in totals.items() for shift, sign in _recode(total, rng)]


@dataclass
class _State:
    """Items that are made, and the outputs as terms; how often each item is read."""

    made: dict[int, Made]
    outs: list[Term | None]

    def copy(self) -> "_State":
        return _State(self.made.copy(), self.outs.copy())


@dataclass
class _Point:
    """A state, its logic cells and what of them are inverters, its nodes' phases, and the adders' bits, roughly."""

    state: _State
    cost: float
    inverters: int
    phases: dict[int, bool]
    rough: int


@dataclass
class _Taste:
    """Weights of a greedy run, drawn anew for each."""

    cost: float
    width: float
    shift: float
    noise: float
    level: float

    @classmethod
    def draw(cls, rng: random.Random, every: int) -> "_Taste":
        return cls(cost=rng.choice((0.0, 0.1, 0.3, 1.0)) * rng.random(), width=0.02 + 0.3 * rng.random(), shift=rng.random(),
                   noise=rng.choice((0.0, 0.2, 0.5)), level=rng.choice((0.05, 0.3, 1.0, 3.0)) * rng.random() if every else 0.0)


class _Search:
    def __init__(self, ranges: Sequence[tuple[int, int]], matrix: np.ndarray, every: int, free_sign: bool, seed: int):
        reach = int(np.abs(matrix).sum(axis=1).max(initial=1)) * 4
        self.items = _Items(ranges, 16 if reach < 1 << 13 else 32)
        self.n, self.matrix, self.every, self.free_sign = len(ranges), matrix, every, free_sign
        self.rng = random.Random(seed)

    # Greedy ------------------------------------------------------------------------------------------------------------

    def start(self) -> _State:
        """Return a graph by one greedy run from the digits."""
        rng, n = self.rng, self.n
        state = _State({}, [None] * len(self.matrix))
        taste = _Taste.draw(rng, self.every)
        rows = [{i: _recode(int(c), rng) for i, c in enumerate(row) if c} for row in self.matrix]
        forms: dict[int, list[Term]] = {-1 - j: [] for j, row in enumerate(rows) if row}
        size = sum((sum(map(len, row.values()))) ** 2 for row in rows) // 2
        parts = max(1, -(-size // _PAIRS))               # what is shared is looked for among some of the inputs at a time
        for part in range(parts):
            inputs = range(n * part // parts, n * (part + 1) // parts)
            some = {-1 - j: [(i, *digit) for i in inputs for digit in row.get(i, ())] for j, row in enumerate(rows) if row}
            if parts > 1:
                self.build(state, some, taste, least=2)
            for key, terms in some.items():
                forms[key] += terms
        self.build(state, forms, taste)
        return state

    def depends(self, state: _State, forms: dict[int, list[Term]], items: Sequence[int], on: int) -> bool:
        """Return whether one of the items needs another one."""
        todo, seen = list(items), set()
        while todo:
            at = todo.pop()
            if at == on:
                return True
            if at >= self.n and at not in seen:
                seen.add(at)
                todo += [t[0] for t in forms[at]] if at in forms else state.made[at][:2]
        return False

    def build(self, state: _State, forms: dict[int, list[Term]], taste: _Taste, least: int = 1) -> None:
        """Make items until every form has few enough terms: of an output (key -1 - output) one, of an item (key item) two.

        With ``least`` 2 only as long as something is shared.
        """
        items, rng, made, n = self.items, self.rng, state.made, self.n
        pool = _Pool(items, forms, made)
        noise: dict[int, float] = {}
        levels: dict[int, int] = {}

        def level(item: int) -> int:
            if item < n:
                return 0
            if item not in levels:
                levels[item] = 0                         # while it is being found out
                levels[item] = 1 + max(level(i) for i in ([t[0] for t in forms[item]] if item in forms else made[item][:2]))
            return levels[item]

        def score(item: int) -> float:
            if item < n:                                 # an input, or nothing
                return 1e9
            spots = pool.where[item]
            if item not in noise:
                noise[item] = 1 + taste.noise * (rng.random() - 0.5)
            how = next(iter(spots.values()))
            cost = items.width(item) - taste.shift * how[2]
            gain = (len(spots) - 1 + (item in pool.there)) * (1 + max(cost - 1, 0) * taste.cost)
            value = (gain - taste.width * cost) * noise[item]
            if taste.level:
                la, lb = level(how[0]), level(how[1])
                value -= taste.level * (max(la, lb) + 0.5 * abs(la - lb))
            return value

        while pool.where:
            several = pool.candidates(2)
            if not several and least > 1:
                break
            if not several:                              # nothing is shared: one form after the other
                key = next(k for k in forms if pool.is_open(k))
                several = [pool.found[spot] for p, q in combinations(forms[key], 2)
                           if (spot := (key, p, q) if p < q else (key, q, p)) in pool.found]
            item = max(several or pool.where, key=score)
            for (key, p, q), how in list(pool.where[item].items()):
                if (key, p, q) not in pool.where.get(item, ()):
                    continue                             # gone with one before
                there = item in pool.there
                if key >= 0 and item >= 0 and self.depends(state, forms, (item,) if there else how[:2], key):
                    pool.forget(key, p, q)
                    continue
                if not there:
                    made[item] = how
                    pool.there.add(item)
                pool.merge(key, p, q)
        if least == 1:
            for key, terms in forms.items():
                if key < 0:
                    state.outs[-1 - key] = terms[0] if terms else None
                else:
                    made[key] = _how(*terms)

    # Judging -----------------------------------------------------------------------------------------------------------

    def clear(self, state: _State) -> int:
        """Forget the items that nothing needs; return the adders' bits, roughly."""
        made, outs = state.made, {out[0] for out in state.outs if out}
        while True:
            used = outs.union(*[how[:2] for how in made.values()])
            unused = made.keys() - used
            if not unused:
                break
            for item in unused:
                del made[item]
        width = self.items.width
        return sum([width(item) - (0 if self.every else how[2]) for item, how in made.items()])

    def graph(self, point: _Point) -> AdderGraph:
        """Return a state as a graph, its phases chosen with more care."""
        graph = self.cost(point, math.inf, starts=60)
        assert graph is not None
        return graph

    def cost(self, point: _Point, limit: float, starts: int = 0) -> AdderGraph | None:
        """Set the point's cost, unless it is above ``limit`` without inverters, and its phases, by descent from what they are.

        With ``starts``, descend so many times more, and return the graph.
        """
        state, phases = point.state, point.phases
        n, items, every, made = self.n, self.items, self.every, state.made
        sign, width, level = dict.fromkeys(range(n), 1), {i: items.width(i) for i in range(n)}, dict.fromkeys(range(n), 0)
        kinds: dict[int, tuple[bool, bool, int]] = {}
        chain: dict[int, int] = {}
        wish: dict[int, int] = {}                        # signs that outputs want
        for out in state.outs:
            if out:
                wish[out[0]] = wish.get(out[0], 0) + (0 if self.free_sign else out[2])
        total, order, todo = 0, [], [out[0] for out in reversed(state.outs) if out]
        while todo:                                      # operands first
            item = todo[-1]
            if item in sign:
                todo.pop()
                continue
            how = made[item]
            a, b, shift, plus = how
            if a not in sign or b not in sign:
                if b not in sign:
                    todo.append(b)
                if a not in sign:
                    todo.append(a)
                continue
            todo.pop()
            order.append(item)
            _, drop, outer = items.make(*how)            # type: ignore[misc]
            minus, mine = plus * sign[a] * sign[b] < 0, outer * sign[a]
            swap, both = False, items.signed(item)
            if minus:
                wanted = wish.get(item)
                if wanted is not None:
                    swap = mine * wanted < 0
                elif not shift:                          # of one sign only: one bit less
                    swap = both[mine > 0][0] < both[mine < 0][0]
            if swap:
                mine = -mine
            sign[item], kinds[item] = mine, (minus, swap, drop)
            width[item] = bits = both[mine < 0][0]
            if minus or not shift or not 0 <= items.signed(a)[sign[a] < 0][1] < 1 << shift:
                bits += drop - (0 if swap else shift)
            else:                                        # side by side
                bits = 0
            chain[item] = bits
            total += bits
            level[item] = 1 + (level[a] if level[a] > level[b] else level[b])
        for out in state.outs:
            if out and out[2] * sign[out[0]] < 0 and not self.free_sign:
                total += width[out[0]]
        depth = max(level.values())
        if every:
            total += self._delays(state, order, level, width, chain, depth)
        if total > limit:
            return None
        stage = {item: segments(level[item], every) for item in order}
        ends = max(1, -(-depth // every)) if every else 0
        place = {item: k for k, item in enumerate([*range(n), *order])}
        reads = [[(place[made[i][0]], stage[i], kinds[i][1]), (place[made[i][1]], stage[i], kinds[i][0] != kinds[i][1])] for i in order]
        fixed: list[list[tuple[int, bool]]] = [[] for _ in place]
        for out in state.outs:
            if out:
                fixed[place[out[0]]].append((ends, out[2] * sign[out[0]] < 0))
        chosen = [phases.get(item, False) for item in order]
        point.inverters = choose_phases(len(order), [width[item] for item in place], reads, fixed, n, chosen, self.rng, starts)
        point.cost = total + point.inverters
        phases.clear()
        phases.update(zip(order, chosen, strict=True))
        if not starts:
            return None
        nodes = tuple(Node(place[made[i][0]], place[made[i][1]], made[i][2], *kinds[i], level[i], phases[i]) for i in order)
        outputs = tuple(out and (place[out[0]], out[1], out[2] * sign[out[0]]) for out in state.outs)
        return AdderGraph(tuple(items.ranges), nodes, outputs)

    def _delays(self, state: _State, order: list[int], level: dict[int, int], width: dict[int, int], chain: dict[int, int],
                depth: int) -> int:
        """Move nodes to later levels where that saves registers; return the registers that share no cell with an adder."""
        every, made = self.every, state.made
        ends = max(1, -(-depth // every))
        read: dict[int, list[int]] = {}                  # stages that read an item
        first: dict[int, int] = {}                       # least level that reads it
        for out in state.outs:
            if out:
                read.setdefault(out[0], []).append(ends)
                first.setdefault(out[0], depth + 1)
        total = 0
        for item in reversed(order):
            a, b, _, _ = made[item]
            latest = min(first[item] - 1, depth)
            at = (level[item] - 1) // every
            if latest > level[item]:
                to = (latest - 1) // every
                gain = width[item] * (to - at)
                for part in {a, b}:
                    gain -= width[part] * max(0, to - max([at, *read.get(part, [])]))
                if gain > 0 or to == at:
                    level[item], at = latest, to
            for part in (a, b):
                read.setdefault(part, []).append(at)
                first[part] = min(first.get(part, depth + 1), level[item])
            reads = read[item]
            last = max(reads)
            total += width[item] * (last - at)
            if last > at and at not in reads:
                total -= chain[item]                     # the adder's cells hold the first register
        for item in range(self.n):
            total += width[item] * max(read.get(item, [0]))
        return total

    # Searching -----------------------------------------------------------------------------------------------------------

    def ruin(self, state: _State) -> dict[int, list[Term]]:
        """Tear a part of the graph down: return the forms that must be built anew."""
        rng, made, items, n = self.rng, state.made, self.items, self.n
        nodes = list(made)
        kind = rng.random()
        gone: set[int] = set()
        forms: dict[int, list[Term]] = {}
        solid = {i for i in nodes if made[i] in items.even}

        def parts(term: Term) -> list[Term]:
            a, b, shift, how = made[term[0]]
            sign = items.make(a, b, shift, how)[2] * term[2]         # type: ignore[index]
            return [(a, term[1], sign), (b, term[1] + shift, sign * how)]

        def expand(terms: Sequence[Term]) -> list[Term]:
            result, todo = [], list(terms)
            while todo:
                term = todo.pop()
                if term[0] in gone:
                    todo += parts(term)
                else:
                    result.append(term)
            return _tidy(result, rng)

        if not nodes:
            return forms
        if kind < 0.8:                                   # some nodes, out of all that read them
            count = min(len(nodes), rng.randint(1, 8))
            gone = set(rng.sample(nodes, count))
            if kind < 0.6:                              # neighbours: what one reads or is read by, and so on
                near = [next(iter(gone))]
                gone = set()
                while near and len(gone) < count:
                    item = near.pop(rng.randrange(len(near)))
                    if item >= n and item not in gone:
                        gone.add(item)
                        near += made[item][:2]
                        near += [i for i, how in made.items() if item in how[:2]]
            gone -= solid
            for item in nodes:
                if item not in gone and item not in solid and (made[item][0] in gone or made[item][1] in gone):
                    forms[item] = expand(parts((item, 0, 1)))
            gone -= {i for s in solid for i in made[s][:2]}          # what must stay for one that cannot be torn down
            for j, out in enumerate(state.outs):
                if out and out[0] in gone:
                    forms[-1 - j] = expand([out])
        elif kind < 0.97:                                 # operands of some nodes and outputs, for these alone
            for _ in range(rng.randint(1, 3)):
                pick = rng.randrange(len(nodes) + len(state.outs))
                if pick < len(nodes):
                    key, terms = nodes[pick], parts((nodes[pick], 0, 1))
                    if nodes[pick] in solid:
                        continue
                else:
                    key = -1 - (pick - len(nodes))
                    out = state.outs[-1 - key]
                    if not out:
                        continue
                    terms = parts(out) if out[0] >= n and out[0] not in solid else [out]
                for _ in range(rng.randint(1, 3)):
                    inner = [t for t in terms if t[0] >= n and t[0] not in solid]
                    if inner:
                        chosen = rng.choice(inner)
                        terms.remove(chosen)
                        terms += parts(chosen)
                forms[key] = _tidy(terms, rng)
        else:                                            # an output from the inputs, or from an item not too far away
            j = rng.randrange(len(state.outs))
            row = self.matrix[j]
            terms = []
            if kind > 0.985:
                best: tuple[int, Term] | None = None
                for item in rng.sample(nodes, min(12, len(nodes))):
                    c = items.coefficients(item)
                    for sign in (1, -1):
                        shift = rng.randint(0, 1)
                        far = sum(len(digits(int(v))) for v in row - sign * (c << shift) if v)
                        if best is None or far < best[0]:
                            best = far, (item, shift, sign)
                if best:
                    terms = [best[1]]
                    row = row - best[1][2] * (items.coefficients(best[1][0]) << best[1][1])
            terms += [(i, shift, sign) for i, c in enumerate(row) for shift, sign in _recode(int(c), rng)]
            if self.matrix[j].any():
                forms[-1 - j] = terms
        for key, terms in forms.items():
            forms[key] = _tidy(terms, rng)
            if key >= 0:
                made.pop(key, None)
        for item in gone:
            made.pop(item, None)
        return forms

    def run(self, effort: Effort) -> AdderGraph:
        """Return the best graph found."""
        rng = self.rng
        best = now = min((self._judge(self.start(), {}) for _ in range(effort.starts)), key=lambda point: point.cost)
        for step in range(effort.steps):
            heat = _HEAT * max(0.05, 1 - step / effort.steps)
            room = -heat * math.log(1 - rng.random())
            state = now.state.copy()
            self.build(state, self.ruin(state), _Taste.draw(rng, self.every))
            if state.made == now.state.made and state.outs == now.state.outs:
                continue
            point = self._judge(state, now.phases, now, room, heat)
            if point.cost <= now.cost + room:
                now = point
                if point.cost < best.cost:
                    best = point
            if now.cost > best.cost + _LOST:
                now = best
        return self.graph(best)

    def _judge(self, state: _State, phases: dict[int, bool], now: _Point | None = None, room: float = 0, heat: float = 0) -> _Point:
        """Return the state judged; only roughly, with infinite cost, where it is much worse than ``now``."""
        rough = self.clear(state)
        point = _Point(state, math.inf, 0, phases, rough)
        if now and rough > now.rough + room + 2 * heat:
            return point
        point.phases = phases.copy()
        # Inverters come last; without most of them it must be good already.
        limit = now.cost + room - 0.7 * now.inverters if now else math.inf
        self.cost(point, limit)
        return point

def share(matrix: np.ndarray, ranges: Sequence[tuple[int, int]], *, every: int = 0, free_sign: bool = False,
          effort: Effort | None = None) -> AdderGraph:
    """Return a small adder graph for a matrix.

    Parameters
    ----------
    matrix : int array (outputs, inputs)
    ranges : sequence of (int, int)
        Inclusive range of each input.
    every : int
        Levels of adders between registers, which then count; 0: no registers.
    free_sign : bool
        An output may come negated for nothing.
    effort : Effort
    """
    check_vector(ranges, matrix)
    check_int("Levels between registers", every, 0)
    key = matrix.astype(np.int64)
    return _share(key.tobytes(), key.shape, tuple((int(a), int(b)) for a, b in ranges), every, free_sign, effort or Effort())


@lru_cache(maxsize=64)
def _share(data: bytes, shape: tuple[int, int], ranges: tuple[tuple[int, int], ...], every: int, free_sign: bool,
           effort: Effort) -> AdderGraph:
    matrix = np.frombuffer(data, np.int64).reshape(shape)
    graph = _Search(ranges, matrix, every, free_sign, effort.seed).run(effort)
    if not (graph.matrix == matrix).all():
        raise AssertionError("The adder graph is not the matrix")
    return graph
