# amaranth: UnusedElaboratable=no
"""Layers with their weights in adders: exact under stalls, as fast as promised, offered where they pay, kept by a record."""

import json

import numpy as np
import pytest

from hwq.errors import ModelError
from hwq.formats import FixedPoint
from hwq.ir import Conv2d, Flatten, Linear, MaxPool2d, Requantize
from hwq.passes import apply_passes
from hwq.plan import device, make_plan, parse_fold, plan_of, plan_record
from hwq.rtl.common import ICE40UP, Cost
from hwq.rtl.stage import ConvStage, Folding, Requant

from .test_corners import exact
from .test_cycles import check, network

RNG = np.random.default_rng(7)


def conv(name, source, outputs, channels, kernel=3, **attributes):
    weight = RNG.integers(-8, 8, (outputs, kernel, kernel, channels))
    return [Conv2d(name, (source,), weight=weight, bias=RNG.integers(-30, 30, outputs), weight_format=FixedPoint(4, 0),
                   **attributes), Requantize(f"{name}_q", (name,), mult=np.ones(1), offset=np.array([8]), shift=5, lo=0, hi=15)]


def linear(name, source, outputs, inputs):
    return Linear(name, (source,), weight=RNG.integers(-8, 8, (outputs, inputs)), bias=RNG.integers(-9, 9, outputs),
                  weight_format=FixedPoint(4, 0))


NETWORKS = {
    "3x3, border, pooled": (network((6, 7, 1), *conv("a", "in", 4, 1, pads=(1, 1, 1, 1), pad_value=2), MaxPool2d("p", ("a_q",)),
                                    *conv("b", "p", 2, 4)), {"a": "wired"}),
    "both, stride 2": (network((7, 7, 2), *conv("a", "in", 4, 2), *conv("b", "a_q", 6, 4, stride=(2, 2))),
                       {"a": "wired", "b": "wired"}),
    "1x1 and linear": (network((4, 3, 3), *conv("a", "in", 4, 3, 1), Flatten("f", ("a_q",)), linear("fc", "f", 3, 48)),
                       {"a": "wired", "fc": "wired"}),
    "behind a slow one": (network((6, 6, 1), *conv("a", "in", 4, 1), *conv("b", "a_q", 4, 4)), {"a": (1, 1), "b": "wired"}),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", ["up5k", "generic"])
def test_exact_and_as_fast_as_promised(name, target):
    graph, folds = NETWORKS[name]
    plan, _ = exact(graph, target, folds)
    assert {p.layer.name for p in plan.layers if p.fold and p.fold.style == "wired"} >= \
        {k for k, v in folds.items() if v == "wired"}
    check(graph, target, folds)


@pytest.mark.parametrize("seed", range(3))
def test_offset_by_sign_and_multiplier_behind_a_wired_layer(seed):
    rng = np.random.default_rng(seed)
    rq = Requantize("q", ("fc",), mult=rng.integers(1, 9, 4), offset=np.array([8]), offset_neg=np.array([7]), shift=6, lo=-8, hi=7)
    exact(network((6,), linear("fc", "in", 4, 6), rq), folds={"fc": "wired"}, count=6)


FIRST = network((12, 12, 1), *conv("a", "in", 8, 1), *conv("b", "a_q", 2, 8, 1))


def test_a_small_first_layer_is_wired_unasked_and_a_record_keeps_it():
    graph = apply_passes(FIRST)
    plan = make_plan(graph, device("up5k"), reserve=Cost(), max_cycles=250)
    fold = plan.layers[0].fold
    assert (fold.style, fold.pe, fold.simd, fold.block_rom) == ("wired", 8, 9, False) and fold.steps
    again = plan_of(graph, json.loads(json.dumps(plan_record(plan))))
    assert again.layers[0].fold == fold and again.layers[0].cost == plan.layers[0].cost
    assert make_plan(graph, device("up5k"), reserve=Cost(), max_cycles=250,
                     folds={"a": (4, 9)}).layers[0].cost.lc > plan.layers[0].cost.lc


@pytest.mark.parametrize("kernel, dilation, kept",
                         [((1, 1), (2, 3), (1, 1)), ((3, 1), (1, 2), (1, 1)), ((1, 3), (2, 1), (1, 1)), ((3, 1), (2, 2), (2, 1))])
def test_a_dilation_where_the_kernel_has_one_tap_says_nothing(kernel, dilation, kept):
    graph = network((5, 5, 4), Conv2d("c", ("in",), weight=np.ones((2, *kernel, 4), int), bias=np.zeros(2), dilation=dilation,
                                      weight_format=FixedPoint(2, 0)), Requantize("q", ("c",), shift=1, lo=0, hi=15))
    assert graph.by_name["c"].dilation == kept
    ready = apply_passes(graph)
    if kept == (1, 1):                                   # what takes no dilation takes it
        assert make_plan(ready, device("generic"), folds={"c": "wired"}).layers[0].fold.source == "shift"
    else:
        with pytest.raises(ModelError, match="'c' cannot be wired: that takes one group, no dilation"):
            make_plan(ready, device("generic"), folds={"c": "wired"})


def test_wishes():
    assert parse_fold(["a=wired", "b=2,1"]) == {"a": "wired", "b": (2, 1)}
    grouped = network((5, 5, 4), Conv2d("c", ("in",), weight=np.ones((4, 3, 3, 1), int), bias=np.zeros(4), groups=4,
                                        weight_format=FixedPoint(2, 0)), Requantize("q", ("c",), shift=1, lo=0, hi=15))
    with pytest.raises(ModelError, match="'c' cannot be wired: that takes one group"):
        make_plan(apply_passes(grouped), device("up5k"), folds={"c": "wired"})
    requant = Requant(np.ones(1, int), np.zeros(1, int), np.zeros(0, int), 2, 0, 15)
    with pytest.raises(ModelError, match="all 4 outputs at once, not pe = 2 and a shift window"):
        ConvStage(np.ones((4, 3, 3, 1), int), FixedPoint(2, 0), (0, 15), height=5, width=5, requant=requant,
                  fold=Folding(2, 9, "shift", 1, False, "wired"), technology=ICE40UP)
