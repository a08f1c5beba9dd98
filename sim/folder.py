"""What `hwq build` left in its folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EnvironmentError_, FormatError
from ..ir import Graph, content_hash, load
from ..toolchain import ice40_cells

__all__ = ["Build", "Port", "load_build", "LEVELS"]

LEVELS = ("rtl", "netlist")


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
    """

    path: Path
    name: str
    graph: Graph
    input: Port
    output: Port
    cycles: int

    def sources(self, level: str) -> list[Path]:
        """Return the Verilog files of the core at a level.

        Raises
        ------
        EnvironmentError_
            The build made none, or the cell models are missing.
        """
        if level not in LEVELS:
            raise FormatError(f"Level must be one of {', '.join(LEVELS)}, not {level!r}")
        file = self.path / ("accel.v" if level == "rtl" else "netlist.v")
        if not file.is_file():
            hint = "build again" if level == "rtl" else "only builds for a device have one (hwq build --target ice40)"
            raise EnvironmentError_(f"There is no {file}: {hint}")
        return [file] if level == "rtl" else [file, ice40_cells()]


def load_build(path: str | Path) -> Build:
    """Read a build folder.

    Raises
    ------
    EnvironmentError_
        It is no build folder.
    FormatError
        Its manifest is malformed, or does not belong to its model.
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
    except OSError as error:
        raise EnvironmentError_(f"{path} is no build folder: cannot read {file.name}: {error.strerror}. "
                                f"Make one with `hwq build MODEL.hwq -o {path.name}`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{file} is malformed ({type(error).__name__}: {error}); build again") from None
    graph = load(path / "model.hwq")
    if content_hash(graph) != model_hash:
        raise FormatError(f"{path / 'model.hwq'} is not the network that was built: its hash is "
                          f"{content_hash(graph)[:16]}..., the manifest has {str(model_hash)[:16]}...; build again")
    return Build(path, name, graph, ports[0], ports[1], cycles)
