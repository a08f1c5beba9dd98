"""Where the planner puts what requantizers take per output, and how they multiply."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hwq.errors import FitError
from hwq.formats import FixedPoint
from hwq.ir import Conv2d, Flatten, Graph, Input, Linear, Output, Requantize, load
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


def scaled_network():
    """Return four convolutions and a dense layer of 8 bits, each with a scale of 19 bits per output, as imported networks have."""
    rng, channels, last = np.random.default_rng(1), (3, 8, 8, 16, 16), "in"
    nodes = [Input("in", (), (16, 16, 3), -128, 127)]
    for k, (each, outputs) in enumerate(pairwise(channels)):
        nodes += [Conv2d(f"c{k}", (last,), rng.integers(-128, 128, (outputs, 3, 3, each)), rng.integers(-5000, 5000, outputs),
                         FixedPoint(8, 0), stride=(2, 2) if k else (1, 1), pads=(1, 1, 1, 1)),
                  Requantize(f"q{k}", (f"c{k}",), rng.integers(1 << 18, 1 << 19, outputs), np.full(outputs, 1 << 27), 28,
                             -128, 127)]
        last = f"q{k}"
    return Graph((*nodes, Flatten("f", (last,)),
                  Linear("fc", ("f",), rng.integers(-128, 128, (10, 64)), np.zeros(10, np.int64), FixedPoint(8, 0)),
                  Requantize("out_q", ("fc",), np.array([262_145]), np.array([1 << 27]), 28, -128, 127), Output("out", ("out_q",))))


def test_scaled_layers_leave_the_multipliers_to_each_other():
    """At once, each scale takes four of the eight multiplier blocks: the network did not fit."""
    plan = make_plan(apply_passes(scaled_network()), device("up5k"))
    assert plan.cost.dsp <= 8 and plan.cost.lc < 0.7 * 5280 and plan.cycles <= 14_336
    assert sum(p.fold.scale_bits > 0 for p in plan.layers) >= 4
