"""Tear a part of an adder graph down, for a search to build it anew."""

import random
from collections.abc import Sequence

import numpy as np

from .adders import digits
from .terms import Items, State, Term, tidy

__all__ = ["ruin"]


def ruin(state: State, items: Items, matrix: np.ndarray, rng: random.Random) -> dict[int, list[Term]]:
    """Tear a part of the graph down: return the forms that must be built anew."""
    made, n = state.made, len(items.ranges)
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
        return tidy(result, rng)

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
            forms[key] = tidy(terms, rng)
    else:                                            # an output from the inputs, or from an item not too far away
        j = rng.randrange(len(state.outs))
        row = matrix[j]
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
        terms += [(i, shift, sign) for i, c in enumerate(row) for shift, sign in digits(int(c), rng)]
        if matrix[j].any():
            forms[-1 - j] = terms
    for key, terms in forms.items():
        forms[key] = tidy(terms, rng)
        if key >= 0:
            made.pop(key, None)
    for item in gone:
        made.pop(item, None)
    return forms
