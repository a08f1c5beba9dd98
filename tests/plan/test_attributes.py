# amaranth: UnusedElaboratable=no
"""Convolutions with every attribute: exact with stalls, and as fast as promised."""

import numpy as np
import pytest

from hwq.errors import ModelError
from hwq.formats import FixedPoint
from hwq.ir import Conv2d, Requantize
from hwq.passes import apply_passes
from hwq.plan import device, make_plan

from .test_corners import exact
from .test_cycles import check, network

FMT = FixedPoint(4, 0)


def conv(name, source, outputs, kernel, per_group, **attributes):
    rng = np.random.default_rng(outputs)
    return [Conv2d(name, (source,), weight=rng.integers(-8, 8, (outputs, *kernel, per_group)), bias=rng.integers(-50, 50, outputs),
                   weight_format=FMT, **attributes),
            Requantize(f"{name}_q", (name,), mult=rng.integers(1, 9, outputs), offset=np.array([16]), shift=6, lo=-8, hi=7)]


# Image, convolution, foldings to try.
CONVS = {
    "10x4, stride 2, TensorFlow's same": ((13, 6, 1),
                                          (4, (10, 4), 1, dict(stride=(2, 2), pads=(4, 1, 5, 1), pad_value=13)), [(2, 1), (2, 40)]),
    "strides 3 and 1": ((8, 7, 2), (4, (2, 3), 2, dict(stride=(3, 1), pads=(0, 2, 1, 0), pad_value=-5)), [(1, 1), (2, 12)]),
    "strides 1 and 4": ((5, 11, 2), (2, (3, 2), 2, dict(stride=(1, 4), pads=(1, 0, 0, 1))), [(2, 2)]),
    "stride 4, kernel 1": ((9, 9, 2), (2, (1, 1), 2, dict(stride=(4, 4))), [(1, 2)]),
    "1-D, down": ((14, 1, 2), (4, (5, 1), 2, dict(stride=(2, 1), pads=(2, 0, 2, 0), pad_value=3)), [(2, 2)]),
    "1-D, across": ((1, 14, 2), (4, (1, 3), 2, dict(stride=(1, 2), pads=(0, 1, 0, 1), dilation=(1, 2))), [(4, 1)]),
    "depthwise": ((6, 5, 4), (4, (3, 3), 1, dict(groups=4, pads=(1, 1, 1, 1), pad_value=2)), [(1, 1), (2, 1), (4, 1)]),
    "depthwise, stride 2": ((7, 6, 6),
                            (6, (3, 3), 1, dict(groups=6, stride=(2, 2), pads=(0, 0, 1, 1), pad_value=-8)), [(3, 1), (6, 1)]),
    "depthwise, multiplier 2": ((5, 5, 3), (6, (2, 2), 1, dict(groups=3)), [(1, 1), (2, 1), (6, 1)]),
    "depthwise, multiplier 4, all of two": ((4, 4, 4), (16, (2, 2), 1, dict(groups=4)), [(2, 1), (8, 1)]),
    "grouped": ((5, 4, 6), (4, (3, 2), 3, dict(groups=2, pads=(1, 0, 1, 1))), [(1, 1), (2, 3), (4, 3)]),
    "grouped, 1x1": ((4, 3, 8), (8, (1, 1), 2, dict(groups=4)), [(1, 2), (4, 2), (8, 2)]),
    "dilated": ((7, 8, 2), (2, (3, 3), 2, dict(dilation=(2, 3), pads=(2, 3, 1, 2), pad_value=1)), [(1, 1), (2, 2)]),
    "dilated, depthwise": ((7, 6, 2), (2, (2, 3), 1, dict(groups=2, dilation=(3, 2), stride=(2, 1))), [(1, 1), (2, 1)]),
}


def graph_of(name):
    shape, (outputs, kernel, per_group, attributes), folds = CONVS[name]
    return network(shape, *conv("c", "in", outputs, kernel, per_group, **attributes)), folds


@pytest.mark.parametrize("name", CONVS)
def test_convolutions_are_exact(name):
    graph, folds = graph_of(name)
    for fold in folds:
        plan, _ = exact(graph, folds={"c": fold}, count=2)
        assert (plan.layers[0].fold.pe, plan.layers[0].fold.simd) == fold


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("target", ["up5k", "generic"])
def test_convolutions_keep_their_cycles(name, target):
    check(graph_of(name)[0], target)


def test_a_folding_across_groups_is_refused():
    graph, _ = graph_of("grouped")
    six = network((4, 4, 6), *conv("c", "in", 12, (1, 1), 2, groups=3))
    with pytest.raises(ModelError, match="Layer 'c': Pe must divide the 4 outputs of a group, or be a multiple that "
                       "divides the groups, not 6"):
        make_plan(apply_passes(six), device("generic"), folds={"c": (6, 2)})
    with pytest.raises(ModelError, match="Layer 'c': Simd must be 3 where pe spans groups, not 1"):
        make_plan(apply_passes(graph), device("generic"), folds={"c": (4, 1)})
