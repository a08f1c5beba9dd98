"""Rules of layer-wise precision scaling. They know bits and scores, not how a network is trained.

A rule gets the scored start, and a function that scores candidates: only calibrated (``"none"``) or trained briefly (``"brief"``)
from a parent's weights, or trained as long as the reference (``"full"``). It returns what it accepted, and the way there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Score", "Found", "Evaluate", "RULES", "within", "admissible", "greedy", "fast", "path", "product"]

_COARSE = 4              # bits; at and below them an untrained network says little of a trained one
_EASY = 1e-4             # cross-entropy: added loss below it counts as this much, so that gains do not divide by nothing


@dataclass(frozen=True)
class Score:
    """A trained candidate.

    Attributes
    ----------
    bits : dict of layer to int
        Widths of its weights.
    accuracy, cross_entropy : float
        On the search split.
    cost : float
        Bits of all weights, or block RAMs.
    size : float
        Bits of all weights.
    key : str
        Its job.
    slack : float
        Accuracy by which it may miss what is allowed and still be accepted: noise that whoever confirms the answer can afford.
    """

    bits: dict[str, int]
    accuracy: float
    cross_entropy: float
    cost: float
    size: float
    key: str = field(default="", compare=False)
    slack: float = 0.0


@dataclass(frozen=True)
class Found:
    """What a rule gives.

    Attributes
    ----------
    accepted : list of Score
        States within the allowed drop, from the start to the answer.
    way : list of (dict of layer to int, float)
        Widths, and bits of all weights, from the start to the answer; a rule may never have asked for some of these states.
    """

    accepted: list[Score]
    way: list[tuple[dict[str, int], float]]


# evaluate(parent, candidates, how): scores of the candidates; how is "none", "brief" or "full".
Evaluate = Callable[[Score, Sequence[dict[str, int]], str], list[Score]]


def within(drop: float, allowed: float) -> bool:
    """Return whether a drop is at most the allowed one; just as much is.

    Accuracies are counts over at most some hundred thousand images, so what is smaller than a billionth is rounding.
    """
    return drop <= allowed + 1e-9


def admissible(score: Score, reference: float, allowed: float) -> bool:
    """Return whether the accuracy is at most ``allowed``, and the score's slack, below ``reference``."""
    return within(reference - score.accuracy, allowed + score.slack)


def _lower(bits: dict[str, int], layer: str, by: int = 1) -> dict[str, int]:
    return {**bits, layer: bits[layer] - by}


def _found(path: list[Score]) -> Found:
    return Found(path, [(score.bits, score.size) for score in path])


def greedy(start: Score, evaluate: Evaluate, *, reference: float, allowed: float, least: int) -> Found:
    """One layer one bit lower, the one that saves most per added cross-entropy, as long as one is admissible.

    A candidate is admissible where its accuracy is at most ``allowed`` below ``reference``; a layer whose candidate is not
    stays as it is from then on. Saved cost per added cross-entropy decides; equal ones: the higher accuracy.
    """
    path, frozen = [start], set[str]()
    while True:
        now = path[-1]
        layers = [layer for layer, bits in now.bits.items() if layer not in frozen and bits > least]
        if not layers:
            return _found(path)
        scores = evaluate(now, [_lower(now.bits, layer) for layer in layers], "brief")
        frozen |= {layer for layer, score in zip(layers, scores, strict=True) if not admissible(score, reference, allowed)}
        passed = [score for layer, score in zip(layers, scores, strict=True) if layer not in frozen]
        if not passed:
            return _found(path)

        def worth(score: Score, now: Score = now) -> tuple[float, float, float]:
            # Block RAMs come in steps: where none saves any, saved bits decide.
            per = max(score.cross_entropy - now.cross_entropy, _EASY)
            return ((now.cost - score.cost) / per, (now.size - score.size) / per, score.accuracy)
        path.append(max(passed, key=worth))


def fast(start: Score, evaluate: Evaluate, *, reference: float, allowed: float, least: int) -> Found:
    """Layers ordered once by sensitivity, then each as low as admissible, found by bisection: a tenth of greedy's trainings.

    Sensitivity: cross-entropy that the least width adds without training, per bit saved. The least sensitive layer goes
    first; accuracy is taken to fall with the bits.
    """
    layers = [layer for layer, bits in start.bits.items() if bits > least]
    probes = evaluate(start, [{**start.bits, layer: least} for layer in layers], "none")
    order = sorted(zip(layers, probes, strict=True),
                   key=lambda pair: (pair[1].cross_entropy - start.cross_entropy) / max(start.size - pair[1].size, 1.0))
    path = [start]
    for layer, _ in order:
        now = path[-1]
        low, high, best = least, now.bits[layer] - 1, now           # low..high: widths that may still be admissible
        while low <= high:
            middle = (low + high) // 2
            score = evaluate(now, [{**now.bits, layer: middle}], "brief")[0]
            if admissible(score, reference, allowed):
                best, high = score, middle - 1
            else:
                low = middle + 1
        if best is not now:
            path.append(best)
    return _found(path)


def _hull(points: Sequence[tuple[float, float, int]]) -> list[tuple[float, int]]:
    """Return the lower convex hull of (saved, added, bits) as steps: added per saved, and the bits that the step goes down to.

    The allocation of Shoham and Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Trans. ASSP 36(9),
    1988.
    """
    hull: list[tuple[float, float, int]] = []
    for x, y, bits in points:
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (x - hull[-2][0]) > (y - hull[-2][1]) * (hull[-1][0] - hull[-2][0]):
            hull.pop()
        hull.append((x, y, bits))
    return [((b[1] - a[1]) / max(b[0] - a[0], 1.0), b[2]) for a, b in zip(hull, hull[1:], strict=False)]


def path(start: Score, evaluate: Evaluate, *, reference: float, allowed: float, least: int) -> Found:
    """One way from the start down to the least bits, and on it the lowest point that a whole training brings within the drop.

    Every layer is probed alone at every width; widths of `_COARSE` bits and fewer after a brief training, because training
    mends there what looks worst, and differently from layer to layer. What a layer adds to the cross-entropy is taken to add up
    over the layers, so the next step down is the one that adds least per bit saved, out of the layers' convex hulls: a width
    that noise or missing training makes look worse than a smaller one is stepped over. Along this way bisection asks with
    trainings as long as the reference's: about five, where `greedy` needs a brief one for every layer at every step, and
    brief ones blame a candidate for what more epochs would mend.
    """
    probes = [(layer, bits) for layer, now in start.bits.items() for bits in range(now - 1, least - 1, -1)]
    added, saved = dict[tuple[str, int], float](), dict[tuple[str, int], float]()
    for how in ("none", "brief"):
        asked = [probe for probe in probes if (how == "brief") == (probe[1] <= _COARSE)]
        for probe, score in zip(asked, evaluate(start, [{**start.bits, layer: bits} for layer, bits in asked], how), strict=True):
            added[probe] = max(0.0, score.cross_entropy - start.cross_entropy)
            saved[probe] = start.size - score.size
    steps = [(price, layer, bits) for layer in start.bits
             for price, bits in _hull([(0.0, 0.0, start.bits[layer])] + [(saved[layer, b], added[layer, b], b)
                                                                       for b in range(start.bits[layer] - 1, least - 1, -1)])]
    way, bits, size = [(start.bits, start.size)], dict(start.bits), start.size
    for _, layer, to in sorted(steps, key=lambda step: step[0]):
        size += saved.get((layer, bits[layer]), 0.0) - saved[layer, to]
        bits = {**bits, layer: to}
        way.append((bits, size))
    found, low, high = [start], 1, len(way) - 1          # way[low..high] may still be admissible
    while low <= high:
        middle = (low + high) // 2
        score = evaluate(start, [way[middle][0]], "full")[0]
        if admissible(score, reference, allowed):
            found.append(score)
            low = middle + 1
        else:
            high = middle - 1
    return Found(found, way[:low])                       # where the bisection ended, the answer is the state before


def product(start: Score, evaluate: Evaluate, *, reference: float, allowed: float, least: int) -> Found:
    """A third party's rule: every round the candidate with the least (reference - accuracy) * size, down to the least bits.

    Known from a public re-implementation (QuantTorch); whether it is the paper's is not known. It walks on past the
    allowed drop; what counts is the cheapest state within it. Where a candidate beats the reference, the product turns
    negative and prefers the larger size: kept as it is.
    """
    walk = [start]
    while True:
        now = walk[-1]
        layers = [layer for layer, bits in now.bits.items() if bits > least]
        if not layers:
            break
        scores = evaluate(now, [_lower(now.bits, layer) for layer in layers], "brief")
        walk.append(min(scores, key=lambda score: (reference - score.accuracy) * score.size))
    within = [at for at, score in enumerate(walk) if at == 0 or admissible(score, reference, allowed)]
    last = min(within, key=lambda at: (walk[at].cost, walk[at].size))
    return _found(walk[:last + 1])


RULES: dict[str, Callable[..., Found]] = {"greedy": greedy, "fast": fast, "path": path, "product": product}
