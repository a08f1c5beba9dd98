"""Make an integer function exact: the smallest multiplier, offset and shift that give it on every reachable sum."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import ModelError

__all__ = ["ExactScale", "thresholds_of", "exact_scale", "fits"]

MAX_SHIFT = 62


@dataclass(frozen=True)
class ExactScale:
    """``clamp((a * mult + offset) >> shift, lo, hi)``; ``offset_neg`` replaces ``offset`` for negative ``a``, if given."""

    mult: int
    offset: int
    shift: int
    offset_neg: int | None = None


def thresholds_of(function: Callable[[int], int], lo: int, hi: int, first: int, last: int) -> list[int]:
    """Return ``T_k = min{a in lo..hi: function(a) >= k}`` for ``k = first + 1 .. last``; ``hi + 1`` where there is none.

    Parameters
    ----------
    function : int -> int
        Monotone; values outside ``first..last`` count as the nearer end.
    lo, hi : int
        Range of the argument.
    first, last : int
        Range of the result.
    """
    result, start = [], lo
    for k in range(first + 1, last + 1):
        below, above = start, hi + 1               # function(above) >= k, by convention at hi + 1
        while below < above:
            middle = (below + above) // 2
            if function(middle) >= k:
                above = middle
            else:
                below = middle + 1
        result.append(below)
        start = below
    return result


def _bounds(thresholds: Sequence[int], first: int, lo: int, hi: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the points that bind: (T, k) with k*2^s <= T*m + b, and (T - 1, k) with (T - 1)*m + b < k*2^s."""
    at = [(t, k) for k, t in enumerate(thresholds, start=first + 1) if t <= hi]
    before = [(t - 1, k) for k, t in enumerate(thresholds, start=first + 1) if t > lo]
    return at, before


def fits(scale: ExactScale, thresholds: Sequence[int], first: int, lo: int, hi: int) -> bool:
    """Return whether ``scale`` equals the function with these thresholds on all of ``lo..hi``: a proof, not a sweep."""
    at, before = _bounds(thresholds, first, lo, hi)

    def value(a: int) -> int:
        offset = scale.offset if scale.offset_neg is None or a >= 0 else scale.offset_neg
        return (a * scale.mult + offset) >> scale.shift

    if scale.offset_neg is not None and lo < 0 <= hi and value(-1) > value(0):
        return False                               # two lines need not be monotone where they meet
    return all(value(a) >= k for a, k in at) and all(value(a) < k for a, k in before)


def _offsets(m: int, s: int, at: list[tuple[int, int]], before: list[tuple[int, int]]) -> tuple[int | None, int | None]:
    least = max(((k << s) - t * m for t, k in at), default=None)
    most = min(((k << s) - 1 - t * m for t, k in before), default=None)
    return least, most


def _line(at: list[tuple[int, int]], before: list[tuple[int, int]], s: int) -> tuple[int, int, int] | None:
    """Return the smallest m >= 0 for a shift, and the range of its offsets, or None."""
    # every pair of an `at` point and a `before` point bounds m / 2**s: k*2^s - t*m <= k'*2^s - 1 - t'*m
    low, high = 0, None
    for t, k in at:
        for u, j in before:
            gap, need = t - u, ((k - j) << s) + 1          # need <= gap * m
            if gap > 0:
                low = max(low, -(-need // gap))
            elif gap == 0:
                if need > 0:
                    return None
            else:
                bound = need // gap if need % gap == 0 else -((need) // -gap) - 1
                high = bound if high is None else min(high, bound)
    if high is not None and low > high:
        return None
    least, most = _offsets(low, s, at, before)
    if least is not None and most is not None and least > most:
        return None
    half = (1 << s) >> 1
    if least is None:
        least = most if most is not None else half
    if most is None:
        most = least
    return low, least, most


def exact_scale(thresholds: Sequence[int], first: int, lo: int, hi: int, *, max_bits: int = 31,
                two_offsets: bool = False) -> ExactScale:
    """Return the line of the smallest shift that equals a monotone integer function on all of ``lo..hi``.

    Parameters
    ----------
    thresholds : sequence of int
        Of `thresholds_of`: where the result reaches ``first + 1``, ``first + 2``, ...
    first : int
        Lowest result.
    lo, hi : int
        Reachable arguments.
    max_bits : int
        Largest width of the multiplier in bits.
    two_offsets : bool
        Allow a second offset for negative arguments where one line does not do.

    Raises
    ------
    ModelError
        No such line.
    """
    at, before = _bounds(thresholds, first, lo, hi)
    for s in range(MAX_SHIFT):
        found = _line(at, before, s)
        if found is not None and found[0].bit_length() <= max_bits:
            m, least, most = found
            return ExactScale(m, _round_offset(least, most), s)
    if two_offsets and lo < 0 <= hi:
        for s in range(MAX_SHIFT):
            both = _two_lines(thresholds, first, lo, hi, s)
            if both is not None and both.mult.bit_length() <= max_bits:
                return both
    raise ModelError(f"No multiplier of up to {max_bits} bits with {'two offsets' if two_offsets else 'one offset'} gives this "
                     f"function on every sum of {lo}..{hi}; use thresholds")


def _round_offset(least: int, most: int) -> int:
    """Return the offset with the most trailing zeros in a range: cheap, and the plain half where that fits."""
    if least <= 0 <= most:
        return 0
    for bit in range(max(abs(least), abs(most)).bit_length(), -1, -1):
        candidate = -(-least >> bit) << bit
        if least <= candidate <= most:
            return candidate
    return least


def _two_lines(thresholds: Sequence[int], first: int, lo: int, hi: int, s: int) -> ExactScale | None:
    """Return one multiplier with an offset for each sign, or None."""
    # At and below -1 the function has the thresholds up to 0, from 0 on those above: each side is a problem of its own.
    negative = _bounds([min(t, 0) for t in thresholds], first, lo, -1)
    positive = _bounds([max(t, 0) for t in thresholds], first, 0, hi)
    ends = []
    for at, before in (negative, positive):
        found = _line(at, before, s)
        if found is None:
            return None
        ends.append(found[0])
    for m in range(max(ends), max(ends) + 3):      # both sides bound m from below; the tightest is nearly always it
        ranges = [_offsets(m, s, at, before) for at, before in (negative, positive)]
        if all(a is None or b is None or a <= b for a, b in ranges):
            least = [(a if a is not None else b if b is not None else 0, b if b is not None else a if a is not None else 0)
                     for a, b in ranges]
            return ExactScale(m, _round_offset(*least[1]), s, _round_offset(*least[0]))
    return None
