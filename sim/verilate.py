"""Verilog plus a C++ main to an executable: Verilator and a C++ compiler, without make, with a cache.

Executables lie in the user's own cache, never in the build folder: a folder that came from elsewhere must not bring the
program that judges it.

Measured (network of 7,056 cycles a frame, 4,400 logic cells, g++ 12): -O1, -O2 and -O3 -march=native run alike (1.9
million cycles a second) and compile in 6 s; of that, Verilator's own runtime would be 6 s more, so it is kept in a
cache of the user's.
"""

import atexit
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from ..errors import EnvironmentError_, ToolError
from ..toolchain import Tool, find, run, run_many, verilator_include

__all__ = ["compile_verilog", "cached", "cache_folder"]

_VERILATE = ["--cc", "--prefix", "Vcore", "-O3", "--x-assign", "fast", "--x-initial", "unique", "--no-timing",
             "--no-assert", "--threads", "1", "--output-split", "20000", "-Wno-fatal", "-Wno-lint", "-Wno-style",
             "-Wno-UNOPTFLAT", "-Wno-TIMESCALEMOD"]
_COMPILE = ["-std=c++17", "-DVL_TIME_CONTEXT", "-w"]
_RUNTIME = ("verilated.cpp", "verilated_threads.cpp")
_MAIN = Path(__file__).parent
_KEPT = 64                                               # executables in the cache, of 0.2 to 2 MB each
_ABANDONED = 24 * 3600                                   # seconds after which a half-made one belongs to nobody


def _digest(*parts: str | bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def cached(file: Path) -> bool:
    """Return whether ``file`` is whole: its hash stands beside it. A damaged cache is no cache."""
    try:
        return (file.parent / f"{file.name}.sha256").read_text() == _digest(file.read_bytes())
    except OSError:
        return False


def _seal(file: Path) -> None:
    (file.parent / f"{file.name}.sha256").write_text(_digest(file.read_bytes()))


def cache_folder() -> Path:
    """Return the folder of executables: ``$XDG_CACHE_HOME/hwq`` or ``~/.cache/hwq``, which may be deleted at any time.

    Where neither can be written, or the folder is another user's: a private one that goes when the process ends.
    """
    home, user = os.environ.get("XDG_CACHE_HOME", ""), os.environ.get("HOME", "")
    base = Path(home) if os.path.isabs(home) else Path(user) / ".cache" if os.path.isabs(user) else None
    if base is not None:
        folder = base / "hwq"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid == os.geteuid():
                if stat.S_IMODE(folder.stat().st_mode) & 0o022:
                    folder.chmod(0o700)                  # what others can write, they can plant
                if os.access(folder, os.W_OK | os.X_OK):
                    return folder
        except OSError:
            pass
    return _private_folder()


@cache
def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hwq-cache-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _tidy(folder: Path) -> None:
    """Drop the executables used longest ago, beyond `_KEPT`, and what killed processes left half-made."""
    found = []
    for path in folder.iterdir():
        try:
            found.append((path.stat().st_mtime, path))
        except OSError:                                  # another process was faster
            continue
    cores = sorted((item for item in found if item[1].name.startswith("core-")), reverse=True)
    old = [item for item in found if item[1].name.startswith("part.") and item[0] < time.time() - _ABANDONED]
    for _, path in [*cores[_KEPT:], *old]:
        shutil.rmtree(path, ignore_errors=True)


def _publish(folder: Path, target: Path) -> None:
    """Give a finished folder its name; a damaged one that has the name goes."""
    if target.exists():
        shutil.rmtree(target, ignore_errors=True)
    try:
        os.replace(folder, target)
    except OSError:                                      # another process was faster: its result is the same
        shutil.rmtree(folder, ignore_errors=True)


def _scratch(parent: Path) -> Path:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=parent, prefix="part."))
    except OSError as error:
        raise EnvironmentError_(f"Cannot write in {parent}: {error.strerror}") from None


def _runtime(compiler: Tool, verilator: Tool, include: Path) -> list[Path]:
    target = cache_folder() / ("verilator-" + _digest(compiler.identity, verilator.identity, *_COMPILE)[:24])
    objects = [target / Path(name).with_suffix(".o").name for name in _RUNTIME]
    if not all(cached(file) for file in objects):
        folder = _scratch(target.parent)
        try:
            run_many(compiler, [([*_COMPILE, "-O2", f"-I{include}", f"-I{include / 'vltstd'}", "-c",
                                  str(include / name), "-o", str(folder / file.name)], folder / f"{name}.log")
                                for name, file in zip(_RUNTIME, objects, strict=True)], folder)
            for file in objects:
                _seal(folder / file.name)
            _publish(folder, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return objects


def compile_verilog(sources: Sequence[Path], top: str, main: str, log: Path,
                    defines: Mapping[str, int | str] | None = None) -> Path:
    """Return the executable of a Verilog module with one of the C++ mains of this package.

    It lies in `cache_folder`; one of the same sources, tools and flags is used again.

    Parameters
    ----------
    sources : sequence of Path
        Verilog files.
    top : str
        The module.
    main : str
        File name of the main; it sees the module as class ``Vcore``.
    log : Path
        Log of Verilator; the compiler's lie beside it while they are of interest.
    defines : mapping or None
        Preprocessor definitions for the main.

    Raises
    ------
    EnvironmentError_
        No Verilator, no C++ compiler, or no place to write.
    ToolError
        One of them failed.
    """
    try:
        return _compile(sources, top, main, log, defines or {})
    except OSError as error:
        raise EnvironmentError_(f"Cannot write {error.filename or 'the executable'}: {error.strerror or error}. Make room there, "
                                "or name another cache folder in XDG_CACHE_HOME") from None


def _compile(sources: Sequence[Path], top: str, main: str, log: Path, defines: Mapping[str, int | str]) -> Path:
    verilator, compiler = find("verilator"), find("c++")
    include = verilator_include(verilator)
    macros = [f"-D{name}={value}" for name, value in defines.items()]
    key = _digest(*(Path(file).read_bytes() for file in sources), (_MAIN / main).read_bytes(), top, main,
                  verilator.identity, compiler.identity, *_VERILATE, *_COMPILE, *macros)[:24]
    target = cache_folder() / f"core-{key}"
    program = target / "core"
    if cached(program):
        os.utime(target)                                 # used again: not the next to go
        return program
    folder = _scratch(target.parent)
    try:
        # Verilator wants absolute paths beside --Mdir.
        run(verilator, [*_VERILATE, "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "--top-module", top, "--Mdir", str(folder),
                        *(str(Path(file).resolve()) for file in sources)], log, folder)
        runtime = _runtime(compiler, verilator, include)
        flags = [*_COMPILE, f"-I{include}", f"-I{include / 'vltstd'}", "-I."]
        # Slow files run once: only their compile time counts. Large files first, so that the last one is short.
        files = sorted(folder.glob("*.cpp"), key=lambda file: -file.stat().st_size)
        jobs = [([*flags, "-O0" if "Slow" in file.name else "-O2", "-c", file.name, "-o", f"{file.stem}.o"],
                 log.parent / f"{log.stem}.{file.stem}.log") for file in files]
        jobs.append(([*flags, *macros, "-O2", "-c", str(_MAIN / main), "-o", "main.o"], log.parent / f"{log.stem}.main.log"))
        run_many(compiler, jobs, folder)
        run(compiler, [*(f"{file.stem}.o" for file in files), "main.o", *map(str, runtime), "-lpthread", "-o", "core"],
            log.parent / f"{log.stem}.link.log", folder)
        for _, path in jobs:                             # kept only where something went wrong
            path.unlink(missing_ok=True)
        for file in folder.iterdir():
            if file.name != "core":
                file.unlink()
        _seal(folder / "core")
        os.utime(folder)
        _publish(folder, target)
        _tidy(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not cached(program):
        raise ToolError(f"The executable {program} vanished or changed while it was made; run again")
    return program
