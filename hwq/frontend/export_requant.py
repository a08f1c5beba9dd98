"""How a requantization is said in ONNX: as a line that float32 computes exactly, or as thresholds."""

from dataclasses import dataclass

import numpy as np

from ..arith import scale_shift
from ..errors import ModelError
from ..ir.nodes import Edge, Requantize
from ..passes.exact_scale import threshold_table

__all__ = ["Line", "Steps", "bit_range_of", "line_of", "steps_of"]

_MOST_BITS = 16
_MOST_THRESHOLDS = 1 << 20

Quant = tuple[int, bool, bool]


@dataclass(frozen=True, eq=False)
class Line:
    """``(a * mult + offset) >> shift`` with ``shift >= 0``, then limits.

    Attributes
    ----------
    mult, offset : int64 array (1,) or (channels,)
    shift : int
    quant : (int, bool, bool) or None
        Width, signed, narrow of the quantizer; None where nothing is rounded or limited.
    """

    mult: np.ndarray
    offset: np.ndarray
    shift: int
    quant: Quant | None


@dataclass(frozen=True, eq=False)
class Steps:
    """``lo + #{k: a * sign[c] >= thresholds[c, k]}``."""

    lo: int
    thresholds: np.ndarray
    sign: np.ndarray


def bit_range_of(lo: int, hi: int, least: int, most: int, cut_below: bool, cut_above: bool) -> Quant | None:
    """Return width, signed, narrow of the narrowest quantizer that limits to ``lo..hi`` where that matters; None if there is none.

    Parameters
    ----------
    lo, hi : int
        Limits.
    least, most : int
        What is to be limited.
    cut_below, cut_above : bool
        Whether the limit matters; where it does not, any range that holds ``least`` or ``most`` will do.
    """
    for width in range(1, _MOST_BITS + 1):
        for signed in (False, True):
            for narrow in (False, True):
                if (signed and width == 1) or (narrow and not signed):
                    continue                             # of one bit QONNX makes -1 and 1; narrow unsigned ranges are rare
                low, high = (-(1 << width - 1) + narrow, (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)
                if (low == lo if cut_below else low <= least) and (high == hi if cut_above else high >= most):
                    return width, signed, narrow
    return None


def line_of(node: Requantize, edge: Edge, exact: int) -> Line | None:
    """Return the line of a requantization of an edge if all integers on the way stay below ``exact``, else None."""
    if node.thresholds.size or node.offset_neg.size:
        return None
    up, shift = max(-node.shift, 0), max(node.shift, 0)
    mult, offset = node.mult.astype(object) << up, node.offset.astype(object) << up
    common = np.bitwise_or.reduce(np.abs(np.concatenate([mult, offset])))
    zeros = (int(common) & -int(common)).bit_length() - 1 if common else 0
    ends = [edge.lo * mult + offset, edge.hi * mult + offset]
    reach = max(abs(edge.lo), abs(edge.hi)) * int(np.abs(mult).max()) + int(np.abs(offset).max())
    if reach >> zeros >= exact or int(np.abs(mult).max()) >> zeros >= exact:
        return None
    least, most = min(int(end.min()) for end in ends) >> shift, max(int(end.max()) for end in ends) + (1 << shift) - 1 >> shift
    line = mult.astype(np.int64), offset.astype(np.int64), shift
    if shift == 0 and node.lo <= least and most <= node.hi:
        return Line(*line, None)
    quant = bit_range_of(node.lo, node.hi, least, most, least < node.lo, most > node.hi)
    return None if quant is None else Line(*line, quant)


def steps_of(node: Requantize, edge: Edge) -> Steps:
    """Return the thresholds of any requantization, of the codes that occur.

    Raises
    ------
    ModelError
        More than a million.
    """
    if node.thresholds.size:
        return Steps(node.lo, node.thresholds, np.ones(1, np.int64))
    rows = max(len(node.mult), len(node.offset), len(node.offset_neg))
    mult, offset = np.broadcast_to(node.mult, (rows,)), np.broadcast_to(node.offset, (rows,))
    negative = np.broadcast_to(node.offset_neg, (rows,))[:, None] if node.offset_neg.size else None
    sign = np.where(mult < 0, -1, 1)
    low, high = np.where(sign < 0, -edge.hi, edge.lo), np.where(sign < 0, -edge.lo, edge.hi)

    def codes(a: np.ndarray) -> np.ndarray:
        return scale_shift(a * sign[:, None], mult[:, None], offset[:, None], node.shift, node.lo, node.hi,
                           negative, node.half_even)
    lo, hi = int(codes(low[:, None]).min()), int(codes(high[:, None]).max())
    if rows * (hi - lo) > _MOST_THRESHOLDS:
        raise ModelError(f"Requantize '{node.name}' cannot be exported: no line that float32 computes exactly gives it, and it "
                         f"would take {rows * (hi - lo):,} thresholds; the limit is {_MOST_THRESHOLDS:,}")
    return Steps(lo, threshold_table(codes, low, high, lo, hi), sign)
