"""The only definition of rounding, shifting and saturation in hwq, on int64.

The interpreter, the quantizers and the ``model()`` of every hardware block call these functions; the hardware is
tested against them.
"""

import numpy as np

from .errors import FormatError

__all__ = ["bit_range", "width_of", "saturate", "shift_right_floor", "round_half_up", "scale_shift"]


def bit_range(width: int, signed: bool) -> tuple[int, int]:
    """Return the lowest and highest integer of ``width`` bits."""
    return (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)


def width_of(lo: int, hi: int) -> tuple[int, bool]:
    """Return the least width in bits (sign included, at least 1) that holds ``lo..hi``, and whether it is signed."""
    if lo > hi:
        raise FormatError(f"Range must not be empty, not {lo}..{hi}")
    if lo >= 0:
        return max(1, int(hi).bit_length()), False
    return max(int(-lo - 1).bit_length(), int(hi).bit_length() if hi > 0 else 0) + 1, True


def saturate(x: np.ndarray, lo: int, hi: int) -> np.ndarray:
    """Clamp to ``lo..hi``."""
    return np.clip(x, lo, hi)


def shift_right_floor(x: np.ndarray, shift: int) -> np.ndarray:
    """Divide by ``2**shift``, rounding towards minus infinity; a negative shift multiplies (exact)."""
    return x >> shift if shift >= 0 else x << -shift


def round_half_up(x: np.ndarray) -> np.ndarray:
    """Round reals to the nearest integer, ties towards plus infinity."""
    return np.floor(np.asarray(x, dtype=np.float64) + 0.5)


def scale_shift(acc: np.ndarray, mult: np.ndarray | int, offset: np.ndarray | int, shift: int, lo: int, hi: int,
                offset_neg: np.ndarray | int | None = None, half_even: bool = False) -> np.ndarray:
    """Return ``clamp((acc * mult + offset) >> shift, lo, hi)``, the `scale` form of a requantization.

    Parameters
    ----------
    acc : int64 array
        Accumulators, channels last.
    mult, offset : int or array over channels
        Multiplier and offset. Rounding half up by ``shift`` is ``offset`` including ``2**(shift - 1)``.
    shift : int
        Right shift in bits; negative shifts left.
    lo, hi : int
        Inclusive output range.
    offset_neg : int or array, optional
        Offset for negative accumulators (sign of ``acc``), where one line cannot give the source's rounding.
    half_even : bool
        Round ties to even instead: the offset must then not include the half.
    """
    off = offset if offset_neg is None else np.where(acc < 0, offset_neg, offset)
    total = acc * mult + off
    if half_even and shift > 0:
        total = total + ((1 << (shift - 1)) - 1) + ((total >> shift) & 1)
    return saturate(shift_right_floor(total, shift), lo, hi)
