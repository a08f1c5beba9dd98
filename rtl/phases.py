"""Choose the polarities of an adder graph's nodes, so that few items are needed both as they are and complemented."""

import random
from collections.abc import Sequence

__all__ = ["Reads", "choose_phases"]

# Who reads an item: (register stage, polarity when the node's phase is 0) pairs, by node; outputs have no phase.
Reads = list[tuple[int, int, bool]]


def choose_phases(count: int, widths: Sequence[int], reads: Sequence[Reads], fixed: Sequence[Sequence[tuple[int, bool]]],
                  inputs: int, phases: list[bool], rng: random.Random | None = None, starts: int = 0) -> int:
    """Set ``phases`` of ``count`` nodes, in place, by coordinate descent from what they are; return the inverters needed.

    Parameters
    ----------
    widths : sequence of int
        Bits of each item.
    reads : sequence of Reads
        For each node, its operands as (item, register stage, polarity wanted when the phase is 0).
    fixed : sequence of sequences of (stage, polarity)
        For each item, what the outputs want of it.
    inputs : int
        The first items are inputs, which come uncomplemented.
    rng, starts
        More descents from random phases.
    """
    best, best_cost = None, 1 << 60
    for attempt in range(starts + 1):
        if attempt:
            assert rng is not None
            phases[:] = [rng.random() < 0.5 for _ in range(count)]
        cost = _descend(count, widths, reads, fixed, inputs, phases)
        if cost < best_cost:
            best, best_cost = phases[:], cost
    phases[:] = best or []
    return best_cost


def _descend(count: int, widths: Sequence[int], reads: Sequence[Reads], fixed: Sequence[Sequence[tuple[int, bool]]],
             inputs: int, phases: list[bool]) -> int:
    wanted: dict[tuple[int, int], list[int]] = {}        # item, stage: readers of each polarity
    for item, each in enumerate(fixed):
        for stage, polarity in each:
            wanted.setdefault((item, stage), [0, 0])[polarity] += 1
    for node in range(count):
        for item, stage, polarity in reads[node]:
            wanted.setdefault((item, stage), [0, 0])[polarity ^ phases[node]] += 1
    for (item, stage), both in wanted.items():
        if item < inputs and stage == 0:
            both[0] += 1                                 # it is there
    spots = [[(wanted[item, stage], widths[item], polarity) for item, stage, polarity in reads[node]] for node in range(count)]
    changed, sweeps = True, 0
    while changed and sweeps < 12:
        changed, sweeps = False, sweeps + 1
        for node in range(count):
            gain, phase = 0, phases[node]
            for both, width, polarity in spots[node]:
                now = both[polarity ^ phase]
                after = both[not polarity ^ phase]
                gain += width * ((now > 0 and after > 0) - (now > 1))
            if gain > 0:
                phases[node] = not phase
                for both, _, polarity in spots[node]:
                    both[polarity ^ phase] -= 1
                    both[not polarity ^ phase] += 1
                changed = True
    return sum(widths[item] for (item, _), both in wanted.items() if both[0] and both[1])
