# amaranth: UnusedElaboratable=no
"""Receiver and transmitter, bit by bit."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hwq.boards.uart import UartRx, UartTx, uart_divisor
from hwq.errors import FormatError


class Loop(wiring.Component):
    i: In(8)
    start: In(1)
    busy: Out(1)
    o: Out(8)
    valid: Out(1)

    def __init__(self, divisor):
        self.tx, self.rx = UartTx(divisor=divisor), UartRx(divisor=divisor)
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.tx, m.submodules.rx = tx, rx = self.tx, self.rx
        m.d.comb += [tx.i.payload.eq(self.i), tx.i.valid.eq(self.start), self.busy.eq(~tx.i.ready),
                     rx.rx.eq(tx.tx), self.o.eq(rx.o.payload), self.valid.eq(rx.o.valid), rx.o.ready.eq(1)]
        return m


@pytest.mark.parametrize("divisor", [4, 5, 8, 13])
def test_loop_back_to_back(divisor):
    dut = Loop(divisor)
    data, got = [0x00, 0xFF, 0x55, 0xC0, 0x01, 0x80], []

    async def bench(ctx):
        ctx.set(dut.start, 1)
        at = 0
        for _ in range(len(data) * divisor * 12):
            ctx.set(dut.i, data[min(at, len(data) - 1)])
            ctx.set(dut.start, at < len(data))
            if not ctx.get(dut.busy) and at < len(data):
                at += 1
            if ctx.get(dut.valid):
                got.append(ctx.get(dut.o))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert got == data


def receive(bits, divisor=8, take=True):
    """Return what a receiver makes of line levels, one a bit: bytes, framing errors, overruns."""
    dut = UartRx(divisor=divisor)
    got, faults = [], [0, 0]

    async def bench(ctx):
        ctx.set(dut.o.ready, take)
        for level in [1, 1, *bits, 1, 1, 1]:
            ctx.set(dut.rx, level)
            for _ in range(divisor):
                if ctx.get(dut.o.valid) and take:
                    got.append(ctx.get(dut.o.payload))
                faults[0] += ctx.get(dut.framing)
                faults[1] += ctx.get(dut.overrun)
                await ctx.tick()
        if not take:
            got.append(ctx.get(dut.o.payload))

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return got, *faults


def frame(byte, stop=1):
    return [0, *(byte >> k & 1 for k in range(8)), stop]


def test_stop_bit_missing_drops_the_byte():
    assert receive(frame(0x41) + frame(0x42, stop=0) + [1] + frame(0x43)) == ([0x41, 0x43], 1, 0)


def test_a_break_is_one_fault():
    assert receive([0] * 40 + [1] + frame(0x43)) == ([0x43], 1, 0)


def test_a_byte_not_taken_is_kept_and_the_next_lost():
    assert receive(frame(0x41) + frame(0x42), take=False) == ([0x41], 0, 1)


def test_divisor():
    assert uart_divisor(48e6, 1e6) == 48
    assert uart_divisor(12e6, 115200) == 104


@pytest.mark.parametrize("clock, baud, text", [
    (12e6, 4e6, r"Baud rate must be at most a 4th of the clock \(3000000 baud at 12 MHz\), not 4e\+06"),
    (12e6, 2.2e6, r"Baud rate 2.2e\+06 is off by more than 2 % at a clock of 12 MHz: the nearest are 2000000, 2400000 and"),
    (0, 9600, "Clock and baud rate must be positive, not 0 Hz and 9600 baud"),
])
def test_divisor_refuses(clock, baud, text):
    with pytest.raises(FormatError, match="^" + text):
        uart_divisor(clock, baud)


@pytest.mark.parametrize("block", [UartRx, UartTx])
@pytest.mark.parametrize("divisor", [3, 4.0])
def test_constructor_refuses(block, divisor):
    with pytest.raises(FormatError, match=f"^UART divisor must be an integer of at least 4, not {divisor!r}"):
        block(divisor=divisor)
