# amaranth: UnusedElaboratable=no
"""Small networks at the edges of what the stages can do: planned, exact, and as fast as promised."""

import numpy as np
import pytest

from hwq.formats import FixedPoint
from hwq.interp import run
from hwq.ir import ArgMax, Conv2d, Flatten, GlobalAvgPool2d, Linear, MaxPool2d, Requantize
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import device, make_plan

from ..test_accelerator import drive
from .test_cycles import check, network

FMT = FixedPoint(4, 0)


def conv(name, source, outputs, kh, kw, channels, seed=0, **attributes):
    weight = np.random.default_rng(seed).integers(-8, 8, (outputs, kh, kw, channels))
    return Conv2d(name, (source,), weight=weight, bias=np.zeros(outputs), weight_format=FMT, **attributes)


def linear(name, source, outputs, inputs, seed=0):
    rng = np.random.default_rng(seed)
    return Linear(name, (source,), weight=rng.integers(-8, 8, (outputs, inputs)), bias=rng.integers(-9, 9, outputs), weight_format=FMT)


def exact(graph, target="generic", folds=None, count=3):
    """Return plan and core after comparing ``count`` frames with the interpreter."""
    plan = make_plan(apply_passes(graph), device(target), folds=folds)
    core = lower(apply_passes(graph), plan)
    x = np.random.default_rng(1).integers(graph.input.lo, graph.input.hi + 1, (count, *graph.input.shape))
    pitch = 8 * core.guard.bytes // core.guard.lanes
    beats = [[sum((int(v) & (1 << pitch) - 1) << (pitch * i) for i, v in enumerate(beat)) for beat in frame.reshape(-1, core.guard.lanes)]
             for frame in x]
    want = run(graph, x)["out"].reshape(count, -1).tolist()
    assert drive(core, beats, count, stall=(0.2, 0.2)) == [(values, 0) for values in want]
    return plan, core


@pytest.mark.parametrize("shape, kernel", [((9, 1, 1), (3, 1)), ((5, 2, 1), (3, 1)), ((1, 9, 1), (1, 3))])
def test_images_a_pixel_wide(shape, kernel):
    stride = (1, 2) if shape[1] == 2 else (1, 1)
    exact(network(shape, conv("c", "in", 2, *kernel, 1, stride=stride)))


def test_a_target_without_limits_refuses_no_plan_that_keeps_no_promise():
    graph = network((3, 6, 7), MaxPool2d("p", ("in",), kernel=(3, 1), stride=(3, 1)), Flatten("f", ("p",)), linear("fc", "f", 1, 42))
    plan, _ = exact(graph)
    assert plan.cycles >= 42


@pytest.mark.parametrize("names, modules", [(("block.0", "block_0", "block_0_2"), ["block_0", "block_0_2", "block_0_2_2"]),
                                            (("guard", "framer", "flags"), ["guard_2", "framer_2", "flags_2"]),
                                            (("gear", "entry", "core"), ["gear_2", "entry_2", "core_2"])])
def test_layers_have_names_of_their_own(names, modules):
    nodes, source = [], "in"
    for k, name in enumerate(names):
        nodes += [linear(name, source, 4, 4, k), Requantize(f"q{k}", (name,), offset=np.array([4]), shift=3, lo=0, hi=15)]
        source = f"q{k}"
    plan, _ = exact(network((4,), *nodes), folds={modules[-1]: (4, 2)}, count=1)
    assert [planned.layer.name for planned in plan.layers] == modules


@pytest.mark.parametrize("inputs, outputs, target", [(8, 4, "up5k"), (30, 10, "generic"), (2, 3, "generic")])
def test_argmax_behind_several_lanes(inputs, outputs, target):
    graph = network((inputs,), linear("fc", "in", outputs, inputs), ArgMax("top", ("fc",)))
    exact(graph, target, folds={"fc": (outputs, inputs)})
    check(graph, target)


def test_argmax_alone():
    check(network((6,), ArgMax("top", ("in",))), "generic")
