"""Devices and boards by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import FormatError
from .families import ECP5, ICE40, Family

__all__ = ["Device", "Board", "DEVICES", "BOARDS", "DEFAULT_BAUD", "find_device", "find_board"]

DEFAULT_BAUD = 1_000_000                                 # exact on every FTDI chip (12 MHz / 12) and at 12, 24, 48 MHz


@dataclass(frozen=True)
class Device:
    """An FPGA.

    Attributes
    ----------
    name : str
        Name on the command line.
    yosys_device : str
        ``synth_ice40 -device``; empty where Yosys asks for none.
    nextpnr : tuple of str
        Options that name part and package.
    family : Family
    """

    name: str
    yosys_device: str
    nextpnr: tuple[str, ...]
    family: Family = ICE40


@dataclass(frozen=True)
class Board:
    """A board with a UART to the host.

    Attributes
    ----------
    name : str
        Name on the command line.
    device : Device
        Its FPGA.
    platform : callable
        Makes the amaranth-boards platform; imports it only then.
    clock : str
        Resource of the crystal, ``clock_hz`` its frequency.
    pll_pad : bool
        The crystal's pin is the PLL's pad.
    hold_high : tuple of str
        Output resources that must stay high.
    note : str
        What the user has to do to the board, or empty.
    """

    name: str
    device: Device
    platform: Callable[[], Any]
    clock: str = "clk12"
    clock_hz: int = 12_000_000
    pll_pad: bool = False
    hold_high: tuple[str, ...] = ()
    note: str = ""


def _icebreaker():
    from amaranth_boards.icebreaker import ICEBreakerPlatform
    return ICEBreakerPlatform()


def _upduino():
    """amaranth-boards knows no UART here. FPGA pin 14 drives the FTDI chip's RXD, pin 15 hears its TXD.

    Both are also the flash's data and clock, so its chip select (pin 16) is held high, or it would answer.
    """
    from amaranth.build import Attrs, Pins, Resource
    from amaranth_boards.resources import UARTResource
    from amaranth_boards.upduino_v3 import UpduinoV3Platform
    platform = UpduinoV3Platform()
    platform.add_resources([
        UARTResource(0, rx="15", tx="14", attrs=Attrs(IO_STANDARD="SB_LVCMOS")),
        Resource("flash_cs", 0, Pins("16", dir="o"), Attrs(IO_STANDARD="SB_LVCMOS")),
    ])
    return platform


def _hx8k():
    from amaranth_boards.ice40_hx8k_b_evn import ICE40HX8KBEVNPlatform
    return ICE40HX8KBEVNPlatform()


def _ulx3s(size: str):
    def make():
        from amaranth_boards import ulx3s
        return getattr(ulx3s, f"ULX3S_{size.upper()}_Platform")()
    return make


# nextpnr's option, the speed grade of the ULX3S: the slowest.
_ECP5 = {"12f": "--12k", "25f": "--25k", "45f": "--45k", "85f": "--85k"}

DEVICES = {device.name: device for device in (
    Device("up5k", "u", ("--up5k", "--package", "sg48")),
    Device("hx8k", "hx", ("--hx8k", "--package", "ct256")),
    *(Device(f"ecp5-{size}", "", (option, "--package", "CABGA381", "--speed", "6"), ECP5) for size, option in _ECP5.items()),
)}

BOARDS = {board.name: board for board in (
    Board("icebreaker", DEVICES["up5k"], _icebreaker, pll_pad=True),
    # The UltraPlus' own oscillator (SB_HFOSC) needs no jumper but is off by up to 10 %: too much for a UART.
    Board("upduino", DEVICES["up5k"], _upduino, hold_high=("flash_cs",),
          note="Close the OSC jumper: it brings the 12 MHz crystal to pin 20 (gpio_20)."),
    Board("hx8k", DEVICES["hx8k"], _hx8k),
    # The board comes with four sizes of FPGA; another size's bitstream is refused by the FPGA.
    Board("ulx3s", DEVICES["ecp5-85f"], _ulx3s("85f"), clock="clk25", clock_hz=25_000_000),
    *(Board(f"ulx3s-{size}", DEVICES[f"ecp5-{size}"], _ulx3s(size), clock="clk25", clock_hz=25_000_000) for size in _ECP5),
)}


def find_device(name: str) -> Device:
    """Return a device by name; raise `FormatError` with the list if there is none."""
    if name not in DEVICES:
        raise FormatError(f"Device must be one of {', '.join(DEVICES)}, not {name!r}")
    return DEVICES[name]


def find_board(name: str) -> Board:
    """Return a board by name; raise `FormatError` with the list if there is none."""
    if name not in BOARDS:
        raise FormatError(f"Board must be one of {', '.join(BOARDS)}, not {name!r}")
    return BOARDS[name]
