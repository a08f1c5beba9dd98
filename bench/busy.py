"""How busy every layer is in steady state, by simulation: ``python -m bench.busy [MODEL.hwq ...] [--device up5k]``.

Without files: the networks of `bench.networks`. The core gets frames without a pause in Amaranth's simulator. A layer is
busy in a cycle in which its products advance (a word of the window enters `MatVec`); the share is taken between the ends of
two frames at the output, after the pipeline has filled.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.sim import Simulator

from hwq.emit import pack_codes, unpack_results
from hwq.interp import run_batches
from hwq.ir import Graph, load
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import SHELL, device, make_plan
from hwq.rtl.stage import ConvStage

from .networks import networks

__all__ = ["busy", "line"]

# frames behind the last one measured, so that the first layers do not run dry
_AHEAD = 4


def busy(graph: Graph, part: str, *, frames: int = 4, seed: int = 0) -> dict[str, Any]:
    """Return ``cycles`` (plan), ``measured`` (between the last two frames) and ``layers``: name -> share of busy cycles.

    Raises ``AssertionError`` where a result differs from the integer reference.
    """
    ready = apply_passes(graph)
    plan = make_plan(ready, device(part), reserve=SHELL)
    core = lower(ready, plan)
    source = graph.input
    sent = frames + _AHEAD
    images = np.random.default_rng(seed).integers(source.lo, source.hi + 1, (sent, *source.shape))
    beats = [int.from_bytes(beat.tobytes(), "little") for beat in pack_codes(
        images, lanes=plan.in_lanes, width=core.guard.shape.width).reshape(-1, core.guard.bytes)]
    wanted = run_batches(graph, images)[:frames].reshape(frames, -1)
    layers = {name: block for name, block in core.stages if isinstance(block, ConvStage)}
    ends: list[int] = []
    events: dict[str, list[int]] = {name: [] for name in layers}
    results: list[bytes] = []

    async def feed(ctx):
        size = len(beats) // sent
        ctx.set(core.s_axis_tvalid, 1)
        for at, beat in enumerate(beats):
            ctx.set(core.s_axis_tdata, beat)
            ctx.set(core.s_axis_tlast, at % size == size - 1)
            ready = 0
            while not ready:
                *_, ready = await ctx.tick().sample(core.s_axis_tready)
        ctx.set(core.s_axis_tvalid, 0)

    async def watch(ctx):
        ctx.set(core.m_axis_tready, 1)
        probes = [signal for block in layers.values() for signal in (block.matvec.i.valid, block.matvec.i.ready)]
        cycle = 0
        while len(ends) < frames:
            _, _, valid, last, data, *seen = await ctx.tick().sample(core.m_axis_tvalid, core.m_axis_tlast,
                                                                     core.m_axis_tdata, *probes)
            cycle += 1
            for name, offered, taken in zip(layers, seen[::2], seen[1::2], strict=True):
                if offered and taken:
                    events[name].append(cycle)
            if valid:
                results.append(data.to_bytes(core.framer.bytes, "little"))
                if last:
                    ends.append(cycle)

    simulator = Simulator(core)
    simulator.add_clock(1e-6)
    simulator.add_testbench(feed, background=True)
    simulator.add_testbench(watch)
    simulator.run()
    found = unpack_results(np.frombuffer(b"".join(results), np.uint8).reshape(frames, -1, core.framer.bytes),
                           signed=core.framer.shape.signed)
    assert (found == wanted).all(), "the hardware differs from the reference"
    first, last = ends[-2:]
    return {"cycles": plan.cycles, "measured": last - first, "layers": {
        name: sum(first < cycle <= last for cycle in seen) / (last - first) for name, seen in events.items()}}


def line(graph: Graph, part: str = "") -> str:
    """Measure a network, and say it in a line; on the part that it fits if none is given."""
    part = part or ("hx8k" if graph.name == "N3" else "up5k")
    got = busy(graph, part)
    return (f"{graph.name} on {part}: {got['cycles']:,} cycles planned, {got['measured']:,} measured; busy: "
            + ", ".join(f"{name} {100 * share:.1f} %" for name, share in got["layers"].items()))


def main() -> None:
    """Print a line a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--device", default="")
    arguments = parser.parse_args()
    graphs = [load(path) for path in arguments.models] or list(networks().values())
    for graph in graphs:
        print(line(graph, arguments.device), flush=True)


if __name__ == "__main__":
    main()
