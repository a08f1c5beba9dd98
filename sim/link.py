"""A simulated board: the UART top of a build, compiled, for ``hwq run --port sim:PROGRAM``."""

from pathlib import Path

from ..errors import EnvironmentError_, FormatError
from .verilate import compile_verilog

__all__ = ["compile_link"]


def compile_link(folder: str | Path, *, divisor: int, idle: int, top: str = "top") -> Path:
    """Return a program that speaks the bytes of ``folder/link_sim.v`` on its standard input and output.

    Parameters
    ----------
    folder : path
        Has ``link_sim.v``: a module with the ports ``clk``, ``rx`` and ``tx``.
    divisor : int
        Clock cycles a bit, as the module was made for.
    idle : int
        Cycles without a bit on either line after which the clock stands still until more input comes; longer than the
        core's longest answer, such as two frames.
    top : str
        Name of the module.

    Raises
    ------
    EnvironmentError_, ToolError
        No such file, no Verilator, no C++ compiler; or one of them failed.
    FormatError
        A number is out of range.
    """
    folder = Path(folder).resolve()
    if divisor < 4 or idle < 1:
        raise FormatError(f"Divisor must be at least 4 and idle at least 1, not {divisor!r} and {idle!r}")
    source = folder / "link_sim.v"
    if not source.is_file():
        raise EnvironmentError_(f"There is no {source}: build for a board first")
    return compile_verilog([source], top, "link_main.cpp", folder / ".sim", folder / "logs" / "verilator-link.log",
                           defines={"DIVISOR": divisor, "IDLE": f"{idle}ull"})
