"""From RTLIL to a bitstream: the lines of Yosys and nextpnr, as text. The build stage runs them.

Three steps, so that the core's netlist that was simulated is the one that is placed::

    synthesize_core_lines   accel.il (RTLIL)              -> accel.syn.il (netlist)
    synthesize_top_lines    top.il with the black box     -> top.syn.il (netlist, the core still a black box)
    link_lines              top.syn.il + accel.syn.il     -> top.json (flat)

No optimisation crosses the core's border in the last step; only what nothing reads is removed. Tools that run as
WebAssembly see the working folder alone: give relative file names and run them there.
"""

from .registry import Device

__all__ = ["synthesize_core_lines", "synthesize_top_lines", "link_lines", "nextpnr_arguments", "icepack_arguments"]


def synthesize_core_lines(device: Device, source: str = "accel.il", result: str = "accel.syn.il",
                          options: str = "") -> list[str]:
    """Return the Yosys lines that synthesise the core alone; ``options`` go to ``synth_ice40`` (such as ``-dsp``)."""
    return [f"read_rtlil {source}", f"synth_ice40 -device {device.yosys_device} {options} -top accel".replace("  ", " "),
            "check -assert", "select -module accel", f"write_rtlil -selected {result}"]


def synthesize_top_lines(device: Device, source: str = "top.il", result: str = "top.syn.il") -> list[str]:
    """Return the Yosys lines that synthesise clock, shell and pins around the black box of the core."""
    return [f"read_rtlil {source}", f"synth_ice40 -device {device.yosys_device} -top top",
            "select -module top", f"write_rtlil -selected {result}"]


def link_lines(top: str = "top.syn.il", core: str = "accel.syn.il", result: str = "top.json") -> list[str]:
    """Return the Yosys lines that put the core's netlist in place of the black box and write nextpnr's input.

    Both files hold one module each; the primitives come from Yosys' own library.
    """
    return ["read_verilog -nowb -lib +/ice40/cells_sim.v", f"read_rtlil {top}", f"read_rtlil {core}",
            "hierarchy -check -top top", "flatten", "opt_clean -purge", "check -assert",
            "stat", "blackbox =A:whitebox", f"write_json {result}"]


def nextpnr_arguments(device: Device, freq_hz: float, *, json: str = "top.json", pcf: str | None = "top.pcf",
                      asc: str = "top.asc", report: str = "report.json", seed: int = 1) -> list[str]:
    """Return nextpnr-ice40's arguments; without ``pcf`` no bitstream text is written, for the pins are the router's."""
    pins = ["--pcf", pcf, "--asc", asc] if pcf else []
    return [*device.nextpnr, "--json", json, *pins, "--report", report, "--freq", f"{freq_hz / 1e6:.6g}",
            "--seed", str(seed)]


def icepack_arguments(asc: str = "top.asc", result: str = "top.bin") -> list[str]:
    """Return icepack's arguments."""
    return [asc, result]
