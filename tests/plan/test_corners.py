# amaranth: UnusedElaboratable=no
"""Small networks at the edges of what the stages can do: planned, exact, and as fast as promised."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from bench.networks import networks
from hwq.formats import FixedPoint
from hwq.interp import run
from hwq.ir import (
    ArgMax,
    AvgPool2d,
    Conv2d,
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
)
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import Planner, device, make_plan
from hwq.rtl.common import Cost
from hwq.rtl.schedule import Filter, Sink

from ..test_accelerator import drive
from .test_cycles import check, network, steady

FMT = FixedPoint(4, 0)


def conv(name, source, outputs, kh, kw, channels, seed=0, **attributes):
    weight = np.random.default_rng(seed).integers(-8, 8, (outputs, kh, kw, channels))
    return Conv2d(name, (source,), weight=weight, bias=np.zeros(outputs), weight_format=FMT, **attributes)


def linear(name, source, outputs, inputs, seed=0):
    rng = np.random.default_rng(seed)
    return Linear(name, (source,), weight=rng.integers(-8, 8, (outputs, inputs)),
                  bias=rng.integers(-9, 9, outputs), weight_format=FMT)


def exact(graph, target="generic", folds=None, count=3):
    """Return plan and core after comparing ``count`` frames with the interpreter."""
    plan = make_plan(apply_passes(graph), device(target), folds=folds)
    core = lower(apply_passes(graph), plan)
    x = np.random.default_rng(1).integers(graph.input.lo, graph.input.hi + 1, (count, *graph.input.shape))
    pitch = 8 * core.guard.bytes // core.guard.lanes
    beats = [[sum((int(v) & (1 << pitch) - 1) << (pitch * i) for i, v in enumerate(beat))
              for beat in frame.reshape(-1, core.guard.lanes)] for frame in x]
    want = run(graph, x)[graph.output.name].reshape(count, -1).tolist()
    assert drive(core, beats, count, stall=(0.2, 0.2)) == [(values, 0) for values in want]
    return plan, core


@pytest.mark.parametrize("shape, kernel", [((9, 1, 1), (3, 1)), ((5, 2, 1), (3, 1)), ((1, 9, 1), (1, 3))])
def test_images_a_pixel_wide(shape, kernel):
    stride = (1, 2) if shape[1] == 2 else (1, 1)
    exact(network(shape, conv("c", "in", 2, *kernel, 1, stride=stride)))


def test_a_target_without_limits_refuses_no_plan_that_keeps_no_promise():
    graph = network((3, 6, 7), MaxPool2d("p", ("in",), kernel=(3, 1), stride=(3, 1)), Flatten("f", ("p",)),
                    linear("fc", "f", 1, 42))
    plan, _ = exact(graph)
    assert plan.cycles < 42                              # found beyond plans that keep none
    check(graph, "generic")


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


def test_the_model_holds_no_beat_in_a_cropper():
    taken = []

    class Slow(Sink):
        def push(self, t):
            taken.append(max(t, 3 * len(taken)))
            return taken[-1]

    crop = Filter(Slow(), [True, True, False], 0)
    assert [crop.push(0) for _ in range(6)] == [0, 3, 4, 6, 9, 10] and taken == [0, 3, 6, 9]


@pytest.mark.parametrize("pad_value, lo, hi", [(-3, 0, 15), (40, 0, 15), (9, -8, 7)])
@pytest.mark.parametrize("first", ["in", "q0"])
def test_border_codes_outside_the_codes_that_come_in(pad_value, lo, hi, first):
    before = [conv("c0", "in", 1, 1, 1, 1), Requantize("q0", ("c0",), offset=np.array([8]), shift=4, lo=lo, hi=hi)]
    last = conv("c", first, 2, 3, 3, 1, pads=(1, 1, 1, 1), pad_value=pad_value)
    exact(Graph((Input("in", (), shape=(4, 4, 1), lo=lo, hi=hi), *(before if first == "q0" else []), last, Output("out", ("c",)))),
          count=2)


@pytest.mark.parametrize("folds", [{"fc": (1, 1)}, {"fc": (4, 2)}])
def test_bias_together_with_an_offset_by_sign(folds):
    rq = Requantize("q", ("fc",), mult=np.array([3]), offset=np.array([8]), offset_neg=np.array([7]), shift=4, lo=-8, hi=7)
    graph = network((4,), linear("fc", "in", 4, 4), rq)
    assert graph.by_name["fc"].bias.any()
    exact(graph, folds=folds, count=8)
    check(graph, "generic", folds=folds)


@pytest.mark.parametrize("lo, hi, byte, code",
                         [(0, 15, 16, 15), (0, 15, 255, 15), (-8, 7, 0x80, -8), (-8, 7, 0x10, 7), (2, 9, 0, 2)])
def test_codes_outside_the_range_are_clamped_by_all_their_bits(lo, hi, byte, code):
    fc = Linear("fc", ("in",), weight=np.array([[1]]), bias=np.zeros(1), weight_format=FMT)
    graph = Graph((Input("in", (), shape=(1,), lo=lo, hi=hi), fc, Output("out", ("fc",))))
    core = lower(apply_passes(graph), make_plan(apply_passes(graph), device("generic")))
    assert drive(core, [[byte]], 1) == [([code], 0)]


def early(core, beats, frames):
    """Send frames with a long pause before each; return the result beats that came before their frame's first beat."""
    found = []

    async def bench(ctx):
        ctx.set(core.m_axis_tready, 1)
        begun = done = cycle = 0
        for frame in [*beats, None]:
            for _ in range(150):
                _, _, valid, last = await ctx.tick().sample(core.m_axis_tvalid, core.m_axis_tlast)
                found.extend([cycle] * (valid and done == begun))
                done, cycle = done + (valid and last), cycle + 1
            for k, beat in enumerate(frame or []):
                ctx.set(core.s_axis_tdata, beat)
                ctx.set(core.s_axis_tlast, k == len(frame) - 1)
                ctx.set(core.s_axis_tvalid, 1)
                took = 0
                while not took:
                    _, _, took, valid, last = await ctx.tick().sample(core.s_axis_tready, core.m_axis_tvalid, core.m_axis_tlast)
                    found.extend([cycle] * (valid and done == begun))
                    done, cycle, begun = done + (valid and last), cycle + 1, begun + (took and k == 0)
                ctx.set(core.s_axis_tvalid, 0)
        assert done == begun == frames

    sim = Simulator(core)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return found


EARLY = {
    "memory": (network((3, 3, 1), conv("c", "in", 2, 1, 1, 1, pads=(1, 1, 1, 1))), {}),
    "shift": (network((3, 3, 1), conv("c", "in", 2, 2, 2, 1, pads=(2, 2, 2, 2))), {"c": (2, 4)}),
    "second": (network((3, 3, 1), conv("a", "in", 2, 2, 2, 1), Requantize("q", ("a",), shift=4, lo=0, hi=15),
                       conv("c", "q", 1, 1, 1, 2, pads=(2, 1, 1, 1))), {}),
    "border of its own": (network((3, 3, 1), Pad("b", ("in",), (2, 1, 1, 1), 3)), {}),
    "pooled border": (network((2, 2, 1), AvgPool2d("s", ("in",), (1, 1), (1, 1), (3, 1, 1, 1))), {}),
    "one beat": (network((1, 1, 1), conv("c", "in", 1, 1, 1, 1, pads=(1, 1, 1, 1))), {}),
}


@pytest.mark.parametrize("name", EARLY)
def test_no_result_leaves_before_its_frame_has_begun(name):
    graph, folds = EARLY[name]
    plan, _ = exact(graph, folds=folds)
    gated, same, free = (lower(apply_passes(graph), plan) for _ in range(3))
    assert not early(gated, [[1] * gated.guard.beats] * 2, 2)
    free._eager, free.entry = False, None                # without the gate and its entry: no faster
    found = steady(same, 12, 3000)[-4:]
    assert (found == steady(free, 12, 3000)[-4:]).all() and (found <= plan.cycles).all()


def mlp(*sizes):
    nodes, source = [], "in"
    for k, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
        nodes.append(linear(f"fc{k}", source, outputs, inputs, k))
        if k < len(sizes) - 2:
            mult = np.random.default_rng(k).integers(1, 30, outputs)
            nodes.append(Requantize(f"q{k}", (f"fc{k}",), mult=mult, offset=np.array([64]), shift=9, lo=0, hi=15))
        source = f"q{k}"
    return network((sizes[0],), *nodes)


SHORT = {
    "mlp": mlp(4, 4, 4, 1),
    "mean": network((1, 1, 1), GlobalAvgPool2d("g", ("in",)), Requantize("q", ("g",), mult=np.array([3]), shift=2, lo=0, hi=255)),
    "convolution": network((2, 2, 1), conv("c", "in", 1, 2, 2, 1),
                           Requantize("q", ("c",), mult=np.array([3]), shift=8, lo=0, hi=15)),
}


@pytest.mark.parametrize("name", SHORT)
def test_frames_shorter_than_the_pipeline_keep_their_pace(name):
    graph = SHORT[name]
    plan, core = exact(graph)
    found = steady(lower(apply_passes(graph), plan), 64, 2000)
    assert (found[8:] == plan.cycles).all(), (plan.cycles, core.flags.depth, found.tolist())


def test_a_network_that_fits_with_its_least_rings_alone_gets_them():
    plan = make_plan(apply_passes(networks()["N3"]), device("up5k"), reserve=Cost())
    assert plan.cost.ebr <= 30 and plan.cost.lc <= 5280


def test_layers_are_no_faster_than_what_has_no_folding():
    """Channels chosen one by one are the bottleneck: the convolution takes its time."""
    graph = Graph((Input("in", (), (12, 12, 3), 0, 15), conv("conv", "in", 8, 3, 3, 3, pads=(1, 1, 1, 1)),
                   Requantize("act", ("conv",), shift=6, lo=0, hi=15), Select("some", ("act",), channels=np.array([0, 2, 7])),
                   MaxPool2d("pool", ("some",)), Output("out", ("pool",))))
    planner = Planner(apply_passes(graph), device("up5k"))
    plan = planner.plan()
    assert plan.cycles == 12 * 12 * 8 > planner.targets[0] and plan.cost.lc <= planner.plan(plan.cycles).cost.lc
