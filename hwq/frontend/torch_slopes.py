"""The requantization that equals a slope for negative values and a quantizer of a torch network, in the cheapest exact form."""

from typing import Any

import numpy as np
import torch

from ..errors import ModelError
from ..passes.exact_scale import exact_scales, threshold_table
from ..quant.stages import Requant
from .builder import MAX_THRESHOLDS, occurring

__all__ = ["sloped"]


def sloped(requant: Requant, low: np.ndarray, high: np.ndarray, name: str) -> tuple[dict[str, Any], np.ndarray]:
    """Return the fields of the `ir.Requantize` that equals a requantization with a slope, and signs to multiply its sums by before.

    Arrays have one row, or one for each channel in torch's order.

    Parameters
    ----------
    requant : Requant
        With a slope.
    low, high : int64 array (1,) or (channels,)
        Bounds of the sums.
    name : str
        Of the layer, for messages.

    Raises
    ------
    ModelError
        No multiplier gives it, and it would take too many thresholds.
    """
    assert requant.slope is not None
    rows, grid = max(len(part) for part in (requant.mult, requant.offset, *requant.slope)), requant.grid
    if rows == 1:
        low, high = low.min(keepdims=True), high.max(keepdims=True)
    falling = np.zeros(1, bool) if requant.falling is None else requant.falling.cpu().numpy()
    low, high, falling = (np.broadcast_to(part, (rows,)) for part in (low, high, falling))
    low, high, sign = np.where(falling, -high, low), np.where(falling, -low, high), np.where(falling, -1, 1)
    bound = float(max(np.abs(low).max(), np.abs(high).max()))

    def codes(a: np.ndarray) -> np.ndarray:
        sums = torch.from_numpy((a * sign[:, None]).T.astype(np.float64)).to(requant.mult.device)
        return requant(sums, bound, name).cpu().numpy().astype(np.int64).T
    table, lo, hi = occurring(threshold_table(codes, low, high, grid.lo, grid.hi), grid.lo, low, high)
    fields: dict[str, Any] = {"lo": lo, "hi": hi, "frac_bits": grid.frac_bits}
    try:
        form = exact_scales(table, lo, low, high, two_offsets=True)
        return fields | {"mult": form.mult, "offset": form.offset, "shift": form.shift, "offset_neg": form.offset_neg}, sign
    except ModelError:
        thresholds = np.array(table, np.int64).reshape(rows, -1)
        if thresholds.size > MAX_THRESHOLDS:
            raise ModelError(f"Layer '{name}': the slope for negative values behind it would take {thresholds.size:,} thresholds "
                             f"for {rows} channels; the limit is {MAX_THRESHOLDS:,}. Use fewer bits for its activations") from None
        return fields | {"thresholds": thresholds}, sign
