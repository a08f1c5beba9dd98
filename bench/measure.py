"""Synthesise, pack and place one block, and count what it takes."""

import json
import tempfile
from pathlib import Path

from amaranth.back import rtlil
from amaranth.lib import wiring

from hwq.emit import SYNTH_PRELUDE
from hwq.errors import ToolError
from hwq.toolchain import find, run, run_yosys

__all__ = ["measure"]

_PARTS = {"up5k": ("u", ["--up5k", "--package", "sg48"]), "hx8k": ("hx", ["--hx8k", "--package", "ct256"])}
_CELLS = {"lc": "ICESTORM_LC", "ebr": "ICESTORM_RAM", "dsp": "ICESTORM_DSP"}


def measure(block: wiring.Component, part: str, *, place: bool = True, seed: int = 1, freq_mhz: float = 60) -> dict:
    """Return ``lut``, ``ff`` (cells of Yosys), ``lc``, ``ebr``, ``dsp`` (packed) and, if it is placed, ``fmax``.

    The block stands alone; the router chooses the pins. ``fmax`` counts paths between registers. None stands for what
    could not be had because the block does not fit, or has too many pins, or was not placed.
    """
    family, arguments = _PARTS[part]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "accel.il").write_text(rtlil.convert(block, name="accel", emit_src=False))
        dsp = "-dsp" if part == "up5k" else ""
        run_yosys(SYNTH_PRELUDE + f"synth_ice40 -device {family} {dsp} -top accel -json accel.json\ntee -o stat.json stat -json\n",
                  folder / "yosys.log", folder)
        text = (folder / "stat.json").read_text()
        cells = json.loads(text[text.index("{"):])["design"]["num_cells_by_type"]
        result = {"lut": cells.get("SB_LUT4", 0), "ff": sum(n for kind, n in cells.items() if kind.startswith("SB_DFF")),
                  "carry": cells.get("SB_CARRY", 0), "lc": None, "ebr": cells.get("SB_RAM40_4K", 0), "dsp": cells.get("SB_MAC16", 0),
                  "fmax": None}
        options = [*arguments, "--json", "accel.json", "--report", "report.json", "--seed", str(seed), "--freq", f"{freq_mhz:g}"]
        log = folder / "nextpnr.log"
        try:
            run(find("nextpnr-ice40"), [*options, *([] if place else ["--pack-only"])], log, folder)
        except ToolError:
            pass                                         # too big, or too slow for the wish: what was packed is in the log
        for line in log.read_text(errors="replace").splitlines():
            for key, cell in _CELLS.items():
                if f"{cell}:" in line:
                    result[key] = int(line.split(f"{cell}:")[1].split("/")[0])
        if (folder / "report.json").exists():
            report = json.loads((folder / "report.json").read_text())
            if report.get("fmax"):
                result["fmax"] = round(min(entry["achieved"] for entry in report["fmax"].values()), 2)
        if result["lc"] is None:
            result["lc"] = _packed(log.read_text(errors="replace"))
        return result


def _packed(log: str) -> int | None:
    """Return the logic cells that the packer counted (LUT only, LUT and FF, FF only, carry only)."""
    counts = [int(line.split("Packed")[0].split()[-1]) for line in log.splitlines() if False]
    for line in log.splitlines():
        if "LCs used as" in line:
            counts.append(int(line.split(":")[-1].split("LCs")[0]))
    return sum(counts) or None
