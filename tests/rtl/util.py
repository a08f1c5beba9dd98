# amaranth: UnusedElaboratable=no
"""Drive one block in Amaranth's simulator: a source and a sink that stall at random, the stream rules, a watchdog."""

import random

import numpy as np
from amaranth.sim import Simulator

from hwq.rtl.common import pack_lanes

STALLS = [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.6, 0.6)]


def pack(layout_shape, values):
    """Return one beat's payload bits."""
    return pack_lanes(np.asarray(values).ravel(), layout_shape.width)


def unpack(shape, lanes, word):
    """Return the lanes of a payload."""
    values = [(word >> (i * shape.width)) & ((1 << shape.width) - 1) for i in range(lanes)]
    return [v - (1 << shape.width) if shape.signed and v >> (shape.width - 1) else v for v in values]


def run_stream(dut, words, count, *, stall=(0.0, 0.0), seed=0, max_cycles=100_000):
    """Feed payload words (integers) to ``dut.i`` and collect ``count`` payload words from ``dut.o``.

    Returns the words and the cycle in which each was taken.
    """
    rng = random.Random(seed)
    results, cycles = [], []

    async def source(ctx):
        for word in words:
            while rng.random() < stall[0]:
                await ctx.tick()
            ctx.set(dut.i.payload.as_value(), int(word))
            ctx.set(dut.i.valid, 1)
            ready = 0
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.i.ready)
            ctx.set(dut.i.valid, 0)

    async def sink(ctx):
        cycle, held, wanted = 0, None, rng.random() >= stall[1]
        ctx.set(dut.o.ready, wanted)
        while len(results) < count:
            assert cycle < max_cycles, f"{len(results)} of {count} results after {max_cycles} cycles"
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload.as_value())
            if held is not None:
                assert valid and payload == held, "valid or payload changed before ready"
            held = payload if valid and not wanted else None
            if valid and wanted:
                results.append(payload)
                cycles.append(cycle)
            wanted = rng.random() >= stall[1]
            ctx.set(dut.o.ready, wanted)
            cycle += 1
        ctx.set(dut.o.ready, 0)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(source, background=True)
    sim.add_testbench(sink)
    sim.run()
    return results, cycles
