"""Share out the device: one option a layer, the fewest logic cells within the block RAMs and multipliers there are."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from hwq.rtl.common import Cost

__all__ = ["choose"]


class _HasCost(Protocol):
    @property
    def cost(self) -> Cost: ...


Option = TypeVar("Option", bound=_HasCost)


def choose(layers: Sequence[Sequence[Option]], ebr: int | None, dsp: int) -> list[Option] | None:
    """Return one option of each layer, together within ``ebr`` and ``dsp``, with the fewest logic cells; None if there is none.

    Exact: it walks the layers and keeps, for each number of block RAMs and multipliers used, the least logic. Without a
    limit of block RAM (``ebr`` None) each layer takes its own least.
    """
    if any(not each for each in layers):
        return None
    if ebr is None:
        return [min(each, key=lambda o: (o.cost.lc, o.cost.ebr)) for each in layers]
    best: dict[tuple[int, int], tuple[float, tuple[Option, ...]]] = {(0, 0): (0.0, ())}
    for each in layers:
        step: dict[tuple[int, int], tuple[float, tuple[Option, ...]]] = {}
        cheapest: dict[tuple[int, int], Option] = {}
        for o in each:
            use = o.cost.ebr, o.cost.dsp
            if use not in cheapest or o.cost.lc < cheapest[use].cost.lc:
                cheapest[use] = o
        for (blocks, multipliers), (lc, chosen) in best.items():
            for (b, d), o in cheapest.items():
                key = blocks + b, multipliers + d
                if key[0] <= ebr and key[1] <= dsp and (key not in step or lc + o.cost.lc < step[key][0]):
                    step[key] = (lc + o.cost.lc, (*chosen, o))
        best = step
    if not best:
        return None
    return list(best[min(best, key=lambda use: (best[use][0], use))][1])      # of equal logic the one with fewer blocks
