"""cocotb drivers of AXI4-Stream style ports: source, sink, monitor. Stalls are drawn from a seed."""

import random
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.triggers import Event, FallingEdge, RisingEdge
from cocotb.utils import get_sim_time

__all__ = ["AxisSource", "AxisSink", "AxisMonitor", "Beat", "stalls", "ProtocolError"]


class ProtocolError(AssertionError):
    """A rule of the bus is broken."""


Beat = tuple[int, bool, bool]                            # data, last, user


def stalls(seed: int, percent: int) -> Iterator[bool]:
    """Yield for each cycle whether to stand still: runs of none, of random and of long stalls."""
    rng = random.Random(seed)
    while True:
        chance = rng.choice((0, percent, percent, min(97, 2 * percent))) / 100
        for _ in range(rng.randrange(16, 200)):
            yield rng.random() < chance


class AxisSource:
    """Sends frames; offers a beat until it is taken.

    Inputs change after the falling edge, so that no simulator's order of events at the rising edge matters.
    """

    def __init__(self, dut: Any, prefix: str = "s_axis", stall: Iterator[bool] | None = None):
        self._clk = dut.clk
        self._data, self._valid, self._ready, self._last = (
            getattr(dut, f"{prefix}_{name}") for name in ("tdata", "tvalid", "tready", "tlast"))
        self._stall = stall
        self.beats = 0
        self.idle()

    def idle(self) -> None:
        """Offer nothing."""
        self._valid.value = 0
        self._last.value = 0
        self._data.value = 0

    async def send(self, words: list[int], *, last: bool = True) -> None:
        """Send one frame of bus words; ``last`` false leaves its end open."""
        for k, word in enumerate(words):
            await FallingEdge(self._clk)
            while self._stall is not None and next(self._stall):
                self._valid.value = 0
                await FallingEdge(self._clk)
            self._data.value = word
            self._last.value = last and k == len(words) - 1
            self._valid.value = 1
            await RisingEdge(self._clk)
            while not _bit(self._ready, "s_axis_tready"):
                await RisingEdge(self._clk)
            self.beats += 1
        await FallingEdge(self._clk)
        self.idle()


class AxisSink:
    """Takes beats at random times; what it takes is the monitor's business."""

    def __init__(self, dut: Any, prefix: str = "m_axis", stall: Iterator[bool] | None = None):
        self._clk, self._ready, self._stall = dut.clk, getattr(dut, f"{prefix}_tready"), stall
        self._ready.value = 0
        self._task = cocotb.start_soon(self._run())

    async def _run(self) -> None:
        while True:
            await FallingEdge(self._clk)
            self._ready.value = not (self._stall is not None and next(self._stall))


class AxisMonitor:
    """Watches an output: its rules, X on it, and the frames that pass.

    Attributes
    ----------
    frames : list of list of Beat
        Complete frames, not yet fetched.
    watch_x : bool
        Whether an unknown ``s_axis_tready`` is an error too; unknown bits on the output always are.
    """

    def __init__(self, dut: Any, prefix: str = "m_axis"):
        self._dut, self._prefix = dut, prefix
        self._clk, self._rst = dut.clk, dut.rst
        self._signals = {name: getattr(dut, f"{prefix}_{name}")
                         for name in ("tdata", "tvalid", "tready", "tlast", "tuser")}
        self.frames: list[list[Beat]] = []
        self.beats = 0
        self.watch_x = True
        self._frame: list[Beat] = []
        self._came = Event()
        self.task = cocotb.start_soon(self._run())

    def drop(self) -> None:
        """Forget what came in so far (after a reset)."""
        self.frames.clear()
        self._frame.clear()

    async def frame(self) -> list[Beat]:
        """Return the next complete frame."""
        while not self.frames:
            self._came.clear()
            await self._came.wait()
        return self.frames.pop(0)

    async def _run(self) -> None:
        held: Beat | None = None
        while True:
            await RisingEdge(self._clk)
            if int(self._rst.value):
                held = None
                self._frame.clear()
                continue
            if self.watch_x:
                _bit(self._dut.s_axis_tready, "s_axis_tready")
            if not _bit(self._signals["tvalid"], f"{self._prefix}_tvalid"):
                if held is not None:
                    raise ProtocolError(f"{self._prefix}_tvalid fell before tready came{_when()}")
                continue
            data = self._signals["tdata"].value
            if not data.is_resolvable:
                raise ProtocolError(f"{self._prefix}_tdata has unknown bits on a valid beat: {data}{_when()}")
            last = _bit(self._signals["tlast"], f"{self._prefix}_tlast")
            user = _bit(self._signals["tuser"], f"{self._prefix}_tuser")
            beat = (int(data), last, user and last)
            if held is not None and beat != held:
                raise ProtocolError(f"{self._prefix} changed from {held} to {beat} while valid and not ready{_when()}")
            if not _bit(self._signals["tready"], f"{self._prefix}_tready"):
                held = beat
                continue
            held = None
            self.beats += 1
            self._frame.append(beat)
            if last:
                self.frames.append(self._frame)
                self._frame = []
                self._came.set()


def _when() -> str:
    return f" at {get_sim_time('ns'):.0f} ns"


def _bit(signal: Any, name: str) -> bool:
    value = signal.value
    if not value.is_resolvable:
        raise ProtocolError(f"{name} is unknown ({value}){_when()}")
    return bool(int(value))
