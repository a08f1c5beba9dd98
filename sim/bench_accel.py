"""cocotb tests of the core `accel`: stalls, back-to-back frames, resets, wrong frames, no X.

Runs inside the simulator; `hwq.sim.cocotb_runner` starts it. The JSON file named by ``HWQ_BENCH`` gives: ``frames``
(list of lists of bus words), ``results`` (the same, expected), ``out_beats``, ``in_bits``, ``seed``, ``stall`` (percent),
``limit`` (cycles without progress after which a test fails) and ``checked`` (a file that grows by a byte a frame).
"""

import json
import os
import random
from functools import cached_property
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge

from hwq.sim.axis import AxisMonitor, AxisSink, AxisSource, stalls
from hwq.sim.scoreboard import Mismatch, Scoreboard

_PERIOD_NS = 10


class _Setup:
    """What the JSON file says."""

    @cached_property
    def values(self) -> dict[str, Any]:
        return json.loads(Path(os.environ["HWQ_BENCH"]).read_text())


_setup = _Setup()


class Bench:
    """Clock, source, sink, monitor, scoreboard and watchdog around the core."""

    def __init__(self, dut: Any, name: str, stall: int | None = None):
        values = _setup.values
        self.dut, self.frames, self.results = dut, values["frames"], values["results"]
        self.limit, self.in_bits = values["limit"], values["in_bits"]
        self.rng = random.Random(f"{values['seed']} {name}")
        percent = values["stall"] if stall is None else stall
        Clock(dut.clk, _PERIOD_NS, unit="ns").start()
        dut.rst.value = 0
        self.source = AxisSource(dut, stall=stalls(self.rng.randrange(1 << 30), percent) if percent else None)
        self.sink = AxisSink(dut, stall=stalls(self.rng.randrange(1 << 30), percent) if percent else None)
        self.monitor = AxisMonitor(dut)
        self.board = Scoreboard(values["out_beats"])
        self.checker = cocotb.start_soon(self._check())
        self.watchdog = cocotb.start_soon(self._watch())

    async def _check(self) -> None:
        while True:
            frame = await self.monitor.frame()           # first: a reset changes the scoreboard
            self.board.check(frame)
            with open(_setup.values["checked"], "ab") as stream:     # a byte a frame, for the progress bar
                stream.write(b".")

    async def _watch(self) -> None:
        """Fail when nothing moves; simulators have no limit of their own."""
        last = None
        while True:
            await ClockCycles(self.dut.clk, self.limit)
            now = (self.source.beats, self.monitor.beats)
            if now == last and (self.board.pending or self.source.beats == 0):
                raise Mismatch(f"nothing moved for {self.limit} cycles: {now[0]} beats went in, {now[1]} came out, "
                               f"{self.board.pending} result frames are missing")
            last = now

    async def good(self, index: int) -> None:
        """Send a good frame."""
        index %= len(self.frames)
        self.board.expect(f"frame {index}", self.results[index])
        await self.source.send(self.frames[index])

    async def wrong(self, beats: int) -> None:
        """Send a frame of a wrong length."""
        self.board.expect(f"frame of {beats} beats instead of {len(self.frames[0])}", None)
        await self.source.send([self.rng.getrandbits(self.in_bits) for _ in range(beats)])

    async def reset(self, cycles: int = 1) -> None:
        """Reset the core; all that is under way is lost."""
        await FallingEdge(self.dut.clk)
        self.source.idle()
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, cycles)
        await FallingEdge(self.dut.clk)
        self.dut.rst.value = 0
        self.monitor.drop()
        self.board = Scoreboard(self.board.beats)

    async def finish(self) -> None:
        """Wait for all results, and see that no more come."""
        while self.board.pending:
            await RisingEdge(self.dut.clk)
        count = self.monitor.beats
        await ClockCycles(self.dut.clk, min(self.limit, 2000))
        if self.monitor.beats != count:
            raise Mismatch(f"{self.monitor.beats - count} result beats came after the last frame")


@cocotb.test()
async def random_stalls(dut: Any) -> None:
    """Every frame, random stalls at both ends; also no X, which the monitor sees in every test."""
    bench = Bench(dut, "random_stalls")
    for k in range(len(bench.frames)):
        await bench.good(k)
    await bench.finish()


@cocotb.test()
async def back_to_back(dut: Any) -> None:
    """Frames at full rate, no stalls."""
    bench = Bench(dut, "back_to_back", stall=0)
    await bench.reset()
    for k in range(min(3, len(bench.frames))):
        await bench.good(k)
    await bench.finish()


@cocotb.test()
async def reset_in_frame(dut: Any) -> None:
    """A reset in the middle of a frame and one with results under way: the next frame is right."""
    bench = Bench(dut, "reset_in_frame")
    await bench.reset()
    beats = len(bench.frames[0])
    for k in range(2):
        if k:
            await bench.good(k)
        await bench.source.send(bench.frames[0][:bench.rng.randrange(1, beats + 1)], last=False)
        await bench.reset(bench.rng.randrange(1, 4))
        await bench.good(k + 1)
        await bench.finish()


@cocotb.test()
async def wrong_frames(dut: Any) -> None:
    """Short and long frames: one result with m_axis_tuser = 1 each, and the next frame is right."""
    bench = Bench(dut, "wrong_frames")
    await bench.reset()
    beats = len(bench.frames[0])
    for count in ((1, beats + 1) if beats > 1 else (2, 3)):
        await bench.wrong(count)
        await bench.good(bench.rng.randrange(len(bench.frames)))
    await bench.finish()
