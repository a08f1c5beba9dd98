"""What the devices hold. Block shapes and primitives live in `hwq.rtl.common.Technology`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hwq.rtl.common import ECP5, GENERIC, ICE40, ICE40UP, Cost, Technology

from ..errors import FitError, FormatError
from ..ir.graph import Graph

__all__ = ["Device", "DEVICES", "device", "SHELL", "fewer_bits", "hinting"]

# What the board shell (UART link, identify, CRC) takes; measured, see docs/benchmarks.md.
SHELL = Cost(lc=420, ebr=0, dsp=0)


@dataclass(frozen=True)
class Device:
    """An FPGA as the planner sees it.

    Attributes
    ----------
    name : str
        Name on the command line.
    technology : Technology
        Its memories and multipliers.
    lc, ebr, spram, dsp : int
        Logic cells (ECP5: look-up tables), block RAMs of the technology, 256 kbit RAMs, multiplier blocks; 0 for the generic target
        means no limit.
    package : str
        Package the build places for.
    usable : float
        Share of the logic cells that a plan may fill by its estimate: beyond, placement gets slow or does not end, and the clock
        drops.
    """

    name: str
    technology: Technology
    lc: int = 0
    ebr: int = 0
    spram: int = 0
    dsp: int = 0
    package: str = ""
    usable: float = 0.9


def _ecp5(name: str, lc: int, ebr: int, dsp: int) -> Device:
    # Estimates are up to 9 % low there: a plan of 90 % packed into 98 %, and nextpnr did not end.
    return Device(name, ECP5, lc=lc, ebr=ebr, dsp=dsp, package="CABGA381", usable=0.75)


DEVICES = {d.name: d for d in (
    # A plan of 88 % packed into 91 %, and nextpnr's placer did not end.
    Device("up5k", ICE40UP, lc=5280, ebr=30, spram=4, dsp=8, package="sg48", usable=0.87),
    Device("hx8k", ICE40, lc=7680, ebr=32, package="ct256"),
    # The data sheet's; of the 12F, which is a 25F inside, the tools let more be used.
    _ecp5("ecp5-12f", lc=12_096, ebr=32, dsp=28),
    _ecp5("ecp5-25f", lc=24_288, ebr=56, dsp=28),
    _ecp5("ecp5-45f", lc=43_848, ebr=108, dsp=72),
    _ecp5("ecp5-85f", lc=83_640, ebr=208, dsp=156),
    Device("generic", GENERIC),
)}


def device(name: str) -> Device:
    """Return the device of that name, or raise `FormatError` with the list."""
    if name not in DEVICES:
        raise FormatError(f"Unknown device {name!r}; known: {', '.join(DEVICES)}")
    return DEVICES[name]


def fewer_bits(graph: Graph, device: Device) -> str:
    """Return what to type so that a network that does not fit gets fewer bits a weight."""
    return (f"hwq search {graph.factory or 'PACKAGE.MODULE:FUNCTION'} --cost {device.name} -o search, with the --data and --config "
            "of its training, looks for the bits that make it fit.")


@contextmanager
def hinting(graph: Graph, device: Device, more: str = "") -> Iterator[None]:
    """Add ``more`` and `fewer_bits` to a `FitError` from inside; its subclasses, which fewer bits do not help, pass."""
    try:
        yield
    except FitError as error:
        if type(error) is not FitError:
            raise
        raise FitError(f"{error}{more} {fewer_bits(graph, device)}") from None
