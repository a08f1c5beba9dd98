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

from .adders import AdderGraph, Node, check_vector, digits, registers, segments
from .common import check_int
from .phases import choose_phases
from .ruin import ruin
from .terms import Items, Pool, State, Term, how_made

__all__ = ["Effort", "share"]

_HEAT = 6.0                                              # logic cells; of the annealing's begin
_LOST = 40                                               # so much worse than the best, go back to it
_PAIRS = 60_000                                          # pairs of terms that are looked at together


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


@dataclass
class _Point:
    """A state, its logic cells and what of them are inverters, its nodes' phases, and the adders' bits, roughly."""

    state: State
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
        self.items = Items(ranges, 16 if reach < 1 << 13 else 32)
        self.n, self.matrix, self.every, self.free_sign = len(ranges), matrix, every, free_sign
        self.rng = random.Random(seed)

    # Greedy ------------------------------------------------------------------------------------------------------------

    def start(self) -> State:
        """Return a graph by one greedy run from the digits."""
        rng, n = self.rng, self.n
        state = State({}, [None] * len(self.matrix))
        taste = _Taste.draw(rng, self.every)
        rows = [{i: digits(int(c), rng) for i, c in enumerate(row) if c} for row in self.matrix]
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

    def depends(self, state: State, forms: dict[int, list[Term]], items: Sequence[int], on: int) -> bool:
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

    def build(self, state: State, forms: dict[int, list[Term]], taste: _Taste, least: int = 1) -> None:
        """Make items until every form has few enough terms: of an output (key -1 - output) one, of an item (key item) two.

        With ``least`` 2 only as long as something is shared.
        """
        items, rng, made, n = self.items, self.rng, state.made, self.n
        pool = Pool(items, forms, made)
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
                    made[key] = how_made(*terms)

    # Judging -----------------------------------------------------------------------------------------------------------

    def clear(self, state: State) -> int:
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
        ends = registers(depth, every)
        place = {item: k for k, item in enumerate([*range(n), *order])}
        reads = [[(place[made[i][0]], stage[i], kinds[i][1]), (place[made[i][1]], stage[i], kinds[i][0] != kinds[i][1])]
                 for i in order]
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

    def _delays(self, state: State, order: list[int], level: dict[int, int], width: dict[int, int], chain: dict[int, int],
                depth: int) -> int:
        """Move nodes to later levels where that saves registers; return the registers that share no cell with an adder."""
        every, made = self.every, state.made
        ends = registers(depth, every)
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

    def run(self, effort: Effort) -> AdderGraph:
        """Return the best graph found."""
        rng = self.rng
        best = now = min((self._judge(self.start(), {}) for _ in range(effort.starts)), key=lambda point: point.cost)
        for step in range(effort.steps):
            heat = _HEAT * max(0.05, 1 - step / effort.steps)
            room = -heat * math.log(1 - rng.random())
            state = now.state.copy()
            self.build(state, ruin(state, self.items, self.matrix, rng), _Taste.draw(rng, self.every))
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

    def _judge(self, state: State, phases: dict[int, bool], now: _Point | None = None, room: float = 0, heat: float = 0) -> _Point:
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
