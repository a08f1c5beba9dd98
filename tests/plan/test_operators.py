# amaranth: UnusedElaboratable=no
"""Operators as stages of their own: exact with stalls, and as fast as promised."""

import numpy as np
import pytest

from hwq.formats import FixedPoint
from hwq.ir import (
    AvgPool2d,
    Flatten,
    GlobalAvgPool2d,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Output,
    Pad,
    Requantize,
    Select,
    TopK,
    Unflatten,
    Upsample,
)
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import device, make_plan, plan_of, plan_record
from hwq.rtl.common import GENERIC
from hwq.rtl.stage import Requant, RequantStage

from .test_attributes import conv
from .test_corners import exact, linear
from .test_cycles import check, network, steady


def signed(*nodes, shape=(6, 5, 2), lo=-8, hi=7):
    """Return a network of codes ``lo..hi`` with these nodes in the middle."""
    return Graph((Input("in", (), shape=shape, lo=lo, hi=hi), *nodes, Output("out", (nodes[-1].name,))))


def pooled(kind, shape, *geometry, lo=-8, hi=7, requant=None):
    pool = kind("p", ("in",), *geometry)
    return signed(pool, *([Requantize("q", ("p",), **requant)] if requant else []), shape=shape, lo=lo, hi=hi)


RNG = np.random.default_rng(0)
NINTH = dict(mult=np.array([57]), offset=np.array([256]), shift=9, lo=-8, hi=7)
SCALES = dict(mult=np.array([3, -5]), offset=np.array([8, 40]), shift=4, lo=-4, hi=9)
NETWORKS = {
    "max, 3x3, stride 2, border": pooled(MaxPool2d, (7, 6, 2), (3, 3), (2, 2), (1, 1, 1, 1)),
    "max, overlapping": pooled(MaxPool2d, (5, 5, 1), (3, 2), (1, 1)),
    "max, negative codes alone, border": pooled(MaxPool2d, (4, 5, 3), (2, 3), (2, 2), (1, 2, 0, 2), lo=-9, hi=-2),
    "max, gaps": pooled(MaxPool2d, (7, 7, 2), (1, 2), (3, 3)),
    "max, 1-D": pooled(MaxPool2d, (1, 11, 1), (1, 3), (1, 2), (0, 1, 0, 1)),
    "max, a border that is not reached": pooled(MaxPool2d, (6, 7, 1), (2, 2), (3, 2), (0, 0, 1, 1)),
    "sum, side by side": pooled(AvgPool2d, (5, 6, 3), (2, 3), (2, 3)),
    "sum, side by side, divided": pooled(AvgPool2d, (6, 6, 2), (3, 3), (3, 3), requant=NINTH),
    "sum, overlapping, border, divided": pooled(AvgPool2d, (5, 6, 2), (3, 3), (1, 2), (1, 1, 1, 1), requant=NINTH),
    "sum, zero is no code": pooled(AvgPool2d, (4, 4, 2), (3, 3), (2, 2), (1, 1, 1, 1), lo=3, hi=9),
    "sum, border wider than the kernel": pooled(AvgPool2d, (2, 3, 2), (2, 2), (1, 1), (3, 2, 2, 3)),
    "scale per channel": signed(Requantize("q", ("in",), **SCALES)),
    "scale of a flat tensor": signed(Flatten("f", ("in",)), Requantize("q", ("f",), mult=np.arange(1, 25), offset=np.array([8]),
                                                                       shift=5, lo=0, hi=7), shape=(4, 3, 2)),
    "scale of each pixel": signed(AvgPool2d("p", ("in",), (2, 2), (1, 1), (1, 1, 0, 0)), Flatten("f", ("p",)),
                                  Requantize("q", ("f",), mult=np.repeat([4, 2, 2, 2, 1, 1, 2, 1, 1], 4), lo=-32, hi=28),
                                  Unflatten("i", ("q",), (3, 3, 4)),
                                  Requantize("r", ("i",), offset=np.array([2]), shift=2, lo=-8, hi=7), shape=(3, 3, 4)),
    "scales in a row": signed(Requantize("q", ("in",), **SCALES),
                              Requantize("r", ("q",), offset=np.array([1, 0]), shift=1, lo=-1, hi=3)),
    "ties to even, offset by sign": signed(Requantize("q", ("in",), mult=np.array([3]), half_even=True, shift=3, lo=-8, hi=7),
                                           Requantize("r", ("q",), mult=np.array([5]), offset=np.array([3]),
                                                      offset_neg=np.array([4]), shift=3, lo=-2, hi=2)),
    "thresholds": signed(Requantize("q", ("in",), thresholds=np.array([[-5, -1, 2, 2, 6]]), lo=-2, hi=3)),
    "thresholds per channel": signed(Requantize("q", ("in",), thresholds=np.array([[-5, -1, 2], [0, 0, 9]]), lo=0, hi=3)),
    "thresholds behind sums": signed(Linear("fc", ("in",), weight=RNG.integers(-8, 8, (4, 12)), bias=RNG.integers(-50, 50, 4),
                                            weight_format=FixedPoint(4, 0)),
                                     Requantize("q", ("fc",), thresholds=np.sort(RNG.integers(-200, 200, (4, 15)), axis=1),
                                                lo=-8, hi=7), shape=(12,)),
    "thresholds of a convolution, pooled": signed(*conv("a", "in", 4, (3, 3), 2, pads=(1, 1, 1, 1))[:1],
                                                  Requantize("q", ("a",), thresholds=np.sort(RNG.integers(-90, 90, (4, 6)), axis=1),
                                                             lo=0, hi=6), MaxPool2d("p", ("q",))),
    "thresholds of means": signed(GlobalAvgPool2d("g", ("in",)),
                                  Requantize("q", ("g",), thresholds=np.arange(-60, 61, 8)[None], lo=-8, hi=8),
                                  AvgPool2d("s", ("q",), (1, 1), (1, 1), (0, 1, 0, 1)),
                                  Requantize("r", ("s",), thresholds=np.array([[-3], [1]]), lo=0, hi=1)),
    "the largest two": signed(TopK("t", ("in",), 2), shape=(9,)),
    "the largest three behind sums": signed(Linear("fc", ("in",), weight=RNG.integers(-8, 8, (6, 8)), bias=np.zeros(6),
                                                   weight_format=FixedPoint(4, 0)), TopK("t", ("fc",), 3), shape=(8,)),
    "border": signed(Pad("b", ("in",), (1, 2, 0, 3), 5)),
    "border of a code outside": signed(Pad("b", ("in",), (0, 0, 2, 1), 99), shape=(3, 3, 1), lo=0, hi=15),
    "border, pooled": signed(Pad("b", ("in",), (1, 1, 2, 0), -8), MaxPool2d("p", ("b",), (2, 2), (2, 2))),
    "crop": signed(Pad("b", ("in",), (-1, -2, -2, -1))),
    "crop to the last step": signed(Pad("b", ("in",), (0, -8, 0, 0)), Flatten("f", ("b",)), linear("fc", "f", 3, 2),
                                    shape=(1, 9, 2)),
    "crop of the first rows": signed(Pad("b", ("in",), (-2, 0, 0, 0), 99), Requantize("q", ("b",), **SCALES)),
    "crop and border": signed(Pad("b", ("in",), (1, -1, -3, 2), 9)),
    "crop of all but a column, and border": signed(Pad("b", ("in",), (0, -2, 1, -2), -8), Pad("c", ("b",), (-1, 2, 2, 1), 3)),
    "crop, pooled": signed(Pad("b", ("in",), (-1, -1, 0, 0)), MaxPool2d("p", ("b",), (3, 2), (2, 1), (1, 0, 1, 1))),
    "enlarged 2x2": signed(Upsample("u", ("in",)), shape=(3, 4, 2)),
    "enlarged 3x1": signed(Upsample("u", ("in",), (3, 1)), shape=(2, 5, 1)),
    "enlarged 1x2": signed(Upsample("u", ("in",), (1, 2)), shape=(3, 2, 3)),
    "enlarged 1x3, a pixel wide": signed(Upsample("u", ("in",), (1, 3)), shape=(4, 1, 1)),
    "border of an enlarged image": signed(Upsample("u", ("in",)), Pad("b", ("u",), (1, 1, 1, 1), 0), shape=(3, 3, 2)),
    "the last channels": signed(Select("s", ("in",), np.array([2, 3])), shape=(3, 2, 4)),
    "one channel": signed(Select("s", ("in",), np.array([1])), shape=(3, 2, 5)),
    "every other feature": signed(Select("s", ("in",), np.arange(0, 24, 2)), shape=(24,)),
    "channels in runs": signed(Select("s", ("in",), np.array([0, 1, 4, 5, 6, 7])),
                               Requantize("q", ("s",), mult=np.arange(1, 7), shift=1, lo=-8, hi=7), shape=(2, 3, 10)),
    "channels of channels": signed(Select("s", ("in",), np.array([0, 2, 3, 4])),
                                   Select("t", ("s",), np.array([1, 3])), shape=(2, 3, 6)),
    "among convolutions": network((6, 6, 2), *conv("a", "in", 4, (3, 3), 2, pads=(1, 1, 1, 1)),
                                  MaxPool2d("p", ("a_q",), (3, 3), (2, 2), (1, 1, 1, 1)),
                                  *conv("b", "p", 4, (1, 1), 4), Upsample("u", ("b_q",)), Pad("e", ("u",), (0, 1, 0, 1), 3),
                                  *conv("c", "e", 2, (3, 3), 4), AvgPool2d("s", ("c_q",), (2, 2), (1, 1)),
                                  Requantize("t", ("s",), shift=2, lo=-8, hi=7), Flatten("f", ("t",)), linear("fc", "f", 3, 30)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_operators_are_exact(name):
    exact(NETWORKS[name], "up5k")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", ["up5k", "generic"])
def test_operators_keep_their_cycles(name, target):
    check(NETWORKS[name], target)


@pytest.mark.parametrize("name", ["max, 3x3, stride 2, border", "enlarged 2x2", "among convolutions"])
def test_rings_come_back_from_the_record(name):
    graph = apply_passes(NETWORKS[name])
    plan = make_plan(graph, device("up5k"))
    assert any(p.fold and p.fold.depth and not p.layer.folds for p in plan.layers)
    again = plan_of(graph, plan_record(plan))
    assert [p.fold for p in again.layers] == [p.fold for p in plan.layers] and again.cycles == plan.cycles


@pytest.mark.parametrize("pads", [(-3, 0, 0, 0), (0, 0, -3, 0), (0, -1, -2, -1)])
def test_layers_of_single_pixels_behind_a_pause_take_no_more_cycles(pads):
    """No ring holds what they could do while a crop swallows beats, and their window is no register either."""
    ready = signed(Pad("c", ("in",), pads), *conv("d", "c", 4, (1, 1), 2))
    plan = make_plan(ready, device("up5k"), folds={"d": "wired"})
    found = steady(lower(ready, plan), 14, 30 * plan.cycles + 6000)
    assert plan.cycles - 8 <= found[-1] == found[-2] <= plan.cycles


@pytest.mark.parametrize("lanes, entries", [(1, 9), (2, 18), (4, 36)])
def test_a_scale_of_each_pixel_is_one_entry_a_pixel_and_lane(lanes, entries):
    requant = Requant(np.repeat([4, 2, 4, 2, 1, 2, 4, 2, 3], 4), np.array([1]), np.zeros(0, np.int64), 1, -8, 7)
    assert requant.run(36) == 4 and requant.repeated(np.arange(12)).run(12) == 4 \
        and requant.repeated(np.zeros(7, np.int64)).run(7) == 7
    stage = RequantStage((-8, 7), lanes=lanes, pixels=1, channels=36, requant=requant, technology=GENERIC)
    assert stage.requantizer.channels == entries and stage.cycles == 36 // lanes
