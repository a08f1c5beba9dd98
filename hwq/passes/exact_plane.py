"""Make an integer function of two codes exact: multipliers, offset and shift that give it on every pair."""

from dataclasses import dataclass

import numpy as np

__all__ = ["ExactPlane", "exact_plane"]

_MAX_SHIFT = 30
_REACH = 2                                         # multipliers tried on each side of the real ratio


@dataclass(frozen=True)
class ExactPlane:
    """``clamp((x * mult[0] + y * mult[1] + offset) >> shift, lo, hi)``."""

    mult: tuple[int, int]
    offset: int
    shift: int


def exact_plane(table: np.ndarray, x: np.ndarray, y: np.ndarray, slopes: tuple[float, float], lo: int,
                hi: int) -> ExactPlane | None:
    """Return the plane of the smallest shift found that equals a function on all pairs, or None.

    The search looks near the real slopes, so that a smaller one may exist; what it returns is checked on every pair.

    Parameters
    ----------
    table : int64 array (len(x), len(y))
        The function, clamped to ``lo..hi``.
    x, y : int64 array
        All codes of each side.
    slopes : (float, float)
        About how much the result moves with each code.
    lo, hi : int
        Range of the result.
    """
    xs, ys = np.broadcast_arrays(np.asarray(x, np.int64)[:, None], np.asarray(y, np.int64)[None, :])
    reach, stay = table > lo, table < hi           # pairs that bind from below, from above
    at = (xs[reach], ys[reach], table[reach])
    before = (xs[stay], ys[stay], table[stay] + 1)
    # most candidates fail on these
    few = [tuple(part[::max(1, len(part) // 997)] for part in points) for points in (at, before)]
    order = sorted(((i, j) for i in range(-_REACH, _REACH + 1) for j in range(-_REACH, _REACH + 1)),
                   key=lambda p: (abs(p[0]) + abs(p[1]), p))
    for s in range(_MAX_SHIFT + 1):
        middle = round(slopes[0] * 2.0 ** s), round(slopes[1] * 2.0 ** s)
        for di, dj in order:
            a, b = middle[0] + di, middle[1] + dj
            least, most = _bounds(few[0], few[1], a, b, s)
            if least <= most:
                least, most = _bounds(at, before, a, b, s)
                if least <= most:
                    return ExactPlane((a, b), _offset(least, most, s), s)
    return None


def _bounds(at: tuple, before: tuple, a: int, b: int, s: int) -> tuple[int, int]:
    """Return the least and the greatest offset that points to reach and points to stay below leave."""
    return (int(((at[2] << s) - at[0] * a - at[1] * b).max(initial=-(1 << 62))),
            int(((before[2] << s) - 1 - before[0] * a - before[1] * b).min(initial=1 << 62)))


def _offset(least: int, most: int, s: int) -> int:
    half = (1 << s) >> 1
    if least <= half <= most:
        return half
    return least if least > -(1 << 62) else most
