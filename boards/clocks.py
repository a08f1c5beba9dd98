"""Clock and power-on reset: the one place that differs between a board's design and its PLL-less twin."""

from dataclasses import dataclass
from math import ceil

from amaranth.hdl import ClockDomain, ClockSignal, Const, DomainRenamer, Instance, Module, Signal
from amaranth.lib import io, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Out

from ..errors import FormatError
from .families import ECP5
from .registry import Board
from .uart import uart_divisor

__all__ = ["PllSettings", "pll_settings", "raised_hz", "PowerOnReset", "Ice40Pll", "Ecp5Settings", "ecp5_settings", "Ecp5Pll",
           "DirectClock", "board_pll", "made_hz"]

_PFD = (10e6, 133e6)                                     # Hz: iCE40 LP/HX and UltraPlus family data sheets
_VCO = (533e6, 1066e6)
_OUT = (16e6, 275e6)
_ECP5_PFD, _ECP5_VCO, _ECP5_OUT = (10e6, 400e6), (400e6, 800e6), (3.125e6, 400e6)     # Hz: ECP5 family data sheet
_FILTER = ((17e6, 1), (26e6, 2), (44e6, 3), (66e6, 4), (101e6, 5))   # loop filter by phase detector frequency
_RESET_SECONDS = 15e-6                                   # block RAM reads zeros for about 3 us after configuration


@dataclass(frozen=True)
class PllSettings:
    """Dividers of an iCE40 PLL with simple feedback: ``out = in * (divf + 1) / ((divr + 1) * 2**divq)``."""

    divr: int
    divf: int
    divq: int
    filter_range: int
    hz: float


def pll_settings(in_hz: float, out_hz: float) -> PllSettings:
    """Return the dividers whose frequency is the highest that is not above ``out_hz``.

    Raises
    ------
    FormatError
        The PLL cannot make such a frequency: the output must be 16 to 275 MHz, the input at least 10 MHz, and the
        result within 20 % of the request.
    """
    if not _OUT[0] <= out_hz <= _OUT[1]:
        raise FormatError(f"PLL output must be {_OUT[0] / 1e6:g} to {_OUT[1] / 1e6:g} MHz, not {out_hz / 1e6:g}; "
                          f"the board's own {in_hz / 1e6:g} MHz works without the PLL")
    best = None
    for divr in range(16):
        pfd = in_hz / (divr + 1)
        if not _PFD[0] <= pfd <= _PFD[1]:
            continue
        for divf in range(128):
            vco = pfd * (divf + 1)
            if not _VCO[0] <= vco <= _VCO[1]:
                continue
            for divq in range(1, 7):
                hz = vco / 2 ** divq
                if hz <= out_hz * (1 + 1e-9) and hz >= _OUT[0] and (best is None or hz > best.hz):
                    best = PllSettings(divr, divf, divq, next((r for top, r in _FILTER if pfd < top), 6), hz)
    if best is None or best.hz < 0.8 * out_hz:
        raise FormatError(f"The PLL cannot make {out_hz / 1e6:g} MHz from {in_hz / 1e6:g} MHz: its phase detector takes "
                          "10 to 133 MHz, its oscillator 533 to 1066 MHz")
    return best


@dataclass(frozen=True)
class Ecp5Settings:
    """Dividers of an ECP5 PLL fed back from CLKOP: ``out = in / clki * clkop / clkos``, the oscillator is ``in / clki * clkop``."""

    clki: int
    clkop: int
    clkos: int
    hz: float


def ecp5_settings(in_hz: float, out_hz: float) -> Ecp5Settings:
    """Return the dividers whose frequency is the highest that is not above ``out_hz``.

    Raises
    ------
    FormatError
        The output must be 3.125 to 400 MHz, the input 10 to 400 MHz.
    """
    if not _ECP5_OUT[0] <= out_hz <= _ECP5_OUT[1]:
        raise FormatError(f"PLL output must be {_ECP5_OUT[0] / 1e6:g} to {_ECP5_OUT[1] / 1e6:g} MHz, not {out_hz / 1e6:g}")
    best = None
    for clki in range(1, 129):
        pfd = in_hz / clki
        if not _ECP5_PFD[0] <= pfd <= _ECP5_PFD[1]:
            continue
        for clkop in range(1, 129):
            vco = pfd * clkop
            if not _ECP5_VCO[0] <= vco <= _ECP5_VCO[1]:
                continue
            clkos = max(1, ceil(vco / out_hz * (1 - 1e-9)))
            if clkos <= 128 and _ECP5_OUT[0] <= vco / clkos and (best is None or vco / clkos > best.hz):
                best = Ecp5Settings(clki, clkop, clkos, vco / clkos)
    if best is None or best.hz < 0.8 * out_hz:
        raise FormatError(f"The PLL cannot make {out_hz / 1e6:g} MHz from {in_hz / 1e6:g} MHz: its phase detector takes "
                          "10 to 400 MHz, its oscillator 400 to 800 MHz")
    return best


def made_hz(board: Board, hz: float) -> float:
    """Return the clock that a board makes when ``hz`` is asked for; `FormatError` if its PLL cannot."""
    if hz == board.clock_hz:
        return hz
    return _pll_hz(board, hz)


def _pll_hz(board: Board, hz: float) -> float:
    return (ecp5_settings if board.device.family is ECP5 else pll_settings)(board.clock_hz, hz).hz


def raised_hz(board: Board | None, limit_hz: float, baud: int) -> int | None:
    """Return the highest clock not above a limit that a board's PLL makes and that its link can divide; None: there is none.

    Parameters
    ----------
    board : Board
    limit_hz : float
        What place and route reached.
    baud : int
        Of the link.
    """
    if board is None:
        return None
    top = min(limit_hz, board.device.family.max_mhz * 1e6)
    for hz in (top, *(n * baud for n in range(int(top) // baud, 0, -1))):
        try:
            made = _pll_hz(board, hz)
            uart_divisor(round(made), baud)
        except FormatError:
            continue
        return round(made)
    return None


class PowerOnReset(wiring.Component):
    """Hold a reset for ``cycles`` clocks after configuration, counted while ``run`` is high.

    Runs in the domain "sync" and must not be reset by it: its flip-flops start at zero with the bitstream.

    Parameters
    ----------
    cycles : int
        Clocks, at least 1.

    Members
    -------
    rst : ``Out(1)``
        High until then, straight from a flip-flop, so that it comes early to all that it resets. iCE40 flip-flops start at 0, and
        one that starts at 1 is one behind an inverter: so it is low in the very first cycle, in which all else starts too.
    """

    def __init__(self, *, cycles: int, run=None):
        if cycles < 1:
            raise FormatError(f"Reset cycles must be at least 1, not {cycles!r}")
        self._cycles = cycles
        self._run = Const(1) if run is None else run
        super().__init__({"rst": Out(1)})

    @staticmethod
    def cycles_at(hz: float) -> int:
        """Return the clocks of the reset at a frequency: 15 us."""
        return max(1, round(_RESET_SECONDS * hz))

    def elaborate(self, platform):
        m = Module()
        timer = Signal(range(self._cycles), reset_less=True)
        done = Signal(reset_less=True)                   # starts at 0 with the bitstream, as every iCE40 flip-flop
        m.d.sync += self.rst.eq(~done)
        with m.If(self._run & ~done):
            m.d.sync += [timer.eq(timer + 1), done.eq(timer == self._cycles - 1)]
        return m


class DirectClock(wiring.Component):
    """The pin is the clock: no PLL, so that a bitstream decoder that knows none can read the design.

    Parameters
    ----------
    port : io.PortLike
        The clock's pin.
    in_hz : float
        Its frequency in Hz.

    Members
    -------
    clk : ``Out(1)``, rst : ``Out(1)``
        Clock, and reset synchronous to it.
    """

    def __init__(self, port, *, in_hz: float):
        self._port = port
        self.hz = in_hz
        super().__init__({"clk": Out(1), "rst": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer = buffer = io.Buffer("i", self._port)
        m.d.comb += self.clk.eq(buffer.i)
        _reset(m, self, Const(1))
        return m


class Ice40Pll(wiring.Component):
    """The iCE40's PLL, and a reset until 15 us after it locked.

    Parameters
    ----------
    port : io.PortLike
        The clock's pin.
    in_hz, out_hz : float
        Frequency there, and the one wanted; ``hz`` is the one that comes, never above it.
    pad : bool
        The pin is the PLL's own pad (SB_PLL40_PAD); otherwise its signal goes through the fabric (SB_PLL40_CORE).

    Members
    -------
    clk : ``Out(1)``, rst : ``Out(1)``
        Clock, and reset synchronous to it.

    Raises
    ------
    FormatError
        The PLL cannot make the frequency; see `pll_settings`.
    """

    def __init__(self, port, *, in_hz: float, out_hz: float, pad: bool):
        self._port, self._pad = port, pad
        self.settings = pll_settings(in_hz, out_hz)
        self.hz = self.settings.hz
        super().__init__({"clk": Out(1), "rst": Out(1)})

    def elaborate(self, platform):
        m = Module()
        if self._pad:
            source = ("i", "PACKAGEPIN", self._port.io)
        else:
            m.submodules.buffer = buffer = io.Buffer("i", self._port)
            source = ("i", "REFERENCECLK", buffer.i)
        locked = Signal()
        s = self.settings
        m.submodules.pll = Instance(
            "SB_PLL40_PAD" if self._pad else "SB_PLL40_CORE", source, p_FEEDBACK_PATH="SIMPLE",
            p_DIVR=Const(s.divr, 4), p_DIVF=Const(s.divf, 7), p_DIVQ=Const(s.divq, 3),
            p_FILTER_RANGE=Const(s.filter_range, 3), i_RESETB=Const(1), i_BYPASS=Const(0),
            o_PLLOUTGLOBAL=self.clk, o_LOCK=locked)
        _reset_until_locked(m, self, locked)
        return m


class Ecp5Pll(wiring.Component):
    """The ECP5's PLL, and a reset until 15 us after it locked.

    Parameters
    ----------
    port : io.PortLike
        The clock's pin.
    in_hz, out_hz : float
        Frequency there, and the one wanted; ``hz`` is the one that comes, never above it.

    Members
    -------
    clk : ``Out(1)``, rst : ``Out(1)``
        Clock, and reset synchronous to it.

    Raises
    ------
    FormatError
        The PLL cannot make the frequency; see `ecp5_settings`.
    """

    def __init__(self, port, *, in_hz: float, out_hz: float):
        self._port, self._in_hz = port, in_hz
        self.settings = ecp5_settings(in_hz, out_hz)
        self.hz = self.settings.hz
        super().__init__({"clk": Out(1), "rst": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.buffer = buffer = io.Buffer("i", self._port)
        locked, feedback = Signal(), Signal()
        s = self.settings
        # Only CLKOS leaves the PLL: CLKOP is the feedback, so that the oscillator can be any multiple of the phase detector's.
        m.submodules.pll = Instance(
            "EHXPLLL", ("a", "FREQUENCY_PIN_CLKI", f"{self._in_hz / 1e6:.6f}"), ("a", "FREQUENCY_PIN_CLKOS", f"{s.hz / 1e6:.6f}"),
            ("a", "ICP_CURRENT", "12"), ("a", "LPF_RESISTOR", "8"), ("a", "MFG_ENABLE_FILTEROPAMP", "1"),
            ("a", "MFG_GMCREF_SEL", "2"), p_FEEDBK_PATH="CLKOP", p_CLKI_DIV=s.clki, p_CLKFB_DIV=1, p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_DIV=s.clkop, p_CLKOP_CPHASE=s.clkop - 1, p_CLKOP_FPHASE=0, p_CLKOS_ENABLE="ENABLED", p_CLKOS_DIV=s.clkos,
            p_CLKOS_CPHASE=s.clkos - 1, p_CLKOS_FPHASE=0,
            i_CLKI=buffer.i, i_CLKFB=feedback, i_RST=Const(0), i_STDBY=Const(0), i_PHASESEL0=Const(0), i_PHASESEL1=Const(0),
            i_PHASEDIR=Const(0), i_PHASESTEP=Const(0), i_PHASELOADREG=Const(0), i_PLLWAKESYNC=Const(0), i_ENCLKOP=Const(0),
            i_ENCLKOS=Const(0), o_CLKOP=feedback, o_CLKOS=self.clk, o_LOCK=locked)
        _reset_until_locked(m, self, locked)
        return m


def board_pll(board: Board, port, out_hz: float) -> Ice40Pll | Ecp5Pll:
    """Return the PLL of a board's family between the crystal's pin and the design."""
    if board.device.family is ECP5:
        return Ecp5Pll(port, in_hz=board.clock_hz, out_hz=out_hz)
    return Ice40Pll(port, in_hz=board.clock_hz, out_hz=out_hz, pad=board.pll_pad)


def _reset_until_locked(m: Module, component, locked: Signal) -> None:
    """Add the reset of a PLL: ``locked`` comes from outside of its clock."""
    lock = Signal()
    m.domains += ClockDomain("pll", reset_less=True, local=True)
    m.d.comb += ClockSignal("pll").eq(component.clk)
    m.submodules.lock = FFSynchronizer(locked, lock, o_domain="pll")
    _reset(m, component, lock)


def _reset(m: Module, component, run) -> None:
    """Add the reset of a component with members ``clk`` and ``rst``, in a domain of its own that nothing resets."""
    m.domains += ClockDomain("por", reset_less=True, local=True)
    m.d.comb += ClockSignal("por").eq(component.clk)
    reset = PowerOnReset(cycles=PowerOnReset.cycles_at(component.hz), run=run)
    m.submodules.reset = DomainRenamer("por")(reset)
    m.d.comb += component.rst.eq(reset.rst)
