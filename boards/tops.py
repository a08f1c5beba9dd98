"""Tops: clock, shell and the core as a black box. The core is synthesised alone and linked as a netlist (`link_script`),
so that the netlist that was verified is the one that is placed."""

import warnings

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Elaboratable, Instance, Module, ResetSignal
from amaranth.lib import io, wiring
from amaranth.lib.wiring import In, Out

from hwq.rtl.rtlil import rtlil_text, without_brackets

from .clocks import DirectClock, PowerOnReset, board_pll
from .registry import Board
from .shell import Shell, core_ports

__all__ = ["PlainTop", "board_files", "device_files", "accel_blackbox", "CORE"]

CORE = "accel"                                           # module name of the core


def _add_core(m: Module, shell: Shell) -> None:
    """Join the shell to an instance of the core."""
    ports: dict[str, object] = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
    for name, (way, _) in core_ports(shell.identity.in_bytes, shell.identity.out_bytes).items():
        ports[f"{way}_{name}"] = getattr(shell, name)
    m.submodules.core = Instance(CORE, **ports)


def accel_blackbox(in_bytes: int, out_bytes: int) -> str:
    """Return RTLIL that declares the core as a black box: Yosys refuses instances of modules it has not seen."""
    ports = {"clk": ("i", 1), "rst": ("i", 1), **core_ports(in_bytes, out_bytes)}
    wires = [f"  wire width {width} {'input' if way == 'i' else 'output'} {at} \\{name}"
             for at, (name, (way, width)) in enumerate(ports.items(), 1)]
    return "\n".join(["attribute \\blackbox 1", f"module \\{CORE}", *wires, "end", ""])


class PlainTop(wiring.Component):
    """Shell and core with plain ports: for simulation, and for devices without a board.

    The top that is simulated and the one that is built are the same: it has a power-on reset of 15 us and no PLL.

    Parameters
    ----------
    **shell
        Parameters of `Shell`.

    Members
    -------
    rx : ``In(1)``, tx : ``Out(1)``
        The line. The ports of the module are ``clk``, ``rx`` and ``tx``.
    """

    def __init__(self, **shell):
        self._shell = Shell(**shell)
        self._cycles = PowerOnReset.cycles_at(self._shell.identity.clock_hz)
        super().__init__({"clk": In(1), "rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        for domain in (ClockDomain("sync"), ClockDomain("por", reset_less=True, local=True)):
            domain.clk = self.clk
            m.domains += domain
        reset = PowerOnReset(cycles=self._cycles)
        m.submodules.reset = DomainRenamer("por")(reset)
        m.submodules.shell = shell = self._shell
        m.d.comb += [ResetSignal().eq(reset.rst), shell.rx.eq(self.rx), self.tx.eq(shell.tx)]
        _add_core(m, shell)
        return m


class _BoardTop(Elaboratable):
    """Clock, shell and core on a board's pins."""

    def __init__(self, board: Board, freq_hz: float, shell: dict):
        self._board, self._freq, self._parameters = board, freq_hz, shell

    def elaborate(self, platform):
        m = Module()
        board = self._board
        pin = platform.request(board.clock, dir="-")
        clocks = DirectClock(pin, in_hz=board.clock_hz) if self._freq == board.clock_hz else board_pll(board, pin, self._freq)
        self.hz = round(clocks.hz)
        m.submodules.clocks = clocks
        m.domains += ClockDomain("sync")
        m.d.comb += [ClockSignal().eq(clocks.clk), ResetSignal().eq(clocks.rst)]

        uart = platform.request("uart", 0, dir={"rx": "-", "tx": "-", **_unused(platform)})
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        for name in board.hold_high:
            high = io.Buffer("o", platform.request(name, dir="-"))
            m.submodules[name] = high
            m.d.comb += high.o.eq(1)
        m.submodules.shell = shell = Shell(clock_hz=self.hz, **self._parameters)
        m.d.comb += [shell.rx.eq(rx.i), tx.o.eq(shell.tx)]
        _add_core(m, shell)
        return m


def _unused(platform) -> dict[str, str]:
    """Return "-" for the handshake lines a board's UART may have: they get no buffer, hence no pin."""
    names = {sub.name for sub in platform.lookup("uart", 0).ios}
    return {name: "-" for name in names - {"rx", "tx"}}


def board_files(board: Board, freq_hz: float, **shell) -> tuple[str, str, int]:
    """Make a board's top.

    Parameters
    ----------
    board : Board
        See `registry`.
    freq_hz : float
        Clock wanted for the core. The crystal's own frequency means no PLL: the twin that a bitstream decoder can read.
    **shell
        Parameters of `Shell` without ``clock_hz``, which follows from the clock.

    Returns
    -------
    tuple of str, str, int
        RTLIL of the module ``top`` with the black box of the core; pin constraints (.pcf or .lpf); actual clock in Hz, never
        above ``freq_hz``.

    Raises
    ------
    FormatError
        A frequency the PLL cannot make, or a parameter the shell refuses.
    """
    platform = board.platform()
    top = _BoardTop(board, freq_hz, shell)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        plan = platform.build(top, do_build=False, emit_src=False)

    def text(name: str) -> str:
        content = plan.files[name]
        return content.decode() if isinstance(content, bytes) else content

    rtlil = without_brackets(text("top.il")) + "\n" + accel_blackbox(shell["in_bytes"], shell["out_bytes"])
    return rtlil, text(f"top.{board.device.family.pins}") + "\n", top.hz


def device_files(**shell) -> str:
    """Return the RTLIL of `PlainTop` as module ``top`` with the black box of the core; parameters of `Shell`."""
    text = rtlil_text(PlainTop(**shell), "top")
    return text + "\n" + accel_blackbox(shell["in_bytes"], shell["out_bytes"])
