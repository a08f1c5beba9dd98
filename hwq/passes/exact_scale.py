"""Make an integer function exact: the smallest multiplier, offset and shift that give it on every reachable sum.

A monotone function on ``lo..hi`` is its thresholds. A line equals it if it stands on or above each threshold's point
and below each point one to the left of it; only the corners of the two hulls of these points can bind, so a channel
is solved without a sweep.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ModelError

__all__ = ["ExactScale", "ScaleForm", "thresholds_of", "threshold_table", "exact_scale", "exact_scales", "exact_line", "fits"]

MAX_SHIFT = 62
Points = list[tuple[int, int]]
Side = tuple[Points, Points]                       # corners of the points to reach, of the points to stay below


@dataclass(frozen=True)
class ExactScale:
    """``clamp((a * mult + offset) >> shift, lo, hi)``; ``offset_neg`` replaces ``offset`` for negative ``a``, if given."""

    mult: int
    offset: int
    shift: int
    offset_neg: int | None = None


@dataclass(frozen=True, eq=False)
class ScaleForm:
    """The scales of all channels at one shift: int64 arrays (channels,); ``offset_neg`` is empty where one offset serves."""

    mult: np.ndarray
    offset: np.ndarray
    shift: int
    offset_neg: np.ndarray


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


def threshold_table(function: Callable[[np.ndarray], np.ndarray], lo: np.ndarray, hi: np.ndarray, first: int,
                    last: int) -> np.ndarray:
    """Return `thresholds_of` for all channels at once, int64 (channels, last - first).

    Parameters
    ----------
    function : int64 (channels, n) -> int64 (channels, n)
        Monotone in each row.
    lo, hi : int64 array (channels,)
        Range of each channel's argument.
    first, last : int
        Range of the result.
    """
    levels = np.arange(first + 1, last + 1, dtype=np.int64)[None, :]
    below = np.repeat(np.asarray(lo, np.int64)[:, None], levels.shape[1], axis=1)
    above = np.repeat(np.asarray(hi, np.int64)[:, None] + 1, levels.shape[1], axis=1)
    top = np.asarray(hi, np.int64)[:, None]
    while (below < above).any():
        middle = (below + above) >> 1              # never asked at hi + 1: where it lands there, below == above
        reached = function(np.minimum(middle, top)) >= levels
        active = below < above
        above = np.where(active & reached, middle, above)
        below = np.where(active & ~reached, middle + 1, below)
    return below


def _hull(points: Points, upper: bool) -> Points:
    """Return the corners of the upper or lower hull of points that ascend in both coordinates."""
    sign = 1 if upper else -1
    corners: Points = []
    for t, k in points:
        if corners and corners[-1][0] == t:        # same place: the higher binds above, the lower (first) below
            if not upper:
                continue
            corners.pop()
        while len(corners) >= 2:
            (t0, k0), (t1, k1) = corners[-2:]
            if sign * ((k1 - k0) * (t - t1) - (k - k1) * (t1 - t0)) > 0:
                break
            corners.pop()
        corners.append((t, k))
    return corners


def _side(thresholds: Sequence[int], first: int, lo: int, hi: int) -> Side:
    """Return the points that bind: (T, k) with k*2^s <= T*m + b, and (T - 1, k) with (T - 1)*m + b < k*2^s."""
    at = [(t, k) for k, t in enumerate(thresholds, start=first + 1) if t <= hi]
    before = [(t - 1, k) for k, t in enumerate(thresholds, start=first + 1) if t > lo]
    return _hull(at, True), _hull(before, False)


def _sides(thresholds: Sequence[int], first: int, lo: int, hi: int) -> list[Side]:
    """Return the problem below zero and the problem from zero on."""
    return [_side([min(t, 0) for t in thresholds], first, lo, -1), _side([max(t, 0) for t in thresholds], first, 0, hi)]


def fits(scale: ExactScale, thresholds: Sequence[int], first: int, lo: int, hi: int) -> bool:
    """Return whether ``scale`` equals the function with these thresholds on all of ``lo..hi``: a proof, not a sweep."""
    if scale.mult < 0:
        return False
    two = scale.offset_neg is not None and lo < 0
    problems = [(_side(thresholds, first, lo, hi), scale.offset)]
    if two and hi < 0:
        problems = [(problems[0][0], scale.offset_neg)]            # type: ignore[list-item]
    elif two:
        negative, positive = _sides(thresholds, first, lo, hi)
        problems = [(negative, scale.offset_neg), (positive, scale.offset)]        # type: ignore[list-item]
    return all(all((t * scale.mult + b) >> scale.shift >= k for t, k in at)
               and all((t * scale.mult + b) >> scale.shift < k for t, k in before) for (at, before), b in problems)


def _offsets(m: int, s: int, side: Side) -> tuple[int, int] | None:
    """Return the least and the greatest offset for a multiplier, or None if there is none."""
    least = max(((k << s) - t * m for t, k in side[0]), default=None)
    most = min(((k << s) - 1 - t * m for t, k in side[1]), default=None)
    if least is None:
        least = most if most is not None else (1 << s) >> 1
    if most is None:
        most = least
    return (least, most) if least <= most else None


def _mults(side: Side, s: int) -> tuple[int, int | None] | None:
    """Return the smallest and the greatest multiplier >= 0 for a shift (None: no greatest), or None if there is none.

    Every pair of a point to reach and a point to stay below bounds it: k*2^s - t*m <= j*2^s - 1 - u*m.
    """
    low, high = 0, None
    for t, k in side[0]:
        for u, j in side[1]:
            gap, need = t - u, ((k - j) << s) + 1          # need <= gap * m
            if gap > 0:
                low = max(low, -(-need // gap))
            elif gap == 0:
                if need > 0:
                    return None
            else:
                bound = -need // -gap                      # m <= need / gap, both negative
                high = bound if high is None else min(high, bound)
    return None if high is not None and low > high else (low, high)


def _solve(sides: Sequence[Side], s: int) -> tuple[int, list[int]] | None:
    """Return the smallest multiplier for a shift with an offset for each side, or None."""
    low, high = 0, None
    for side in sides:
        found = _mults(side, s)
        if found is None:
            return None
        low = max(low, found[0])
        if found[1] is not None:
            high = found[1] if high is None else min(high, found[1])
    if high is not None and low > high:
        return None
    ranges = [_offsets(low, s, side) for side in sides]
    if any(r is None for r in ranges):
        return None
    return low, [_round_offset(*r) for r in ranges if r is not None]


def _least_shift(sides: Sequence[Side], at_least: int, max_bits: int) -> int | None:
    """Return the smallest shift that has a solution of up to ``max_bits`` (a shift that has one is followed by such)."""
    step, s = 1, at_least
    while _solve(sides, s) is None:
        s += step
        step *= 2
        if s > MAX_SHIFT:
            s = MAX_SHIFT
            if _solve(sides, s) is None:
                return None
            break
    below, above = at_least - 1, s
    while above - below > 1:
        middle = (below + above) // 2
        if _solve(sides, middle) is None:
            below = middle
        else:
            above = middle
    found = _solve(sides, above)
    assert found is not None
    return above if found[0].bit_length() <= max_bits else None


def _round_offset(least: int, most: int) -> int:
    """Return the offset with the most trailing zeros in a range: cheap, and the plain half where that fits."""
    if least <= 0 <= most:
        return 0
    for bit in range(max(abs(least), abs(most)).bit_length(), -1, -1):
        candidate = -(-least >> bit) << bit
        if least <= candidate <= most:
            return candidate
    return least


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
    form = exact_scales([thresholds], first, [lo], [hi], max_bits=max_bits, two_offsets=two_offsets)
    negative = int(form.offset_neg[0]) if form.offset_neg.size else None
    return ExactScale(int(form.mult[0]), int(form.offset[0]), form.shift, negative)


def exact_scales(thresholds: Sequence[Sequence[int]] | np.ndarray, first: int, lo: Sequence[int] | np.ndarray,
                 hi: Sequence[int] | np.ndarray, *, max_bits: int = 31, two_offsets: bool = False) -> ScaleForm:
    """Return the lines of all channels at the smallest shift that serves every one of them; see `exact_scale`.

    Parameters
    ----------
    thresholds : int (channels, n)
        A row of `thresholds_of` for each channel.
    lo, hi : int (channels,)
        Reachable arguments of each channel.
    first, max_bits, two_offsets
        See `exact_scale`.

    Raises
    ------
    ModelError
        A channel has no such line.
    """
    problems: list[list[Side]] = []
    shift = 0
    for c, row in enumerate(np.asarray(thresholds, dtype=object)):
        low, high = int(lo[c]), int(hi[c])
        row = [int(t) for t in row]
        sides = [_side(row, first, low, high)]
        found = _least_shift(sides, shift, max_bits)
        if found is None and two_offsets and low < 0 <= high:
            sides = _sides(row, first, low, high)
            found = _least_shift(sides, shift, max_bits)
        if found is None:
            raise ModelError(f"No multiplier of up to {max_bits} bits with {'two offsets' if two_offsets else 'one offset'} gives "
                             "this function on every sum of "
                             f"{low}..{high}{f' (channel {c})' if len(lo) > 1 else ''}; use thresholds")
        shift = max(shift, found)
        problems.append(sides)
    solved = [_solve(sides, shift) for sides in problems]
    assert all(s is not None for s in solved)
    if any(s[0].bit_length() > max_bits for s in solved if s is not None):
        raise ModelError(f"No multipliers of up to {max_bits} bits share one shift for all {len(solved)} channels; use thresholds")
    two = any(len(sides) > 1 for sides in problems)
    return ScaleForm(np.array([s[0] for s in solved], np.int64), np.array([s[1][-1] for s in solved], np.int64), shift,        # type: ignore[index]
                     np.array([s[1][0] for s in solved] if two else [], np.int64))        # type: ignore[index]


def exact_line(x: int, values: Sequence[int], *, max_bits: int = 31) -> ScaleForm:
    """Return the line, with two offsets if it must, that gives ``values[i]`` at ``x + i``: for results of many levels.

    Parameters
    ----------
    x : int
        Lowest argument.
    values : sequence of int
        The function at ``x, x + 1, ...``; it does not fall.
    max_bits : int
        Largest width of the multiplier in bits.

    Raises
    ------
    ModelError
        No such line.
    """
    def side(points: Points) -> Side:
        return _hull(points, True), _hull([(t, k + 1) for t, k in points], False)
    points = [(x + i, int(v)) for i, v in enumerate(values)]
    halves = [[p for p in points if p[0] < 0], [p for p in points if p[0] >= 0]]
    problems = [[side(points)]] + ([[side(half) for half in halves]] if all(halves) else [])
    for sides in problems:
        shift = _least_shift(sides, 0, max_bits)
        solved = None if shift is None else _solve(sides, shift)
        if shift is not None and solved is not None:
            return ScaleForm(np.array([solved[0]], np.int64), np.array([solved[1][-1]], np.int64), shift,
                             np.array(solved[1][:-1], np.int64))
    raise ModelError(f"No multiplier of up to {max_bits} bits gives these {len(points)} values")
