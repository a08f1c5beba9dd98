"""Synthesise, pack and place one block, and count what it takes."""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from amaranth.lib import wiring

from hwq.boards.families import ICE40
from hwq.boards.link_script import synthesis_lines
from hwq.boards.registry import find_device
from hwq.build.place import run_nextpnr
from hwq.emit import SYNTH_PRELUDE
from hwq.rtl.rtlil import rtlil_text
from hwq.toolchain import find, run_yosys

from .netlist import Netlist

__all__ = ["measure"]

_PACKED = ("lc", "ebr", "dsp")


def measure(block: wiring.Component | dict[str, str], part: str, *, place: bool = True, seed: int = 1, freq_mhz: float = 60,
            options: str = "", check: Callable[[Netlist], None] | None = None) -> dict:
    """Return ``lut``, ``ff`` (cells of Yosys), ``lc``, ``ebr``, ``dsp`` (packed) and, if it is placed, ``fmax``.

    The block stands alone; the router chooses the pins. ``fmax`` counts paths between registers. None stands for what
    could not be had because the block does not fit, or has too many pins, or was not placed.

    Parameters
    ----------
    block : Component, or dict of str to str
        Or Verilog files, by name, whose top module is ``accel``.
    options : str
        More options of ``synth_ice40``.
    check
        Called with the netlist.
    """
    device = find_device(part)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if isinstance(block, dict):
            for file, text in block.items():
                (folder / file).write_text(text)
            prelude = "".join(f"read_verilog {file}\n" for file in block)
        else:
            (folder / "accel.il").write_text(rtlil_text(block, "accel"))
            prelude = SYNTH_PRELUDE
        dsp = "-dsp" if part == "up5k" else ""
        lines = [*synthesis_lines(device, "accel", f"{options} {dsp}"), "write_json accel.json", "tee -o stat.json stat -json"]
        run_yosys(prelude + "\n".join(lines) + "\n", folder / "yosys.log", folder)
        if check:
            check(Netlist(json.loads((folder / "accel.json").read_text())["modules"]["accel"]))
        text = (folder / "stat.json").read_text()
        cells = json.loads(text[text.index("{"):])["design"]["num_cells_by_type"]
        result = {"lut": cells.get("SB_LUT4", 0), "ff": sum(n for kind, n in cells.items() if kind.startswith("SB_DFF")),
                  "carry": cells.get("SB_CARRY", 0), "lc": None, "ebr": cells.get("SB_RAM40_4K", 0),
                  "dsp": cells.get("SB_MAC16", 0), "fmax": None}
        options = [*device.nextpnr, "--json", "accel.json", "--report", "report.json", "--seed", str(seed),
                   "--freq", f"{freq_mhz:g}"]
        log = folder / "nextpnr.log"
        # An error is no matter: too big, or too slow for the wish; what was packed is in the log.
        run_nextpnr(find("nextpnr-ice40"), [([*options, *([] if place else ["--pack-only"])], log)], folder, print)
        text = log.read_text(errors="replace")
        for key in _PACKED:
            if found := re.search(rf"{ICE40.used[key]}:\s+(\d+)/", text):
                result[key] = int(found[1])
        if (folder / "report.json").exists():
            report = json.loads((folder / "report.json").read_text())
            if report.get("fmax"):
                result["fmax"] = round(min(entry["achieved"] for entry in report["fmax"].values()), 2)
        return result
