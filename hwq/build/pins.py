"""Pin constraints that a user gives for a bare device."""

import json
import re
from pathlib import Path

from hwq.boards.registry import Device

from ..errors import FormatError, ToolError
from ..toolchain import run

__all__ = ["read_pcf", "check_pins", "unknown_pin", "PORTS"]

PORTS = ("clk", "rx", "tx")                              # of the top that a bare device gets
_SWITCHES = {"-nowarn": 0, "--warn-no-port": 0, "-pullup": 1, "-pullup_resistor": 1}


def read_pcf(path: str | Path) -> str:
    """Return a ``.pcf`` file's text after a check that it gives each port one pin, and nothing else.

    Raises
    ------
    FormatError
        The file cannot be read; a line is malformed; a port is unknown, missing, or has two pins; two ports share one.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise FormatError(f"Cannot read the pins in {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FormatError(f"{path} is no text file; a .pcf file has lines such as 'set_io clk 35'") from None
    pins: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words or words[0] == "set_frequency":
            continue
        at = f"{path}, line {number}"
        if words[0] != "set_io":
            raise FormatError(f"{at}: {words[0]!r} is unknown; accepted: set_io [-pullup yes] PORT PIN, set_frequency NET MHZ")
        rest = words[1:]
        while rest and rest[0].startswith("-"):
            if rest[0] not in _SWITCHES:
                raise FormatError(f"{at}: option {rest[0]!r} is unknown; accepted: {', '.join(_SWITCHES)}")
            rest = rest[1 + _SWITCHES[rest[0]]:]
        if len(rest) != 2:
            raise FormatError(f"{at}: set_io must have a port and a pin, not {' '.join(rest) or 'nothing'!r}")
        port, pin = rest
        if port not in PORTS:
            raise FormatError(f"{at}: port {port!r} is unknown; the design has {', '.join(PORTS)}")
        if port in pins:
            raise FormatError(f"{at}: port {port!r} has a pin already, {pins[port]}")
        if pin in pins.values():
            raise FormatError(f"{at}: pin {pin} is taken by {next(name for name, at_pin in pins.items() if at_pin == pin)!r}")
        pins[port] = pin
    missing = [port for port in PORTS if port not in pins]
    if missing:
        raise FormatError(f"{path} gives no pin for {', '.join(missing)}; add a line such as 'set_io {missing[0]} PIN'")
    return text


def unknown_pin(log: str, device: str) -> FormatError | None:
    """Return the error that nextpnr's log tells of a pin that the package of ``device`` lacks; None if it tells of none."""
    pin = re.search(r"package does not have a pin named '?([^'\s]+)", log)
    return FormatError(f"The package of {device} has no pin {pin[1]!r}. Correct the .pcf file.") if pin else None


def check_pins(part: Device, pcf: str, work: Path) -> None:
    """Ask the placer, which knows the package, whether it has the pins; on wires alone, in half a second.

    Raises
    ------
    FormatError
        A pin is missing.
    ToolError, EnvironmentError_
        See `hwq.toolchain.run`.
    """
    folder = work / "pins"
    folder.mkdir()
    bits = {"clk": 2, "rx": 3, "tx": 3}
    ports = {name: {"direction": "output" if name == "tx" else "input", "bits": [bit]} for name, bit in bits.items()}
    nets = {name: {"bits": [bit], "attributes": {}} for name, bit in bits.items()}
    top = {"attributes": {"top": "1"}, "ports": ports, "cells": {}, "netnames": nets}
    (folder / "top.json").write_text(json.dumps({"creator": "hwq", "modules": {"top": top}}))
    (folder / "top.pcf").write_text(pcf)
    log = folder / "nextpnr.log"
    try:
        run(part.family.nextpnr, [*part.nextpnr, "--json", "top.json", "--pcf", "top.pcf", "--pack-only"], log, folder)
    except ToolError as error:
        raise unknown_pin(log.read_text(errors="replace"), part.name) or error from None
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
