"""Sharing out the device: against trying everything."""

from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from hwq.plan.search import choose
from hwq.rtl.common import Cost


@dataclass(frozen=True)
class Option:
    cost: Cost


@pytest.mark.parametrize("seed", range(20))
def test_choice_is_the_best_there_is(seed):
    rng = np.random.default_rng(seed)
    layers = [[Option(Cost(float(rng.integers(1, 50)), int(rng.integers(0, 6)), int(rng.integers(0, 3)), int(rng.integers(0, 2))))
               for _ in range(5)] for _ in range(4)]
    ebr, dsp, spram = int(rng.integers(2, 14)), int(rng.integers(0, 5)), int(rng.integers(0, 4))
    sums = [sum((o.cost for o in each), Cost()) for each in product(*layers)]
    fitting = [s.lc for s in sums if s.ebr <= ebr and s.dsp <= dsp and s.spram <= spram]
    chosen = choose(layers, ebr, dsp, spram)
    assert (chosen is None) == (not fitting)
    if chosen is not None:
        total = sum((o.cost for o in chosen), Cost())
        assert total.lc == min(fitting) and total.ebr <= ebr and total.dsp <= dsp and total.spram <= spram
    assert sum(o.cost.lc for o in choose(layers, None, 0)) == min(s.lc for s in sums)


def test_a_wish_is_met_by_the_slowest_plan_that_does(monkeypatch):
    from hwq.plan.planner import Planner
    planner = object.__new__(Planner)
    planner.targets = list(range(40, 80))
    for good in range(58, 71):
        plans = {target: SimpleNamespace(cycles=target if target <= good else 75) for target in planner.targets}
        monkeypatch.setattr(planner, "_may_fit", lambda target: target >= 63)
        monkeypatch.setattr(planner, "best", lambda target, plans=plans: None if target % 2 else plans[target])
        even = good - good % 2
        assert planner._slowest(70) is (plans[even] if even >= 63 else None)


def test_targets_that_galloping_skips_are_asked_at_last(monkeypatch):
    from hwq.plan.planner import Planner
    planner = object.__new__(Planner)
    planner.targets = list(range(40, 80))
    for good in range(40, 80):
        asked = []
        monkeypatch.setattr(planner, "_may_fit", lambda target: target >= 43)
        plan = SimpleNamespace(cycles=good)

        def best(target, plan=plan, asked=asked):
            asked.append(target)
            return plan if target == plan.cycles else None

        monkeypatch.setattr(planner, "best", best)
        assert planner.fastest() is (plan if good >= 43 else None) and len(asked) == len(set(asked))


@pytest.mark.parametrize("none", [(), (60,), (60, 59, 58), (43, 60, 57)])
def test_a_plan_is_for_the_cycles_that_it_takes(none, monkeypatch):
    """What has no folding takes 60 cycles: of the plans that keep to them, the one for the most is the smallest."""
    from hwq.plan.planner import Planner
    planner = object.__new__(Planner)
    planner.targets = list(range(40, 80))
    monkeypatch.setattr(planner, "_may_fit", lambda target: target >= 43)
    monkeypatch.setattr(planner, "best",
                        lambda target: None if target in none else SimpleNamespace(cycles=max(60, target), of=target))
    assert planner.fastest().of == max(set(range(43, 61)) - set(none))
