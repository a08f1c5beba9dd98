"""The simulated board: the shell as the board has it, without pins and PLL, around the same core."""

from pathlib import Path

from hwq.boards.tops import device_files
from hwq.boards.uart import uart_divisor

from ..toolchain import run_yosys

__all__ = ["write_link_sim", "LINK_SIM"]

LINK_SIM = "link_sim.v"
_SCRIPT = f"""read_rtlil link_sim.il
proc
opt_clean
write_verilog -noattr {LINK_SIM}
"""


def write_link_sim(folder: Path, **shell) -> dict[str, int]:
    """Write ``link_sim.v``: module ``top`` with ``clk``, ``rx``, ``tx``, which instantiates the core of ``accel.v``.

    Clock and rate are the board's, hence also the clocks a byte: a core that is too slow for the line shows it here.

    Parameters
    ----------
    folder : Path
        Build folder.
    **shell
        Parameters of `hwq.boards.shell.Shell`, as for the board.

    Returns
    -------
    dict
        ``divisor``: clock cycles a bit; for the manifest.
    """
    source = folder / "link_sim.il"
    source.write_text(device_files(**shell))
    run_yosys(_SCRIPT, folder / "logs" / "link_sim.log", folder)
    source.unlink()
    return {"divisor": uart_divisor(shell["clock_hz"], shell["baud"])}
