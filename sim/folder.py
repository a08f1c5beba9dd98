"""What `hwq build` left in its folder."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FormatError
from ..ir import Graph, content_hash, load
from ..toolchain import ice40_cells

__all__ = ["Build", "Port", "load_build", "LEVELS"]

LEVELS = ("rtl", "netlist")
_FILES = {"rtl": "accel.v", "netlist": "netlist.v"}
_ECP5_CELLS = Path(__file__).with_name("ecp5_cells.v")


@dataclass(frozen=True)
class Port:
    """One stream of the core: bytes a beat, beats a frame, values a beat, and the form of a value."""

    bytes: int
    beats: int
    width: int
    signed: bool
    lanes: int = 1


@dataclass(frozen=True, eq=False)
class Build:
    """A build folder.

    Attributes
    ----------
    path : Path
        The folder, absolute.
    name : str
        Name of the network.
    graph : Graph
        The network that was built.
    input, output : Port
        The core's streams.
    cycles : int
        Cycles a frame that the plan promises.
    files : mapping of str to str
        SHA-256 of the files that the build wrote.
    plan : mapping or None
        See `hwq.plan.plan_record`; None in a folder of an older hwq.
    target : str
        Family that it was built for, ``verilog`` where for none.
    link : mapping or None
        ``divisor`` and ``idle`` of the simulated board (`hwq.sim.link.compile_link`); None where there is no shell.
    """

    path: Path
    name: str
    graph: Graph
    input: Port
    output: Port
    cycles: int
    files: Mapping[str, str] = field(default_factory=dict)
    plan: Mapping[str, Any] | None = None
    link: Mapping[str, int] | None = None
    target: str = "ice40"

    def file(self, name: str, hint: str = "build again") -> Path:
        """Return a file of the build; it must be the one that the build wrote.

        Raises
        ------
        FormatError
            It is not there, or is another one than the manifest says.
        """
        path = self.path / name
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise FormatError(f"Cannot read {path}: {error.strerror}; {hint}") from None
        if self.files.get(name, digest) != digest:
            raise FormatError(f"{path} is not the file that was built: its hash is {digest[:16]}..., the manifest has "
                              f"{self.files[name][:16]}...; build again")
        return path

    def sources(self, level: str) -> list[Path]:
        """Return the Verilog files of the core at a level.

        Raises
        ------
        FormatError
            There is no such level, the build made no such file, or it was changed since.
        EnvironmentError_
            The cell models are missing.
        """
        if level not in LEVELS:
            raise FormatError(f"Level must be one of {', '.join(LEVELS)}, not {level!r}")
        if level == "rtl":
            verilog = self.file(_FILES[level])
            return [verilog, ice40_cells()] if "SB_MAC16" in verilog.read_text() else [verilog]
        netlist = self.file(_FILES[level], "only builds for a device have one (hwq build --target ice40 or ecp5)")
        return [netlist, _ECP5_CELLS if self.target == "ecp5" else ice40_cells()]

    def hashes(self, *names: str) -> dict[str, str]:
        """Return the SHA-256 of files of the build that a simulation reads, and the hash of the network."""
        return {"model": content_hash(self.graph),
                **{name: hashlib.sha256(self.file(name).read_bytes()).hexdigest() for name in names}}


def load_build(path: str | Path) -> Build:
    """Read a build folder.

    Raises
    ------
    FormatError
        It is no build folder; its manifest is malformed, or does not belong to its model.
    """
    path = Path(path).resolve()
    file = path / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(file.read_text())
        if manifest["format"] != 1:
            raise FormatError(f"{file} has format {manifest['format']}; this hwq reads format 1: build again")
        ports = [Port(**{key: manifest[side][key] for key in ("bytes", "beats", "width", "signed", "lanes")
                         if key in manifest[side]}) for side in ("input", "output")]
        name, model_hash, cycles = manifest["name"], manifest["model_hash"], int(manifest["cycles"])
        files, plan, link = dict(manifest.get("files", {})), manifest.get("plan"), manifest.get("link")
    except OSError as error:
        raise FormatError(f"{path} is no build folder: cannot read {file.name}: {error.strerror}. "
                                f"Make one with `hwq build MODEL.hwq -o {path.name}`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{file} is malformed ({type(error).__name__}: {error}); build again") from None
    graph = load(path / "model.hwq")
    if content_hash(graph) != model_hash:
        raise FormatError(f"{path / 'model.hwq'} is not the network that was built: its hash is "
                          f"{content_hash(graph)[:16]}..., the manifest has {str(model_hash)[:16]}...; build again")
    return Build(path, name, graph, ports[0], ports[1], cycles, files, plan, link, str(manifest.get("target", "ice40")))
