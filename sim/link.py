"""A simulated board: the UART top of a build, compiled, for ``hwq run --port sim:FOLDER``."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import FormatError
from .folder import Build
from .result import watchdog
from .verilate import compile_verilog

__all__ = ["compile_board", "compile_link"]


def compile_board(build: Build) -> Path:
    """Return a program that is the board of a build: it speaks the link's bytes on standard input and output.

    Raises
    ------
    EnvironmentError_, ToolError
        No Verilator, no C++ compiler; or one of them failed.
    FormatError
        The build has no shell; a file of the build was changed.
    """
    if build.link is None:
        raise FormatError(f"{build.path} has no simulated board: only builds for a board or a device have one "
                                "(hwq build --board icebreaker)")
    idle = watchdog(build.cycles, build.input.beats, build.output.beats)
    return compile_link([build.file("link_sim.v"), *build.sources("rtl")], build.path, divisor=build.link["divisor"], idle=idle)


def compile_link(sources: Sequence[Path], folder: Path, *, divisor: int, idle: int, top: str = "top") -> Path:
    """Return a program that speaks the bytes of a UART top on its standard input and output.

    Parameters
    ----------
    sources : sequence of Path
        Verilog of a module with the ports ``clk``, ``rx`` and ``tx``.
    folder : Path
        Gets the logs.
    divisor : int
        Clock cycles a bit, as the module was made for.
    idle : int
        Cycles without a bit on either line after which the clock stands still until more input comes; longer than the
        core's longest answer.
    top : str
        Name of the module.

    Raises
    ------
    EnvironmentError_, ToolError
        No Verilator, no C++ compiler; or one of them failed.
    FormatError
        A number is out of range.
    """
    if divisor < 4 or idle < 1:
        raise FormatError(f"Divisor must be at least 4 and idle at least 1, not {divisor!r} and {idle!r}")
    return compile_verilog(sources, top, "link_main.cpp", folder / "logs" / "verilator-link.log",
                           defines={"DIVISOR": divisor, "IDLE": f"{idle}ull"})
