# amaranth: UnusedElaboratable=no
"""Forks, buffers and joins: every stream at its own pace, no beat lost, doubled or out of turn."""

import random

import numpy as np
import pytest
from amaranth.hdl import Shape
from amaranth.sim import Simulator

from hwq.errors import ModelError
from hwq.rtl.branches import StreamFifo, StreamFork
from hwq.rtl.common import ECP5, GENERIC, ICE40, shape_of
from hwq.rtl.join import StreamAdd, StreamConcat
from hwq.rtl.joins import AddStage, ConcatStage, Joining
from hwq.rtl.stage import Requant

from .test_blocks import check_block, codes
from .util import STALLS, pack, unpack

U4, S5 = Shape(4), Shape(5, True)


def run_ports(dut, feeds, wants, *, stalls, seed=0, limit=20_000):
    """Feed words into some ports and collect ``wants[port]`` words from others; ``stalls`` has a probability for each port."""
    results = {port: [] for port in wants}

    def source(port, words):
        async def bench(ctx):
            rng, i = random.Random(f"{port}{seed}"), getattr(dut, port)
            for word in words:
                while rng.random() < stalls[port]:
                    await ctx.tick()
                ctx.set(i.payload.as_value(), int(word))
                ctx.set(i.valid, 1)
                ready = 0
                while not ready:
                    _, _, ready = await ctx.tick().sample(i.ready)
                ctx.set(i.valid, 0)
        return bench

    def sink(port, count):
        async def bench(ctx):
            rng, o, held, cycle = random.Random(f"{port}{seed}"), getattr(dut, port), None, 0
            while len(results[port]) < count:
                assert cycle < limit, f"{port}: {len(results[port])} of {count} results after {limit} cycles"
                ready = rng.random() >= stalls[port]
                ctx.set(o.ready, ready)
                _, _, valid, payload = await ctx.tick().sample(o.valid, o.payload.as_value())
                assert held is None or (valid and payload == held), "valid or payload changed before ready"
                held = payload if valid and not ready else None
                if valid and ready:
                    results[port].append(payload)
                cycle += 1
            ctx.set(o.ready, 0)
        return bench

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    for port, words in feeds.items():
        sim.add_testbench(source(port, words), background=True)
    for port, count in wants.items():
        sim.add_testbench(sink(port, count))
    sim.run()
    return results


@pytest.mark.parametrize("stalls", [(0, 0, 0, 0), (0.5, 0, 0.7, 0.2), (0, 0.8, 0, 0), (0.3, 0.6, 0.6, 0.6)])
def test_fork_gives_every_reader_every_beat(stalls):
    dut = StreamFork(S5, 2, 3)
    x = codes(S5, (60, 2))
    words = [pack(S5, beat) for beat in x]
    found = run_ports(dut, {"i": words}, {f"o{k}": 60 for k in range(3)},
                      stalls=dict(zip(("i", "o0", "o1", "o2"), stalls, strict=True)))
    assert all(found[f"o{k}"] == [pack(S5, beat) for beat in want] for k, want in enumerate(dut.model(x)))


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("depth, lanes, technology", [(1, 1, GENERIC), (2, 3, GENERIC), (3, 1, ICE40), (3, 4, GENERIC),
                                                      (7, 4, ICE40), (8, 4, ECP5), (30, 5, GENERIC)])
def test_fifo_keeps_order_and_rate(depth, lanes, technology, stall):
    dut = StreamFifo(S5, lanes, depth, technology=technology)
    x = codes(S5, (100, lanes))
    cycles = check_block(dut, x, dut.model(x), in_shape=S5, out_shape=S5, stall=stall)
    if stall == (0.0, 0.0):
        assert cycles[0] == dut.latency and (depth <= dut.latency or cycles[-1] == dut.latency + 99)


@pytest.mark.parametrize("depth, lanes", [(1, 1), (2, 20), (3, 1), (5, 20), (16, 20), (17, 20)])
def test_fifo_holds_its_depth_and_no_more(depth, lanes):
    dut = StreamFifo(S5, lanes, depth, technology=GENERIC)
    assert dut.in_block == (depth > 2 and lanes == 20)
    taken = []

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        for _ in range(3 * depth + 5):
            taken.append((await ctx.tick().sample(dut.i.ready))[2])

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert sum(taken) == depth


@pytest.mark.parametrize("stalls", [(0, 0, 0), (0.6, 0, 0.3), (0, 0.8, 0), (0.4, 0.4, 0.4)])
@pytest.mark.parametrize("ranges, mult, lanes",
                         [(((0, 15), (-8, 7)), (1, 1), 1), (((-128, 127), (-128, 127)), (1621615, 4289131), 1),
                          (((0, 15), (0, 15)), (3, -5), 2), (((-8, -1), (2, 9)), (-7, 0), 3), (((0, 0), (0, 1)), (9, 8), 1)])
def test_add_is_exact(ranges, mult, lanes, stalls):
    dut = StreamAdd(ranges, mult, lanes)
    rng = np.random.default_rng(lanes)
    xs = [rng.integers(low, high + 1, (40, lanes)) for low, high in ranges]
    for x, (low, high) in zip(xs, ranges, strict=True):
        x[:2] = low
        x[2:4] = high
    xs[1][:4, 0] = [ranges[1][0], ranges[1][1]] * 2
    shapes = [shape_of(*r) for r in ranges]
    found = run_ports(dut, {f"i{k}": [pack(s, beat) for beat in x] for k, (s, x) in enumerate(zip(shapes, xs, strict=True))},
                      {"o": 40}, stalls=dict(zip(("i0", "i1", "o"), stalls, strict=True)))
    want = dut.model(*xs)
    assert want.min() >= dut.out_range[0] and want.max() <= dut.out_range[1]
    assert [unpack(dut.out_shape, lanes, word) for word in found["o"]] == want.tolist()


@pytest.mark.parametrize("stalls", [(0, 0, 0, 0), (0.6, 0, 0.3, 0), (0, 0.8, 0, 0.5), (0.4, 0.4, 0.4, 0.4)])
@pytest.mark.parametrize("channels, lanes", [((2, 4, 2), 2), ((1, 3, 2), 1), ((3, 3, 3), 3)])
def test_concat_takes_turns(channels, lanes, stalls):
    shapes = [U4, S5, Shape(2)]
    dut = StreamConcat(shapes, Shape(5, True), lanes, [count // lanes for count in channels])
    xs = [codes(shape, (7 * count // lanes, lanes), k) for k, (shape, count) in enumerate(zip(shapes, channels, strict=True))]
    want = dut.model(*xs)
    found = run_ports(dut, {f"i{k}": [pack(s, beat) for beat in x] for k, (s, x) in enumerate(zip(shapes, xs, strict=True))},
                      {"o": len(want)}, stalls=dict(zip(("i0", "i1", "i2", "o"), stalls, strict=True)))
    assert [unpack(dut.out_shape, lanes, word) for word in found["o"]] == want.tolist()


@pytest.mark.parametrize("in_lanes, join", [((1, 1), Joining(1, (1, 1))), ((2, 6), Joining(3, (1, 5))),
                                            ((6, 1), Joining(6, (3, 40))), ((3, 2), Joining(1, (9, 2)))])
@pytest.mark.parametrize("stalls", [(0, 0, 0), (0.5, 0.2, 0.5)])
def test_add_stage_requantizes(in_lanes, join, stalls):
    ranges = ((-128, 127), (0, 15))
    requant = Requant(np.arange(1, 7), np.array([64]), np.array([63]), 7, -100, 100)
    dut = AddStage(ranges, mult=(3, -40), requant=requant, pixels=5, channels=6, in_lanes=in_lanes, join=join, technology=GENERIC)
    rng = np.random.default_rng(0)
    a, b = (rng.integers(low, high + 1, (15, 6)) for low, high in ranges)
    want = dut._behind.blocks[0].block.model(a * 3 - b * 40)
    feeds = {f"i{k}": [pack(shape_of(*r), beat) for beat in x.reshape(-1, lanes)]
             for k, (x, r, lanes) in enumerate(zip((a, b), ranges, in_lanes, strict=True))}
    found = run_ports(dut, feeds, {"o": want.size // join.lanes}, stalls=dict(zip(("i0", "i1", "o"), stalls, strict=True)))
    assert sum((unpack(dut.out_shape, join.lanes, word) for word in found["o"]), []) == want.ravel().tolist()


def test_one_operand_alone_waits():
    dut = ConcatStage([(0, 15), (0, 15)], pixels=2, channels=(1, 1), in_lanes=(1, 1), join=Joining(1, (2, 3)), technology=GENERIC)
    with pytest.raises(AssertionError, match="1 of 2 results"):
        run_ports(dut, {"i0": range(4)}, {"o": 2}, stalls={"i0": 0, "o": 0}, limit=100)


@pytest.mark.parametrize("make, message", [
    (lambda: StreamFork(U4, 1, 1), "Readers must be an integer of at least 2, not 1"),
    (lambda: StreamFifo(U4, 1, 0, technology=GENERIC), "Depth must be an integer of at least 1, not 0"),
    (lambda: StreamAdd([(0, 1)], (1,)), "An addition has 2 operands, not 1"),
    (lambda: StreamAdd([(0, 1), (2, 1)], (1, 1)), r"Range must not be empty, not \(2, 1\)"),
    (lambda: StreamConcat([U4], U4, 1, [1]), "A concatenation has 2 or more operands, not 1"),
    (lambda: AddStage([(0, 1)] * 2, mult=(1, 1), requant=None, pixels=1, channels=3, in_lanes=(1, 1), join=Joining(2),
                      technology=GENERIC), "Lanes must divide the 3 channels, not 2"),
    (lambda: ConcatStage([(0, 1)] * 2, pixels=1, channels=(4, 3), in_lanes=(1, 1), join=Joining(2), technology=GENERIC),
     r"Lanes must divide the channels \(4, 3\), not 2"),
])
def test_bad_arguments(make, message):
    with pytest.raises(ModelError, match=message):
        make()
