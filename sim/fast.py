"""Compiled simulation of the core: whole test sets, several processes, random stalls, resets, wrong frames."""

import errno
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..errors import EnvironmentError_, ToolError, VerifyError
from ..toolchain import Child, Tool
from .folder import Build
from .result import SimResult, watchdog
from .verilate import compile_verilog

__all__ = ["compile_core", "simulate"]

_FAULT, _NO_SPACE = 3, 4                                 # exit codes of the executable: the core is wrong; cannot write


def compile_core(build: Build, level: str = "rtl") -> Path:
    """Return the executable of a build's core; see `hwq.sim.verilate.compile_verilog`."""
    return compile_verilog(build.sources(level), "accel", "fast_main.cpp",
                           build.path / "logs" / f"verilator-{level}.log")


def simulate(build: Build, program: Path, beats: np.ndarray, *, stall: int = 0, faults: int = 0, seed: int = 0,
             processes: int | None = None, progress: Callable[[int, int], None] | None = None) -> SimResult:
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
        them. Every process throws in each of the three at least once, unless the percentage is 0.
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
    EnvironmentError_
        No space for temporary files.
    """
    try:
        return _simulate(build, program, beats, stall, faults, seed, processes, progress)
    except OSError as error:
        raise EnvironmentError_(f"Cannot write the simulation's files in {tempfile.gettempdir()}: {error.strerror or error}. "
                                "Make room there, or name another folder in TMPDIR") from None


def _simulate(build: Build, program: Path, beats: np.ndarray, stall: int, faults: int, seed: int, processes: int | None,
              progress: Callable[[int, int], None] | None) -> SimResult:
    total = len(beats)
    count = max(1, min(processes or os.cpu_count() or 1, total // 4))
    edges = [total * k // count for k in range(count + 1)]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hwq-sim-") as name, ExitStack() as stack:
        work, children = Path(name), list[Child]()
        for k in range(count):
            (work / f"in{k}").write_bytes(beats[edges[k]:edges[k + 1]].tobytes())     # tofile() hides errno
            values = {
                "in_bytes": build.input.bytes, "in_beats": build.input.beats, "out_bytes": build.output.bytes,
                "out_beats": build.output.beats, "frames": edges[k + 1] - edges[k], "seed": seed * 1009 + k,
                "stall_in": stall, "stall_out": stall, "faults": faults, "drain": 2 * build.cycles + 1000,
                "watchdog": watchdog(build.cycles, build.input.beats, build.output.beats),
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
            if child.poll() == _NO_SPACE:
                raise OSError(errno.ENOSPC, child.log.read_text(errors="replace").strip() or os.strerror(errno.ENOSPC))
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
    return SimResult(np.concatenate(results).reshape(total, build.output.beats, build.output.bytes),
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
