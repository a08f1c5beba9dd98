"""UART receiver and transmitter: 8 data bits, no parity, one stop bit, least significant bit first."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

from ..errors import FormatError

__all__ = ["UartRx", "UartTx", "uart_divisor", "MIN_DIVISOR"]

MIN_DIVISOR = 4                                          # fewer clocks a bit cannot find the bit's middle
_TOLERANCE = 0.02                                        # of the baud rate; both sides together may be off by about 4 %


def uart_divisor(clock_hz: float, baud: float) -> int:
    """Return the clocks a bit, rounded.

    Raises
    ------
    FormatError
        The baud rate is out of reach: under 4 clocks a bit, or off by more than 2 %.
    """
    if clock_hz <= 0 or baud <= 0:
        raise FormatError(f"Clock and baud rate must be positive, not {clock_hz!r} Hz and {baud!r} baud")
    divisor = round(clock_hz / baud)
    if divisor < MIN_DIVISOR:
        raise FormatError(f"Baud rate must be at most a {MIN_DIVISOR}th of the clock ({clock_hz / MIN_DIVISOR:.0f} baud "
                          f"at {clock_hz / 1e6:g} MHz), not {baud:g}")
    actual = clock_hz / divisor
    if abs(actual / baud - 1) > _TOLERANCE:
        raise FormatError(f"Baud rate {baud:g} is off by more than 2 % at a clock of {clock_hz / 1e6:g} MHz: the nearest "
                          f"are {clock_hz / (divisor + 1):.0f}, {actual:.0f} and {clock_hz / (divisor - 1):.0f}")
    return divisor


def _check_divisor(divisor: int) -> None:
    if not isinstance(divisor, int) or divisor < MIN_DIVISOR:
        raise FormatError(f"UART divisor must be an integer of at least {MIN_DIVISOR}, not {divisor!r}")


class UartRx(wiring.Component):
    """Receive bytes.

    A start bit is accepted if the line is still low in its middle. A byte without a stop bit is dropped, and nothing is
    received until the line was high again. A byte that comes while the last one was not taken is dropped too.

    Parameters
    ----------
    divisor : int
        Clocks a bit, at least 4.

    Members
    -------
    rx : ``In(1)``
        The line, asynchronous: two flip-flops follow.
    o : ``Out(stream.Signature(8))``
        Bytes, valid from the middle of the stop bit.
    framing : ``Out(1)``
        One clock long: a byte without a stop bit was dropped.
    overrun : ``Out(1)``
        One clock long: a byte was dropped because ``o`` was full.

    Raises
    ------
    FormatError
        The divisor is too small.
    """

    def __init__(self, *, divisor: int):
        _check_divisor(divisor)
        self._divisor = divisor
        super().__init__({"rx": In(1, init=1), "o": Out(stream.Signature(8)), "framing": Out(1), "overrun": Out(1)})

    def elaborate(self, platform):
        m = Module()
        line = Signal(init=1)
        m.submodules.sync = FFSynchronizer(self.rx, line, init=1)

        timer = Signal(range(self._divisor))
        tick = Signal()                                  # registered: the middle of a bit
        shift = Signal(9)                                # a one runs ahead of the data and ends in bit 0
        m.d.sync += [tick.eq(timer == 1), timer.eq(timer - 1), self.framing.eq(0), self.overrun.eq(0)]
        with m.If(timer == 0):
            m.d.sync += timer.eq(self._divisor - 1)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += tick.eq(0)
                with m.If(~line):
                    m.d.sync += timer.eq(self._divisor // 2 - 1)
                    m.next = "START"
            with m.State("START"):
                m.d.sync += shift.eq(0x100)
                with m.If(line):                         # a spike
                    m.next = "IDLE"
                with m.Elif(tick):
                    m.next = "DATA"
            with m.State("DATA"):
                with m.If(tick):
                    with m.If(shift[0]):                 # this is the stop bit
                        m.d.sync += self.framing.eq(~line)
                        with m.If(line):
                            m.next = "DELIVER"
                        with m.Else():
                            m.next = "BREAK"
                    with m.Else():
                        m.d.sync += shift.eq(Cat(shift[1:], line))
            with m.State("DELIVER"):
                with m.If(self.o.valid & ~self.o.ready):
                    m.d.sync += self.overrun.eq(1)
                with m.Else():
                    m.d.sync += [self.o.payload.eq(shift[1:]), self.o.valid.eq(1)]
                m.next = "IDLE"
            with m.State("BREAK"):
                with m.If(line):
                    m.next = "IDLE"
        return m


class UartTx(wiring.Component):
    """Send bytes; ten bit times each.

    Parameters
    ----------
    divisor : int
        Clocks a bit, at least 4.

    Members
    -------
    i : ``In(stream.Signature(8))``
        Bytes.
    tx : ``Out(1)``
        The line, from a flip-flop; high when idle.

    Raises
    ------
    FormatError
        The divisor is too small.
    """

    def __init__(self, *, divisor: int):
        _check_divisor(divisor)
        self._divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        timer = Signal(range(self._divisor))
        tick = Signal()
        busy = Signal()
        shift = Signal(9)                                # data and stop bit; zeros follow
        m.d.comb += self.i.ready.eq(~busy)
        m.d.sync += [tick.eq(timer == 1), timer.eq(timer - 1)]
        with m.If(timer == 0):
            m.d.sync += timer.eq(self._divisor - 1)
        with m.If(~busy):
            with m.If(self.i.valid):
                m.d.sync += [self.tx.eq(0), shift.eq(Cat(self.i.payload, 1)), busy.eq(1),
                             timer.eq(self._divisor - 1), tick.eq(0)]
        with m.Elif(tick):
            m.d.sync += [self.tx.eq(shift[0] | (shift == 0)), shift.eq(shift >> 1), busy.eq(shift != 0)]
        return m
