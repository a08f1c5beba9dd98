"""From RTLIL to a bitstream: the lines of Yosys and nextpnr, as text. The build stage runs them.

Three steps, so that the core's netlist that was simulated is the one that is placed::

    synthesize_core_lines   accel.il (RTLIL)              -> accel.syn.il (netlist)
    synthesize_top_lines    top.il with the black box     -> top.syn.il (netlist, the core still a black box)
    link_lines              top.syn.il + accel.syn.il     -> top.json (flat)

No optimisation crosses the core's border in the last step; only what nothing reads is removed. Tools that run as
WebAssembly see the working folder alone: give relative file names and run them there.
"""

from .registry import Device

__all__ = ["synthesis_lines", "synthesize_core_lines", "synthesize_top_lines", "link_lines", "nextpnr_arguments", "pack_arguments"]


def synthesis_lines(device: Device, top: str, options: str = "") -> list[str]:
    """Return the Yosys lines that synthesise the module ``top``."""
    family = device.family
    words = [family.synth.format(device=device.yosys_device), options, f"-top {top}"]
    return [*family.prepare.splitlines(), " ".join(word for word in words if word), *family.finish.splitlines()]


def synthesize_core_lines(device: Device, source: str = "accel.il", result: str = "accel.syn.il",
                          options: str = "") -> list[str]:
    """Return the Yosys lines that synthesise the core alone; ``options`` go to the family's synthesis (such as ``-dsp``)."""
    return [f"read_rtlil {source}", *synthesis_lines(device, "accel", options), "check -assert",
            "select -module accel", f"write_rtlil -selected {result}"]


def synthesize_top_lines(device: Device, source: str = "top.il", result: str = "top.syn.il") -> list[str]:
    """Return the Yosys lines that synthesise clock, shell and pins around the black box of the core."""
    return [f"read_rtlil {source}", *synthesis_lines(device, "top"),
            "select -module top", f"write_rtlil -selected {result}"]


def link_lines(device: Device, top: str = "top.syn.il", core: str = "accel.syn.il", result: str = "top.json") -> list[str]:
    """Return the Yosys lines that put the core's netlist in place of the black box and write nextpnr's input.

    Both files hold one module each; the primitives come from Yosys' own library.
    """
    return [f"read_verilog -nowb -lib {device.family.library}", f"read_rtlil {top}", f"read_rtlil {core}",
            "hierarchy -check -top top", "flatten", "opt_clean -purge", "check -assert",
            "stat", "blackbox =A:whitebox", f"write_json {result}"]


def nextpnr_arguments(device: Device, freq_hz: float, *, json: str = "top.json", pins: bool = True,
                      config: str | None = None, report: str = "report.json", seed: int = 1) -> list[str]:
    """Return nextpnr's arguments; without ``pins`` no bitstream text is written, for the pins are the router's."""
    family = device.family
    pinned = (f"--{family.pins}", f"top.{family.pins}", family.config_option, config or f"top.{family.config}")
    return [*device.nextpnr, "--json", json, *(pinned if pins else family.unpinned), "--report", report, "--freq",
            f"{freq_hz / 1e6:.6g}", "--seed", str(seed)]


def pack_arguments(device: Device, result: str = "top.bin") -> list[str]:
    """Return the arguments of the tool that packs."""
    return [word.format(source=f"top.{device.family.config}", result=result) for word in device.family.pack_words.split()]
