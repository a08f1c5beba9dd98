"""Compiled simulation of the core with Verilator: whole test sets in minutes."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwq.errors import VerifyError
from hwq.toolchain import find, ice40_cells, run, verilator_include

__all__ = ["Simulator", "FAULTS"]

FAULTS = {"none": 0, "reset": 1, "short": 2, "long": 3}


@dataclass(frozen=True)
class Simulator:
    """A compiled core.

    Attributes
    ----------
    program : Path
        The executable.
    manifest : dict
        Of the build.
    """

    program: Path
    manifest: dict

    @classmethod
    def compile(cls, folder: Path, level: str = "rtl") -> "Simulator":
        """Compile ``accel.v`` (``rtl``) or ``netlist.v`` (``netlist``) of a build folder, once for each content.

        Raises
        ------
        EnvironmentError_, ToolError
            No Verilator or C++ compiler; or they fail.
        """
        verilator, compiler = find("verilator"), find("c++")
        manifest = json.loads((folder / "manifest.json").read_text())
        main = Path(__file__).with_name("core_main.cpp")
        sources = [folder / ("accel.v" if level == "rtl" else "netlist.v")]
        flags = ["-Wno-fatal", "-Wno-lint", "-Wno-style", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-O3"]
        if level == "netlist":
            sources.append(ice40_cells())
            flags += ["-DNO_ICE40_DEFAULT_ASSIGNMENTS", "--no-timing"]
        digest = hashlib.sha256("".join([verilator.version, compiler.version, *flags]).encode())
        for source in (*sources, main):
            digest.update(source.read_bytes())
        cache = folder / ".sim"
        program = cache / f"{level}-{digest.hexdigest()[:16]}"
        if program.exists():
            return cls(program, manifest)
        cache.mkdir(exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=cache)).resolve()
        try:
            run(verilator, ["--cc", "--top-module", "accel", "--prefix", "Vaccel", "--Mdir", str(work), *flags,
                            *[str(s.resolve()) for s in sources]], log=folder / "logs" / f"verilator-{level}.log", cwd=work)
            include = verilator_include(verilator)
            runtime = [include / name for name in ("verilated.cpp", "verilated_threads.cpp")]
            units = [*sorted(work.glob("*.cpp")), *runtime, main.resolve()]

            def unit(source: Path) -> str:
                # The runtime is not what takes the time: little optimisation there, much for the model.
                level_flag = "-O1" if source in runtime else "-O2"
                target = work / (source.stem + ".o")
                run(compiler, ["-std=c++17", level_flag, "-w", f"-I{work}", f"-I{include}", f"-I{include / 'vltstd'}",
                               "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TRACE=0", "-c", str(source), "-o", str(target)],
                    log=folder / "logs" / f"cxx-{level}-{source.stem}.log", cwd=work)
                return str(target)

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(unit, units))
            run(compiler, ["-o", str(work / "sim"), *objects, "-lpthread", "-latomic"],
                log=folder / "logs" / f"link-{level}.log", cwd=work)
            os.replace(work / "sim", program)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return cls(program, manifest)

    def run(self, frames: np.ndarray, *, stall_in: int = 0, stall_out: int = 0, seed: int = 0, fault: str = "none",
            jobs: int | None = None, progress: Callable[[int], None] | None = None) -> tuple[np.ndarray, np.ndarray, dict]:
        """Send frames and return what comes out.

        Parameters
        ----------
        frames : uint8 array (n, bytes a frame)
        stall_in, stall_out : int
            Chance of a pause each cycle, in 1/256.
        seed : int
        fault : str
            ``none``, ``reset``, ``short`` or ``long``; see ``core_main.cpp``.
        jobs : int, optional
            Processes; as many as cores.
        progress : function of int, optional
            Called with the number of frames done.

        Returns
        -------
        values : int64 array (results, beats)
        user : uint8 array (results,)
            ``tuser`` of each result.
        stats : dict
            ``cycles``, ``first`` (cycle of the first result), ``steady`` (cycles a frame).

        Raises
        ------
        VerifyError
            A protocol error, or no progress.
        """
        jobs = min(jobs or os.cpu_count() or 1, max(1, len(frames) // 4))
        pieces = [p for p in np.array_split(np.arange(len(frames)), jobs * (8 if len(frames) > 400 else 1)) if len(p)]
        with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs) as pool:
            def one(item: tuple[int, np.ndarray]):
                index, piece = item
                result = self._piece(Path(scratch), index, frames[piece], stall_in, stall_out, seed + index, fault)
                if progress:
                    progress(len(piece))
                return result

            parts = list(pool.map(one, enumerate(pieces)))
        values = np.concatenate([part[0] for part in parts])
        return values, np.concatenate([part[1] for part in parts]), parts[0][2] | {"cycles": sum(p[2]["cycles"] for p in parts)}

    def _piece(self, scratch: Path, index: int, frames: np.ndarray, stall_in: int, stall_out: int, seed: int, fault: str):
        source, sink = scratch / f"{index}.in", scratch / f"{index}.out"
        frames.astype(np.uint8).tofile(source)
        i, o = self.manifest["input"], self.manifest["output"]
        limit = 64 * (self.manifest["cycles"] + i["beats"]) + 16 * self.manifest["startup_cycles"] + 10_000
        arguments = [source, sink, len(frames), i["bytes"], i["beats"], o["bytes"], o["beats"], stall_in, stall_out, seed,
                     FAULTS[fault], limit]
        done = subprocess.run([str(self.program.resolve()), *map(str, arguments)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise VerifyError(f"The simulation stopped with code {done.returncode}: {done.stderr.strip()[:500]}")
        raw = np.fromfile(sink, np.uint8).reshape(-1, o["beats"], o["bytes"] + 1)
        return decode(raw[..., :-1], o["signed"]), raw[:, -1, -1] & 1, json.loads(done.stdout.splitlines()[-1])


def decode(data: np.ndarray, signed: bool) -> np.ndarray:
    """Return little-endian bytes (..., bytes) as int64 values (...)."""
    size = data.shape[-1]
    total = sum(data[..., b].astype(np.int64) << (8 * b) for b in range(size))
    return np.where(total >> (8 * size - 1) != 0, total - (1 << (8 * size)), total) if signed else np.asarray(total)

