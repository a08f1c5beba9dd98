"""Where the planner puts what requantizers take per output."""

from dataclasses import replace
from pathlib import Path

import pytest

from hwq.errors import FitError
from hwq.ir import load
from hwq.passes import apply_passes
from hwq.plan import DEVICES, device, make_plan

from ..rtl.test_netlist import mixed

SHIPPED = Path(__file__).parents[2] / "examples" / "fashion" / "model.hwq"


def test_block_ram_for_scales_never_costs_cycles():
    """With one more use of the blocks, rings of the cheapest foldings did not keep 10,584 cycles."""
    plan = make_plan(apply_passes(load(SHIPPED)), device("up5k"))
    assert plan.cycles <= 10_584 and plan.cost.ebr <= 30 and plan.cost.lc < 0.87 * 5280


def test_a_part_without_blocks_has_scales_in_logic():
    plan = make_plan(apply_passes(mixed()), device("generic"))
    assert not any(getattr(p.fold, "block_scales", False) for p in plan.layers)


def test_a_part_too_small_for_a_wired_layer_is_refused(monkeypatch):
    monkeypatch.setitem(DEVICES, "up5k", replace(DEVICES["up5k"], lc=400))
    with pytest.raises(FitError, match="does not fit up5k: at least"):
        make_plan(apply_passes(load(SHIPPED)), device("up5k"), folds={"conv1": "wired"})
