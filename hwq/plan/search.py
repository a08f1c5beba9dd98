"""Share out the device: one option a layer, the fewest logic cells within the block RAMs and multipliers there are."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from hwq.rtl.common import Cost

__all__ = ["choose"]


class _HasCost(Protocol):
    @property
    def cost(self) -> Cost: ...


Option = TypeVar("Option", bound=_HasCost)


def choose(layers: Sequence[Sequence[Option]], ebr: int | None, dsp: int, spram: int = 0) -> list[Option] | None:
    """Return one option of each layer, together within ``ebr``, ``dsp`` and ``spram``, with the fewest logic cells, or None.

    Exact: it walks the layers and keeps, for each number of block RAMs, multipliers and large RAMs used, the least logic.
    Without a limit of block RAM (``ebr`` None) each layer takes its own least. Of equal logic the one with fewer blocks.
    """
    if any(not each for each in layers):
        return None
    if ebr is None:
        return [min(each, key=lambda o: (o.cost.lc, o.cost.ebr)) for each in layers]
    ebr, dsp, spram = (min(limit, sum(max(uses) for uses in each)) for limit, each in (
        (ebr, [[o.cost.ebr for o in each] for each in layers]), (dsp, [[o.cost.dsp for o in each] for each in layers]),
        (spram, [[o.cost.spram for o in each] for each in layers])))
    if ebr < 0 or dsp < 0:
        return None
    least = np.full((ebr + 1, dsp + 1, spram + 1), np.inf)                 # at [blocks, multipliers, large RAMs] used so far
    least[0, 0, 0] = 0.0
    picks = []
    for each in layers:
        step, pick = np.full_like(least, np.inf), np.zeros(least.shape, int)
        for k, o in enumerate(each):
            b, d, s = o.cost.ebr, o.cost.dsp, o.cost.spram
            if b <= ebr and d <= dsp and s <= spram:
                total = least[:ebr + 1 - b, :dsp + 1 - d, :spram + 1 - s] + o.cost.lc
                better = total < step[b:, d:, s:]
                step[b:, d:, s:][better], pick[b:, d:, s:][better] = total[better], k
        least = step
        picks.append(pick)
    at = np.unravel_index(least.argmin(), least.shape)
    if np.isinf(least[at]):
        return None
    chosen: list[Option] = []
    for each, pick in zip(reversed(layers), reversed(picks), strict=True):
        chosen.append(each[pick[at]])
        cost = chosen[-1].cost
        at = at[0] - cost.ebr, at[1] - cost.dsp, at[2] - cost.spram
    return chosen[::-1]
