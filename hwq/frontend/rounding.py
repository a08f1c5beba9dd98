"""Where rounding functions step, in exact arithmetic: real quantizers become thresholds on integers."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import isqrt

import numpy as np

__all__ = ["MODES", "step", "round_exact", "sqrt_fraction", "integer_thresholds", "as_float", "NEVER"]

Step = tuple[Fraction, bool]                       # the place, and whether the place itself still lies below
NEVER = 1 << 61
HALF = Fraction(1, 2)

_STEPS: dict[str, Callable[[int], Step]] = {
    "HALF_EVEN": lambda k: (k - HALF, k % 2 == 1),
    "CEIL": lambda k: (Fraction(k - 1), True),
    "FLOOR": lambda k: (Fraction(k), False),
    "UP": lambda k: (Fraction(k - 1), True) if k >= 1 else (Fraction(k), False),
    "DOWN": lambda k: (Fraction(k), False) if k >= 1 else (Fraction(k - 1), True),
    "HALF_UP": lambda k: (k - HALF, k < 1),
    "HALF_DOWN": lambda k: (k - HALF, k >= 1),
}
_STEPS["ROUND"] = _STEPS["HALF_EVEN"]
MODES = tuple(_STEPS)
"""Modes of QONNX. UP: away from zero, DOWN: to zero, HALF_UP: half away from zero, HALF_DOWN: half to zero."""


def step(mode: str, k: int) -> Step:
    """Return where rounding reaches the integer ``k``."""
    return _STEPS[mode](k)


def round_exact(mode: str, x: Fraction) -> int:
    """Return a rational rounded."""
    k = x.numerator // x.denominator
    place, strict = _STEPS[mode](k + 1)
    return k + 1 if x > place or (x == place and not strict) else k


def sqrt_fraction(x: Fraction, bits: int = 256) -> Fraction:
    """Return the square root: exact where it is rational, else to a relative error below ``2**-bits``."""
    product = x.numerator * x.denominator
    root = isqrt(product)
    if root * root == product:
        return Fraction(root, x.denominator)
    up = max(0, bits + 2 - root.bit_length())
    return Fraction(isqrt(product << (2 * up)), x.denominator << up)


def integer_thresholds(steps: Sequence[Step], scale: Fraction, shift: Fraction, lo: Fraction | None,
                       hi: Fraction | None, slope: Fraction = Fraction(1)) -> list[int]:
    """Return for each step the least integer ``a`` (of ``-a`` if the scale is negative) with ``clip(scale * a + shift)`` beyond it.

    Parameters
    ----------
    steps : sequence of (Fraction, bool)
        Ascending; true: the place itself does not count.
    scale, shift : Fraction
        Real value of the integer ``a``.
    lo, hi : Fraction or None
        Clip of the real value.
    slope : Fraction
        What negative real values are multiplied by before the clip, 0 or more.

    Returns
    -------
    list of int
        ``-NEVER`` where all integers lie beyond, ``NEVER`` where none does.
    """
    result = []
    a, b, c, d = scale.numerator, scale.denominator, shift.numerator, shift.denominator
    for place, strict in steps:
        if lo is not None and (place < lo or (place == lo and not strict)):
            result.append(-NEVER)
        elif hi is not None and (place > hi or (place == hi and strict)):
            result.append(NEVER)
        elif slope == 0 and (place < 0 or (place == 0 and not strict)):
            result.append(-NEVER)
        elif a == 0:
            place = place / slope if place < 0 else place
            result.append(-NEVER if shift > place or (shift == place and not strict) else NEVER)
        else:
            place = place / slope if place < 0 else place
            # (place - shift) / |scale|
            top = (place.numerator * d - c * place.denominator) * b
            bottom = place.denominator * d * abs(a)
            value = top // bottom + 1 if strict else -(-top // bottom)
            result.append(max(-NEVER, min(NEVER, value)))
    return result


def as_float(rows: Sequence[Sequence[Step]]) -> np.ndarray:
    """Return the places as float64 (rows, steps)."""
    return np.array([[float(place) for place, _ in row] for row in rows], np.float64).reshape(len(rows), -1)
