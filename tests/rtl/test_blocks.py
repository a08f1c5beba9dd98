# amaranth: UnusedElaboratable=no
import numpy as np
import pytest
from amaranth.hdl import Shape
from hypothesis import given, settings
from hypothesis import strategies as st

from hwq.errors import ModelError
from hwq.formats import Bipolar, FixedPoint, PowerOfTwo
from hwq.rtl.common import GENERIC, ICE40, ICE40UP
from hwq.rtl.deduct import Deduct
from hwq.rtl.frames import FlagQueue
from hwq.rtl.loops import LoopNest, Sweep
from hwq.rtl.matvec import MatVec
from hwq.rtl.pooling import WindowReduce
from hwq.rtl.ranking import TopK
from hwq.rtl.reduce import Reduce
from hwq.rtl.requantizer import Requantizer
from hwq.rtl.reshape import Repeat, Select, SelectStage
from hwq.rtl.serializer import Serializer, SharedSerializer
from hwq.rtl.shapers import Cropper, Padder, StreamBuffer, WidthConverter
from hwq.rtl.thresholds import Thresholder
from hwq.rtl.window import MemoryWindow, ShiftWindow

from .util import STALLS, pack, run_stream, unpack

U4, S5 = Shape(4), Shape(5, True)


def codes(shape, size, seed=0):
    low, high = (-(1 << shape.width - 1), 1 << shape.width - 1) if shape.signed else (0, 1 << shape.width)
    return np.random.default_rng(seed).integers(low, high, size)


def check_block(dut, x, want, *, in_shape, out_shape, stall, seed=0):
    """Run beats x (n, lanes) and compare with the beats wanted; return the cycles."""
    words, cycles = run_stream(dut, [pack(in_shape, beat) for beat in x], len(want), stall=stall, seed=seed)
    got = np.array([unpack(out_shape, want.shape[1], word) for word in words])
    np.testing.assert_array_equal(got, want)
    return cycles


@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_loop_nest_walks_its_addresses(counts, seed):
    from amaranth.sim import Simulator
    rng = np.random.default_rng(seed)
    strides = [int(s) for s in rng.integers(0, 30, len(counts))]
    dut = LoopNest(counts, strides, period=7, addr_width=6)
    one = dut.model()
    want = [(a + 7 * k) % 64 for k in range(3) for a in one]

    async def bench(ctx):
        for step, address in enumerate(want):
            assert ctx.get(dut.addr) == address
            assert (ctx.get(dut.last) & 1) == (step % len(one) == len(one) - 1)
            assert (ctx.get(dut.first) & 1) == (step % len(one) == 0)
            for _ in range(int(rng.integers(0, 2))):
                await ctx.tick()
            ctx.set(dut.en, 1)
            await ctx.tick()
            ctx.set(dut.en, 0)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


@pytest.mark.parametrize("counts, strides, width", [((4, 1, 4), (4, 0, 1), 4), ((3, 2, 5), (5, 0, 1), 4), ((3, 5), (5, 1), 4),
                                                    ((1, 1), (1, 0), 1), ((2,), (1,), 3), ((1, 3, 2), (6, 0, 1), 1)])
def test_sweep_walks_its_addresses(counts, strides, width):
    from amaranth.sim import Simulator
    dut = Sweep(counts, strides, addr_width=width)
    want = LoopNest(counts, strides, addr_width=width).model()
    assert dut.model() == want

    async def bench(ctx):
        for step in range(3 * len(want)):
            assert ctx.get(dut.addr) == want[step % len(want)]
            for _ in range(step % 2):
                await ctx.tick()
            ctx.set(dut.en, 1)
            await ctx.tick()
            ctx.set(dut.en, 0)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


@pytest.mark.parametrize("stall", STALLS)
def test_stream_buffer(stall):
    x = codes(S5, (40, 2))
    dut = StreamBuffer(S5, 2)
    cycles = check_block(dut, x, dut.model(x), in_shape=S5, out_shape=S5, stall=stall)
    if stall == (0.0, 0.0):
        assert cycles == list(range(dut.latency, dut.latency + 40))


@pytest.mark.parametrize("lanes", [(1, 4), (4, 1), (2, 6), (6, 3), (3, 3)])
@pytest.mark.parametrize("stall", STALLS)
def test_width_converter(lanes, stall):
    x = codes(U4, (24, lanes[0]))
    dut = WidthConverter(U4, *lanes)
    cycles = check_block(dut, x, dut.model(x), in_shape=U4, out_shape=U4, stall=stall)
    if stall == (0.0, 0.0):
        assert cycles[-1] - cycles[0] + 1 in (24 - lanes[1] // min(lanes) + 1, 24 * lanes[0] // lanes[1])


@pytest.mark.parametrize("lanes", [(4, 1), (6, 3), (3, 3)])
@pytest.mark.parametrize("stall", STALLS)
def test_relaxed_serializer_takes_one_cycle_more(lanes, stall):
    x = codes(S5, (12, lanes[0]))
    dut = Serializer(S5, *lanes, relaxed=True)
    cycles = check_block(dut, x, dut.model(x), in_shape=S5, out_shape=S5, stall=stall)
    if stall == (0.0, 0.0):
        assert cycles[-1] - cycles[0] + 1 == 12 * (lanes[0] // lanes[1] + 1) - 1


def test_serializer_is_a_converter_to_fewer_lanes():
    x = codes(S5, (5, 4))
    assert check_block(Serializer(S5, 4, 1), x, x.reshape(-1, 1), in_shape=S5, out_shape=S5, stall=(0, 0))[-1] == 20


@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 2, 1, 0), (0, 0, 0, 0)])
@pytest.mark.parametrize("stall", STALLS)
def test_padder(pads, stall):
    dut = Padder(U4, 2, height=3, width=2, words=2, pads=pads, value=9)
    x = codes(U4, (2 * 12, 2))
    want = dut.model(x).reshape(-1, 2)
    assert len(want) == 2 * dut.cycles
    check_block(dut, x, want, in_shape=U4, out_shape=U4, stall=stall)


@pytest.mark.parametrize("keep, first, late", [
    ((2, 4), (0, 0), False), ((1, 2), (1, 2), False), ((3, 1), (0, 4), False), ((1, 5), (2, 0), False), ((1, 1), (2, 4), False),
    ((2, 5), (0, 0), True), ((3, 4), (0, 0), True), ((1, 1), (0, 0), True), ((1, 3), (1, 1), True)])
@pytest.mark.parametrize("stall", STALLS)
def test_cropper(keep, first, late, stall):
    dut = Cropper(U4, 1, height=3, width=5, words=2, keep=keep, first=first, late=late)
    x = codes(U4, (2 * 30, 1))
    check_block(dut, x, dut.model(x).reshape(-1, 1), in_shape=U4, out_shape=U4, stall=stall)


@pytest.mark.parametrize("keep, lanes",
                         [([1, 0], 2), ([0, 0, 1, 1, 1, 0], 1), ([0, 1] * 4, 3), ([1, 1, 0, 1, 0, 0, 0, 1], 1), ([0] * 9 + [1], 1)])
@pytest.mark.parametrize("stall", STALLS)
def test_select(keep, lanes, stall):
    dut = Select(U4, lanes, keep)
    x = codes(U4, (3 * len(keep), lanes))
    want = dut.model(x)
    np.testing.assert_array_equal(want, [beat for k, beat in enumerate(x) if keep[k % len(keep)]])
    cycles = check_block(dut, x, want, in_shape=U4, out_shape=U4, stall=stall)
    if stall == (0.0, 0.0):
        assert cycles == [k for k in range(len(x)) if keep[k % len(keep)]]           # a beat a cycle comes in


WINDOWS = [
    dict(simd=1, height=4, width=5, channels=1, kernel=(3, 3), stride=(1, 1), groups=2),
    dict(simd=2, height=5, width=4, channels=4, kernel=(3, 3), stride=(2, 2), groups=1),
    dict(simd=3, height=3, width=3, channels=3, kernel=(1, 1), stride=(1, 1), groups=1),
    dict(simd=1, height=5, width=6, channels=1, kernel=(1, 1), stride=(2, 2), groups=1),
    dict(simd=2, height=6, width=7, channels=2, kernel=(3, 3), stride=(1, 1), groups=2, pool=(2, 2)),
    dict(simd=4, height=1, width=1, channels=12, kernel=(1, 1), stride=(1, 1), groups=3),
    dict(simd=1, height=6, width=5, channels=2, kernel=(2, 3), stride=(1, 2), groups=2, pool=(2, 1)),
    dict(simd=1, height=7, width=7, channels=1, kernel=(2, 2), stride=(3, 3), groups=1),
    dict(simd=2, height=4, width=5, channels=8, kernel=(2, 3), stride=(1, 2), groups=2, parts=2),
    dict(simd=1, height=7, width=6, channels=2, kernel=(3, 2), stride=(1, 1), groups=1, dilation=(2, 3)),
    dict(simd=1, height=6, width=6, channels=4, kernel=(2, 2), stride=(1, 1), groups=1, parts=2, dilation=(1, 2), pool=(2, 2)),
]


def check_window(dut, x, frames, stall):
    want = dut.model(x).reshape(-1, dut.simd)
    assert len(want) == frames * len(want) // frames
    words, cycles = run_stream(dut, [pack(U4, beat) for beat in x], len(want), stall=stall)
    bits = U4.width * dut.simd
    np.testing.assert_array_equal(np.array([unpack(U4, dut.simd, w & ((1 << bits) - 1)) for w in words]), want)
    lasts = [w >> bits for w in words]
    assert lasts == [int(i % dut.words == dut.words - 1) for i in range(len(want))]
    return cycles


@pytest.mark.parametrize("parameters", WINDOWS)
@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("full", [False, True])
def test_memory_window(parameters, stall, full):
    dut = MemoryWindow(U4, technology=ICE40, **parameters)
    if full:
        dut = MemoryWindow(U4, technology=ICE40, depth=dut.full_depth, **parameters)
    frames = 3
    x = codes(U4, (frames * dut.height * dut.width * dut.channels // dut.simd, dut.simd))
    cycles = check_window(dut, x, frames, stall)
    beats = dut.height * dut.width * dut.channels // dut.simd
    if stall == (0.0, 0.0) and full and dut.cycles >= 2 * beats:
        # In steady state a frame takes exactly the cycles of the formula: no bubble, not even between frames.
        assert cycles[2 * dut.cycles] - cycles[dut.cycles] == dut.cycles


@pytest.mark.parametrize("parameters", WINDOWS)
@pytest.mark.parametrize("stall", STALLS)
def test_memory_window_with_one_port(parameters, stall):
    """Words wait for their turn; where the formula says that there are enough turns, they cost what it says."""
    dut = MemoryWindow(U4, technology=ICE40UP, spram=True, **parameters)
    dut = MemoryWindow(U4, technology=ICE40UP, spram=True, depth=dut.full_depth, **parameters)
    frames = 3
    x = codes(U4, (frames * dut.height * dut.width * dut.channels // dut.simd, dut.simd))
    cycles = check_window(dut, x, frames, stall)
    per_frame = len(cycles) // frames
    if stall == (0.0, 0.0) and dut.flows:
        assert cycles[2 * per_frame] - cycles[per_frame] == dut.cycles > per_frame
    two_ports = MemoryWindow(U4, technology=ICE40UP, depth=dut.depth, **parameters)
    assert dut.cost.ebr == 0 and dut.cost.spram == 1 and two_ports.cost.spram == 0 and dut.cycles > two_ports.cycles == per_frame


@pytest.mark.parametrize("parameters", WINDOWS[:2] + WINDOWS[3:4] + WINDOWS[7:8])
@pytest.mark.parametrize("stall", STALLS)
def test_shift_window(parameters, stall):
    parameters = {k: v for k, v in parameters.items() if k not in ("simd", "pool")}
    dut = ShiftWindow(U4, technology=ICE40, **parameters)
    frames = 3
    x = codes(U4, (frames * dut.height * dut.width, dut.channels))
    cycles = check_window(dut, x, frames, stall)
    per_frame = dut.rows * dut.cols * dut.groups
    if stall == (0.0, 0.0):
        assert cycles[2 * per_frame] - cycles[per_frame] == dut.cycles


FORMATS = [*(FixedPoint(b, 0) for b in (2, 3, 4, 5, 6, 8)), FixedPoint(2, 0, narrow=True), FixedPoint(1, 0, signed=False),
           FixedPoint(4, 0, signed=False), FixedPoint(5, 0, signed=False), *(PowerOfTwo(b, 0) for b in (2, 3, 4, 5)), Bipolar()]
STYLED = [*((fmt, "lut") for fmt in FORMATS), (FixedPoint(4, 0), "dsp"), (FixedPoint(8, 0), "dsp")]


def words_of(fmt, rng, shape):
    """Return random weights of the format, all its levels as likely."""
    if isinstance(fmt, FixedPoint) and fmt.narrow:
        return rng.integers(fmt.range[0], fmt.range[1] + 1, shape)
    return fmt.decode(rng.integers(0, 1 << fmt.width, shape))


@pytest.mark.parametrize("fmt, style", STYLED, ids=lambda v: getattr(v, "text", v))
@pytest.mark.parametrize("fold", [(6, 1, 1, 1, 1), (4, 5, 3, 2, 1), (4, 2, 4, 4, 2), (6, 3, 5, 2, 4), (3, 1, 2, 3, 1)])
@pytest.mark.parametrize("stall", STALLS[::3])
def test_matvec(fmt, style, fold, stall, technology=ICE40):
    outputs, words, simd, pe, repeat = fold
    rng = np.random.default_rng(1)
    weight = words_of(fmt, rng, (outputs, words, simd))
    x_range = (0, 15) if outputs != 3 else (-7, 6)
    dut = MatVec(weight, fmt, x_range, pe=pe, repeat=repeat, style=style, technology=technology)
    assert dut.rom == (dut.groups * words, pe * simd * fmt.width)
    windows = 3 * dut.groups * repeat
    x = rng.integers(x_range[0], x_range[1] + 1, (windows * words, simd))
    x[:words], x[words:2 * words] = x_range[1], x_range[0]                 # extremes reach the accumulator's ends
    want = dut.model(x)
    beats = [pack(dut.x_shape, beat) | (int(i % words == words - 1) << (dut.x_shape.width * simd))
             for i, beat in enumerate(x)]
    got, cycles = run_stream(dut, beats, len(want), stall=stall)
    np.testing.assert_array_equal(np.array([unpack(dut.acc_shape, pe, w) for w in got]), want)
    if stall == (0.0, 0.0):
        assert cycles[0] == words - 1 + dut.latency + 1  # the ROM reads ahead, once after reset
        assert cycles[-1] - cycles[0] == (windows - 1) * words


@pytest.mark.parametrize("width", (3, 4, 8))
@pytest.mark.parametrize("fold", [(6, 1, 1, 1, 1), (4, 5, 3, 2, 1), (3, 1, 3, 1, 1)])
def test_matvec_of_product_pairs(width, fold):
    outputs, _, simd, pe, _ = fold
    test_matvec(FixedPoint(width, 0), "dsp", fold, (0.6, 0.6), ICE40UP)
    dut = MatVec(np.ones((outputs, 1, simd), np.int64), FixedPoint(width, 0), (0, 255), pe=pe, style="dsp", technology=ICE40UP)
    assert dut.cost.dsp == -(-pe * simd // 2)
    wide = MatVec(np.ones((outputs, 1, simd), np.int64), FixedPoint(width, 0), (0, 256), pe=pe, style="dsp", technology=ICE40UP)
    assert wide.cost.dsp == pe * simd


@pytest.mark.parametrize("fmt", [f for f in FORMATS if isinstance(f, FixedPoint) and f.width > 2], ids=lambda f: f.text)
@pytest.mark.parametrize("fold", [(4, 5, 3, 2, 1, 1), (8, 1, 4, 4, 2, 2), (6, 3, 5, 6, 4, 1)])
@pytest.mark.parametrize("stall", STALLS[::3])
def test_shared_sums(fmt, fold, stall):
    """The share of the codes' sum, added behind the serializer, gives the sums of a `MatVec` that adds it itself."""
    outputs, words, simd, pe, repeat, lanes = fold
    rng = np.random.default_rng(3)
    weight = words_of(fmt, rng, (outputs, words, simd))
    x_range = (-7, 6) if outputs == 6 else (0, 15)
    dut = MatVec(weight, fmt, x_range, pe=pe, repeat=repeat, late=True, technology=ICE40)
    whole = MatVec(weight, fmt, x_range, pe=pe, repeat=repeat, technology=ICE40)
    assert dut.shares and not whole.shares and dut.latency == whole.latency - 1 and dut.acc_range == whole.acc_range
    x = rng.integers(x_range[0], x_range[1] + 1, (3 * dut.groups * repeat * words, simd))
    x[:words], x[words:2 * words] = x_range[1], x_range[0]
    sums, sent = dut.model(x), whole.model(x)
    beats = [pack(dut.x_shape, beat) | (int(i % words == words - 1) << (dut.x_shape.width * simd)) for i, beat in enumerate(x)]
    got, _ = run_stream(dut, beats, len(sums), stall=stall)
    where = dut.sum_shape.width * pe
    np.testing.assert_array_equal(np.array([[*unpack(dut.sum_shape, pe, w), w >> where] for w in got]), sums)
    for relaxed in (False, True):
        serial = SharedSerializer(dut.sum_shape, dut.share_most.bit_length(), dut.acc_shape, pe, lanes, relaxed=relaxed)
        want = serial.model(sums)
        np.testing.assert_array_equal(want, sent.reshape(-1, lanes))
        words_out, cycles = run_stream(serial, got, len(want), stall=stall)
        np.testing.assert_array_equal(np.array([unpack(dut.acc_shape, lanes, w) for w in words_out]), want)
        if stall == (0.0, 0.0):
            assert cycles[0] == serial.latency and cycles[pe // lanes] == serial.latency + pe // lanes + relaxed


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_flag_queue(depth):
    """Flags leave as they came, and as many as the depth fit in."""
    from amaranth.sim import Simulator
    dut, rng = FlagQueue(depth), np.random.default_rng(depth)
    inside, held = [], set()

    async def bench(ctx):
        for step in range(400):
            flag, put, take = (int(v) for v in rng.integers(0, 2, 3))
            if step % 100 > 60:                          # fill up, then drain
                put, take = step % 100 < 80, step % 100 >= 80
            ctx.set(dut.i.payload, flag)
            ctx.set(dut.i.valid, put)
            ctx.set(dut.o.ready, take)
            assert ctx.get(dut.i.ready) == (len(inside) < depth) and ctx.get(dut.o.valid) == bool(inside)
            assert not inside or ctx.get(dut.o.payload) == inside[0]
            if put and len(inside) < depth:
                inside.append(flag)
                took = take and len(inside) > 1
            else:
                took = take and bool(inside)
            if took:
                inside.pop(0)
            held.add(len(inside))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert held == set(range(depth + 1))


@pytest.mark.parametrize("fmt, style, bits",
                         [(FixedPoint(4, 0), "lut", 17), (FixedPoint(8, 0), "dsp", 16), (FixedPoint(3, 0), "lut", 35)])
def test_rom_in_blocks_and_in_logic(fmt, style, bits):
    rng = np.random.default_rng(4)
    weight = words_of(fmt, rng, (6, 4, 4))
    dut = MatVec(weight, fmt, (0, 15), pe=3, logic_bits=bits, style=style, technology=ICE40)
    whole = MatVec(weight, fmt, (0, 15), pe=3, style=style, technology=ICE40)
    assert dut.rom_blocks == -(-(12 * fmt.width - bits) // 16) == dut.cost.ebr < whole.rom_blocks and dut.cost.lc > whole.cost.lc
    x = rng.integers(0, 16, (5 * 2 * 4, 4))
    got, _ = run_stream(dut, [pack(dut.x_shape, beat) | int(i % 4 == 3) << 16 for i, beat in enumerate(x)], 10, stall=(0.3, 0.3))
    np.testing.assert_array_equal(np.array([unpack(dut.acc_shape, 3, w) for w in got]), whole.model(x))


@pytest.mark.parametrize("fmt, style", [*((fmt, "lut") for fmt in FORMATS[3:7:3]), (FixedPoint(4, 0), "dsp")],
                         ids=lambda v: getattr(v, "text", v))
@pytest.mark.parametrize("pe, parts, simd", [(4, 4, 1), (4, 2, 3), (6, 2, 1)])
def test_matvec_of_groups_side_by_side(fmt, style, pe, parts, simd):
    """Each output against a product of its own part alone."""
    rng = np.random.default_rng(2)
    outputs, words = 12, 3
    weight = words_of(fmt, rng, (outputs, words, simd))
    dut = MatVec(weight, fmt, (-7, 6), pe=pe, parts=parts, style=style, technology=ICE40)
    x = rng.integers(-7, 7, (2 * dut.groups, words, parts, simd))
    want = np.array([[(weight[o] * x[k, :, o % pe * parts // pe]).sum() + dut.too_much[o]
                      for o in range(k % dut.groups * pe, (k % dut.groups + 1) * pe)] for k in range(len(x))])
    beats = [pack(dut.x_shape, word) | int(i % words == words - 1) << dut.x_shape.width * simd * parts
             for i, word in enumerate(x.reshape(-1, parts * simd))]
    got, _ = run_stream(dut, beats, len(want), stall=(0.3, 0.3))
    np.testing.assert_array_equal(np.array([unpack(dut.acc_shape, pe, w) for w in got]), want)
    np.testing.assert_array_equal(dut.model(x.reshape(-1, parts * simd)), want)


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.text)
def test_lanes_are_exact_for_every_code_and_weight(fmt):
    """All weights times all codes, one product a window; what is too much is a constant of the weight."""
    weight = np.unique(words_of(fmt, np.random.default_rng(0), 2000))[:, None, None]
    for x_range in ((0, 7), (-4, 3)):
        dut = MatVec(weight, fmt, x_range, pe=len(weight), technology=ICE40)
        x = np.arange(x_range[0], x_range[1] + 1)[:, None]
        beats = [pack(dut.x_shape, beat) | 1 << dut.x_shape.width for beat in x]
        got, _ = run_stream(dut, beats, len(x))
        sums = np.array([unpack(dut.acc_shape, dut.pe, w) for w in got])
        np.testing.assert_array_equal(sums - dut.too_much, x * weight[:, 0, 0])
        assert sums.min() >= dut.acc_range[0] and sums.max() <= dut.acc_range[1]


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("pe, repeat", [(1, 1), (2, 3), (6, 2)])
@pytest.mark.parametrize("block", [False, True])
def test_deduct(pe, repeat, block, stall):
    rng = np.random.default_rng(5)
    ranges = np.sort(rng.integers(-50, 300, (6, 2)), axis=1)
    constants = rng.integers(-90, 90, 6)
    dut = Deduct(ranges, constants, pe=pe, repeat=repeat, block_rom=block, technology=ICE40)
    assert (dut.cost.ebr > 0) == block
    order = (np.arange(3 * 6 // pe * repeat) // repeat % (6 // pe))[:, None] * pe + np.arange(pe)
    x = rng.integers(ranges[order, 0], ranges[order, 1] + 1)
    check_block(dut, x, x - constants[order], in_shape=dut.i.payload.shape().elem_shape, out_shape=dut.out_shape, stall=stall)
    np.testing.assert_array_equal(dut.model(x), x - constants[order])


def test_matvec_accumulator_is_exactly_as_wide_as_the_sums():
    dut = MatVec(np.full((1, 2, 2), -8), FixedPoint(4, 0), (0, 15), pe=1, style="dsp", technology=ICE40)
    assert dut.acc_range == (-480, 0) and dut.acc_shape == Shape(10, True)
    assert dut.rom == (2, 8)


REQUANTS = [
    dict(mult=[1], offset=[8], shift=4, lo=0, hi=15),
    dict(mult=[1], offset=[0], shift=-2, lo=-128, hi=127),
    dict(mult=[1], offset=[3, -20, 100, 7, 0, 1], shift=3, lo=0, hi=15),
    dict(mult=[5, 7, -3, 9, 0, 2], offset=[3, -20, 100, 7, 0, 1], shift=6, lo=-4, hi=3),
    dict(mult=[13], offset=[0], shift=5, lo=0, hi=7, half_even=True),
    dict(mult=[3], offset=[4], offset_neg=[3], shift=3, lo=-8, hi=7),
    dict(mult=[1], offset=[0], shift=40, lo=-2, hi=2),
]


STEPPED = [
    dict(mult=[13], offset=[0], shift=5, lo=0, hi=7, half_even=True, bits=1),
    dict(mult=[3], offset=[4], offset_neg=[3], shift=3, lo=-8, hi=7, bits=4),
    dict(mult=[5, 7, 0, 31, 16, 2], offset=[3, -20, 100, 7, 0, 1], offset_neg=[1, 2, 3, 4, 5, 6], shift=6, lo=-40, hi=43, bits=2),
    dict(mult=[1, 1, 0, 1, 1, 0], offset=[7], shift=0, lo=-400, hi=500, bits=1),
    dict(mult=[98765], offset=[1 << 16], shift=17, lo=-128, hi=127, bits=3),
]


@pytest.mark.parametrize("parameters", REQUANTS + STEPPED)
@pytest.mark.parametrize("fold", [(1, (6, 1, 1)), (2, (3, 1, 1)), (1, (3, 4, 2)), (3, (1, 2, 2))])
@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("stall", STALLS[::3])
@pytest.mark.parametrize("in_range", [(-300, 411), (0, 333)])
def test_requantizer(parameters, fold, block, stall, in_range):
    lanes, order = fold
    dut = Requantizer(in_range, channels=6, lanes=lanes, order=order, block_rom=block, technology=ICE40, **parameters)
    pixels = 4 * order[1]
    x = np.random.default_rng(2).integers(in_range[0], in_range[1] + 1, (pixels, 6))
    x[0], x[1] = in_range
    y = dut.model(x)
    assert y.min() >= dut.lo and y.max() <= dut.hi

    def ordered(values):                                 # pixels in blocks of `repeat`: group outside, repeat inside
        block = values.reshape(-1, order[1], order[0], order[2] * lanes)
        return block.transpose(0, 2, 1, 3).reshape(-1, lanes)

    from hwq.rtl.common import shape_of
    cycles = check_block(dut, ordered(x), ordered(y), in_shape=shape_of(*in_range), out_shape=dut.out_shape, stall=stall)
    if stall == (0.0, 0.0):
        assert cycles[0] - dut.latency in (0, 1)         # a ROM reads ahead, once after reset
        assert set(np.diff(cycles).tolist()) == {dut.every}


def test_requantizer_stores_what_differs_by_channel_alone():
    parameters = dict(mult=np.full(32, 5), offset=np.arange(32) - 16, shift=3, lo=-8, hi=7, channels=32)
    logic, block = (Requantizer((-99, 99), block_rom=each, technology=ICE40, **parameters).cost for each in (False, True))
    assert block.ebr == 1 and logic.lc - block.lc == 5 * ICE40.rom_cells(32)


def limits(n, rows, reach=320, seed=0):
    return np.sort(np.random.default_rng(seed).integers(-reach, reach + 100, (rows, n)), axis=1)


THRESHOLDS = {
    "one": (limits(1, 1), -1, None), "three": (limits(3, 1), 0, True), "three, per channel": (limits(3, 6), -2, True),
    "seven, per channel": (limits(7, 6), 0, None), "fifteen": (limits(15, 1), 0, None),
    "twelve, per channel": (limits(12, 6), 5, None), "forty": (limits(40, 1), 0, False), "255": (limits(255, 1), -128, False),
    "255, per channel": (limits(255, 6), 0, False), "twice the same": (np.array([[0, 0]]), -1, None),
    "some never, some always": (np.array([[-900, -300, 0, 3, 411, 412, 2000]] * 3 + [[-2000, -299, 1, 1, 1, 411, 9999]] * 3), -4,
                                None), "all or none": (np.array([[-400, -300, 500]]), 3, None),
}


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("fold", [(1, (6, 1, 1)), (2, (3, 1, 1)), (1, (3, 4, 2)), (6, (1, 2, 1))])
@pytest.mark.parametrize("stall", STALLS[::3])
def test_thresholder(name, fold, stall):
    (table, lo, parallel), (lanes, order), in_range = THRESHOLDS[name], fold, (-300, 411)
    dut = Thresholder(in_range, thresholds=table, lo=lo, channels=6, lanes=lanes, order=order, technology=ICE40)
    assert dut.parallel == parallel or parallel is None or lanes == 6
    x = np.random.default_rng(2).integers(in_range[0], in_range[1] + 1, (8 * order[1], 6))
    x[0], x[1] = in_range
    near = np.clip(np.resize(table, (6, table.shape[1])), -300, 411)
    x[2], x[3] = near[:, table.shape[1] // 2], np.maximum(near[:, table.shape[1] // 2] - 1, -300)
    y = dut.model(x)
    assert y.min() >= lo and y.max() <= lo + table.shape[1]

    def ordered(values):
        return values.reshape(-1, order[1], order[0], order[2] * lanes).transpose(0, 2, 1, 3).reshape(-1, lanes)

    from hwq.rtl.common import shape_of
    cycles = check_block(dut, ordered(x), ordered(y), in_shape=shape_of(*in_range), out_shape=dut.out_shape, stall=stall)
    if stall == (0.0, 0.0):
        assert cycles == list(range(dut.latency, dut.latency + len(cycles)))


REDUCES = [
    ("max", (0, 15), 1, (4, 2), (True, False)),
    ("sum", (-8, 7), 2, (9, 3), (True, False)),
    ("sum", (0, 15), 1, (12, 40), (True, False)),
    ("max", (-8, 7), 1, (2, 2, 3, 2, 5), (False, True, False, True, False)),
    ("max", (0, 15), 1, (2, 2, 3, 2, 1), (False, True, False, True, False)),
    ("max", (0, 15), 3, (1, 3, 1, 3, 1), (False, True, False, True, False)),
    ("sum", (0, 3), 1, (2, 2, 40, 2, 2), (False, True, False, True, False)),
]


@pytest.mark.parametrize("op, in_range, lanes, counts, over", REDUCES)
@pytest.mark.parametrize("stall", STALLS)
def test_reduce(op, in_range, lanes, counts, over, stall):
    dut = Reduce(op, in_range, lanes=lanes, counts=counts, over=over, technology=ICE40)
    x = np.random.default_rng(3).integers(in_range[0], in_range[1] + 1, (2 * int(np.prod(counts)), lanes))
    want = dut.model(x).reshape(-1, lanes)
    check_block(dut, x, want, in_shape=dut.in_shape, out_shape=dut.out_shape, stall=stall)


@pytest.mark.parametrize("op, in_range, lanes, words",
                         [("max", (-9, -2), 2, 6), ("sum", (-8, 7), 1, 9), ("sum", (3, 15), 3, 4), ("max", (0, 15), 1, 1)])
@pytest.mark.parametrize("stall", STALLS)
def test_window_reduce(op, in_range, lanes, words, stall):
    dut = WindowReduce(op, in_range, lanes=lanes, words=words)
    x = np.random.default_rng(4).integers(in_range[0], in_range[1] + 1, (5 * words, lanes))
    x[:words], x[words:2 * words] = in_range[1], in_range[0]
    want = dut.model(x)
    assert want.shape == (5, lanes) and (want.max(), want.min()) == (dut.out_range[1], dut.out_range[0])
    beats = [pack(dut.in_shape, beat) | int(i % words == words - 1) << dut.in_shape.width * lanes for i, beat in enumerate(x)]
    got, cycles = run_stream(dut, beats, len(want), stall=stall)
    np.testing.assert_array_equal(np.array([unpack(dut.out_shape, lanes, w) for w in got]), want)
    if stall == (0.0, 0.0):
        assert cycles == [words * (k + 1) - 1 + dut.latency for k in range(5)]


@pytest.mark.parametrize("shape, lanes, factor",
                         [((3, 4, 2), 2, (2, 3)), ((2, 5, 1), 1, (1, 2)), ((3, 1, 3), 1, (4, 1)), ((2, 3, 2), 1, (1, 3))])
@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("full", [False, True])
def test_repeat(shape, lanes, factor, stall, full):
    height, width, words = shape
    geometry = dict(height=height, width=width, words=words, factor=factor, technology=ICE40)
    dut = Repeat(U4, lanes, **geometry)
    if full:
        dut = Repeat(U4, lanes, depth=dut.full_depth, **geometry)
    x = codes(U4, (3 * height * width * words, lanes))
    want = dut.model(x).reshape(-1, lanes)
    assert len(want) == 3 * dut.cycles
    got, cycles = run_stream(dut, [pack(U4, beat) for beat in x], len(want), stall=stall)
    np.testing.assert_array_equal(np.array([unpack(U4, lanes, w & ((1 << U4.width * lanes) - 1)) for w in got]), want)
    if stall == (0.0, 0.0) and full:
        assert cycles[2 * dut.cycles] - cycles[dut.cycles] == dut.cycles


@pytest.mark.parametrize("stall", STALLS)
def test_argmax_ties_go_to_the_lowest_index(stall):
    dut = TopK((-8, 7), 5)
    x = np.array([[1, 7, 7, -3, 0], [-8] * 5, [-1, -2, -3, -4, 7], [0, 0, 1, 1, 0]])
    check_block(dut, x.reshape(-1, 1), dut.model(x), in_shape=Shape(4, True), out_shape=dut.out_shape, stall=stall)


@pytest.mark.parametrize("in_range, count, k",
                         [((-8, 7), 5, 3), ((0, 1), 6, 6), ((0, 200), 9, 2), ((-3, -3), 4, 2), ((0, 15), 2, 2)])
@pytest.mark.parametrize("stall", STALLS)
def test_top_k(in_range, count, k, stall):
    from hwq.rtl.common import shape_of
    dut = TopK(in_range, count, k)
    x = np.random.default_rng(6).integers(in_range[0], in_range[1] + 1, (12, count))
    x[1], x[2] = np.sort(x[1]), -np.sort(-x[2])
    want = np.array([[i for _, i in sorted((-v, i) for i, v in enumerate(row))[:k]] for row in x.tolist()])
    np.testing.assert_array_equal(dut.model(x), want)
    cycles = check_block(dut, x.reshape(-1, 1), want, in_shape=shape_of(*in_range), out_shape=dut.out_shape, stall=stall)
    if stall == (0.0, 0.0):
        assert cycles == [count * (i + 1) - 1 + dut.latency for i in range(12)]


@pytest.mark.parametrize("make, text", [
    (lambda: StreamBuffer(U4, 0), r"^Lanes must be an integer of at least 1, not 0$"),
    (lambda: WidthConverter(U4, 2, 3), r"^One of the lanes must divide the other, not 2 and 3$"),
    (lambda: Padder(U4, 1, height=2, width=2, words=1, pads=(1, 1, 1, 1), value=16),
     r"^Padding value must lie in 0\.\.15, not 16$"),
    (lambda: Select(U4, 1, [True, True]), r"^Some of a pixel's beats must go on, and some not$"),
    (lambda: SelectStage((0, 15), lanes=2, pixels=4, channels=6, chosen=np.array([1, 2])),
     r"^Lanes must divide the channels into beats that are chosen whole, not 2$"),
    (lambda: Cropper(U4, 1, height=2, width=2, words=1, keep=(3, 1)), r"^Kept part must lie inside 2x2, not \(3, 1\) "),
    (lambda: Cropper(U4, 1, height=2, width=2, words=1, keep=(1, 2), first=(0, 1)), r"^Kept .* not \(1, 2\) from \(0, 1\) on$"),
    (lambda: Cropper(U4, 1, height=2, width=2, words=1, keep=(1, 2), first=(1, 0), late=True), "^What is kept late must end"),
    (lambda: MemoryWindow(U4, 3, height=4, width=4, channels=4, kernel=(3, 3), stride=(1, 1), groups=1, technology=GENERIC),
     r"^Simd must divide the 4 channels, not 3$"),
    (lambda: MemoryWindow(U4, 1, height=2, width=4, channels=4, kernel=(3, 3), stride=(1, 1), groups=1, technology=GENERIC),
     r"^Kernel \(3, 3\) must fit the image of 2x4$"),
    (lambda: MemoryWindow(U4, 1, height=4, width=4, channels=1, kernel=(3, 3), stride=(1, 1), groups=1, depth=24,
                          technology=GENERIC), r"^Depth must be a power of two, not 24$"),
    (lambda: MemoryWindow(U4, 1, height=4, width=4, channels=1, kernel=(3, 3), stride=(1, 1), groups=1, depth=8,
                          technology=GENERIC), r"^Depth must be an integer of at least 16, not 8$"),
    (lambda: ShiftWindow(U4, height=4, width=1, channels=1, kernel=(2, 1), stride=(1, 1), groups=1, technology=GENERIC),
     r"^Width must be an integer of at least 2, not 1$"),
    (lambda: MatVec(np.zeros((4, 1, 1), np.int64), FixedPoint(4, 0), (0, 1), pe=3, technology=GENERIC),
     r"^Pe must divide the 4 outputs, not 3$"),
    (lambda: MatVec(np.zeros((2, 1, 1), np.int64), FixedPoint(4, 0), (0, 1), pe=2, logic_bits=8, technology=GENERIC),
     r"^Logic bits must be less than the 8 of a word, and 0 without block RAM, not 8$"),
    (lambda: Requantizer((0, 9), mult=[1, 2], offset=[0], shift=1, lo=0, hi=1, channels=3, technology=GENERIC),
     r"^Mult must have 1 or 3 values, not \(2,\)$"),
    (lambda: Requantizer((0, 9), mult=[-3], offset=[0], shift=3, lo=0, hi=1, channels=1, bits=2, technology=GENERIC),
     "must be one, and not negative"),
    (lambda: Requantizer((0, 9), mult=[1], offset=[0], shift=63, lo=0, hi=1, channels=3, technology=GENERIC),
     r"^Shift must lie in -32\.\.62, not 63$"),
    (lambda: Thresholder((0, 9), thresholds=np.array([[3, 2]]), lo=0, channels=2, technology=GENERIC), r"^Thresholds must ascend$"),
    (lambda: Thresholder((0, 9), thresholds=np.zeros((3, 1), int), lo=0, channels=2, technology=GENERIC),
     r"^Thresholds must have 1 or 2 rows, not the shape \(3, 1\)$"),
    (lambda: Reduce("min", (0, 1), counts=[2], over=[True], technology=GENERIC), r"^Op must be 'max' or 'sum', not 'min'$"),
    (lambda: TopK((0, 1), 3, 4), r"^K must be at most the 3 values, not 4$"),
    (lambda: TopK((0, 1), 1), r"^Count must be an integer of at least 2, not 1$"),
])
def test_bad_parameters_are_refused(make, text):
    with pytest.raises(ModelError, match=text):
        make()
