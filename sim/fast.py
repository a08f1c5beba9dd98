"""Compiled simulation of the core: whole test sets, several processes, random stalls, resets, wrong frames."""

import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ToolError, VerifyError
from ..toolchain import Child, Tool
from .folder import Build
from .verilate import compile_verilog

__all__ = ["FastResult", "compile_core", "simulate", "STALL_PERCENT", "FAULT_PERCENT"]

STALL_PERCENT = 30                                       # of the cycles, at each end, on average over all segments
FAULT_PERCENT = 10                                       # of the good frames have a reset or a wrong frame before them
_FAULT = 3                                               # exit code of the executable: the core is wrong


@dataclass
class FastResult:
    """What came out.

    Attributes
    ----------
    beats : uint8 array (n, out beats, bytes)
        Result frames, in order.
    stamps : uint64 array (n, 3)
        Cycles of the first beat in, the first result beat and the last result beat; they start anew in each part.
    cycles : int
        Simulated cycles of all processes.
    seconds : float
        Wall time.
    counts : dict of str to int
        Resets, short and long frames that were thrown in.
    part : int
        Frames of the first process, whose stamps belong together.
    """

    beats: np.ndarray
    stamps: np.ndarray
    cycles: int
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)
    part: int = 0

    @property
    def latency(self) -> int:
        """Cycles from a frame's first beat to its last result beat, first frame."""
        return int(self.stamps[0, 2] - self.stamps[0, 0]) + 1 if len(self.stamps) else 0

    @property
    def cycles_per_frame(self) -> float | None:
        """Cycles between the ends of consecutive results, once the pipeline is full; None below three frames."""
        ends = self.stamps[:self.part, 2].astype(np.int64)
        if len(ends) < 3:
            return None
        begin = min(len(ends) // 2, 16)                  # by then every stage is at work
        return float(ends[-1] - ends[begin]) / (len(ends) - 1 - begin)


def compile_core(build: Build, level: str = "rtl") -> Path:
    """Return the executable of a build's core; kept in the build folder's ``.sim``."""
    return compile_verilog(build.sources(level), "accel", "fast_main.cpp", build.path / ".sim",
                           build.path / "logs" / f"verilator-{level}.log")


def simulate(build: Build, program: Path, beats: np.ndarray, *, stall: int = 0, faults: int = 0, seed: int = 0,
             processes: int | None = None, progress: Callable[[int, int], None] | None = None) -> FastResult:
    """Run frames through a compiled core.

    Parameters
    ----------
    build : Build
        Whose core it is.
    program : Path
        From `compile_core`.
    beats : uint8 array (n, in beats, bytes)
        Frames.
    stall, faults : int
        Percent of cycles with a stall, at each end; percent of frames with a reset, a short or a long frame before
        them.
    seed : int
        Of the stalls, faults, and everything in the core that has no initial value.
    processes : int or None
        How many at a time; None: one a processor.
    progress : callable or None
        Gets (frames done, frames in all) now and then.

    Raises
    ------
    VerifyError
        The core broke a rule of the bus, made a wrong frame, or stood still.
    ToolError
        The executable failed.
    """
    total = len(beats)
    count = max(1, min(processes or os.cpu_count() or 1, total // 4))
    edges = [total * k // count for k in range(count + 1)]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hwq-sim-") as name, ExitStack() as stack:
        work, children = Path(name), list[Child]()
        for k in range(count):
            beats[edges[k]:edges[k + 1]].tofile(work / f"in{k}")
            values = {
                "in_bytes": build.input.bytes, "in_beats": build.input.beats, "out_bytes": build.output.bytes,
                "out_beats": build.output.beats, "frames": edges[k + 1] - edges[k], "seed": seed * 1009 + k,
                "stall_in": stall, "stall_out": stall, "faults": faults, "drain": 2 * build.cycles + 1000,
                # Longest standstill seen: start-up, or one frame of the slowest stage, times what stalls cost.
                "watchdog": 50_000 + 16 * (build.cycles + build.input.beats + build.output.beats),
                "in": work / f"in{k}", "out": work / f"out{k}", "stamps": work / f"stamps{k}"}
            children.append(stack.enter_context(Child(
                Tool("simulation", [str(program)], "of the core", "build"), [f"{a}={b}" for a, b in values.items()],
                work / f"log{k}", work)))
        frame = build.output.bytes * build.output.beats
        while any(child.poll() is None for child in children):
            if any(child.poll() for child in children):
                break
            if progress:
                progress(sum((work / f"out{k}").stat().st_size // frame for k in range(count)
                             if (work / f"out{k}").exists()), total)
            time.sleep(0.05 if time.monotonic() - begin > 1 else 0.005)
        counts: dict[str, int] = {"resets": 0, "short": 0, "long": 0}
        results, stamps, cycles = [], [], 0
        for k, child in enumerate(children):
            if child.poll() is None:                     # another one failed
                continue
            if child.poll() not in (0, _FAULT):
                child.check()
            summary = _summary(child)
            if summary["error"]:
                raise VerifyError(_fault(build, summary, edges[k], seed))
            cycles += summary["cycles"]
            for key in counts:
                counts[key] += summary[key]
            results.append(np.fromfile(work / f"out{k}", np.uint8))
            stamps.append(np.fromfile(work / f"stamps{k}", np.uint64).reshape(-1, 3))
    if progress:
        progress(total, total)
    return FastResult(np.concatenate(results).reshape(total, build.output.beats, build.output.bytes),
                      np.concatenate(stamps), cycles, time.monotonic() - begin, counts, edges[1])


def _summary(child: Child) -> dict:
    text = child.log.read_text(errors="replace")
    try:
        return json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise ToolError(f"The simulation gave no summary; it printed:\n{text[-2000:] or '(nothing)'}") from None


def _fault(build: Build, summary: dict, first: int, seed: int) -> str:
    return (f"Core '{build.name}': {summary['error']}, in cycle {summary['cycles']} (image {first + summary['frames']}, "
            f"after {summary['resets']} resets, {summary['short']} short and {summary['long']} long frames; "
            f"seed {seed}). Sent {summary['sent']} frames and {summary['beat']} beats; "
            f"{summary['result_beat']} of {build.output.beats} beats of the result had come")
