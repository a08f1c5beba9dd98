# amaranth: UnusedElaboratable=no
"""PLL dividers and the power-on reset."""

import pytest
from amaranth.sim import Simulator

from hwq.boards.clocks import PowerOnReset, ecp5_settings, made_hz, pll_settings, raised_hz
from hwq.boards.registry import BOARDS
from hwq.boards.uart import uart_divisor
from hwq.errors import FormatError


@pytest.mark.parametrize("out_mhz, divf, divq, actual_mhz", [
    (48, 63, 4, 48), (24, 63, 5, 24), (60, 79, 4, 60), (50, 65, 4, 49.5), (275, 44, 1, 270),
])
def test_known_dividers(out_mhz, divf, divq, actual_mhz):
    s = pll_settings(12e6, out_mhz * 1e6)
    assert (s.divr, s.divf, s.divq, s.filter_range, s.hz / 1e6) == (0, divf, divq, 1, actual_mhz)


@pytest.mark.parametrize("in_mhz", [10, 12, 16, 25, 48, 100])
def test_limits_hold_everywhere(in_mhz):
    for out_mhz in range(17, 276, 7):
        s = pll_settings(in_mhz * 1e6, out_mhz * 1e6)
        pfd = in_mhz / (s.divr + 1)
        vco = pfd * (s.divf + 1)
        assert 10 <= pfd <= 133 and 533 <= vco <= 1066
        assert s.hz == pytest.approx(vco / 2 ** s.divq * 1e6) and 0.8 * out_mhz * 1e6 <= s.hz <= out_mhz * 1e6 + 1


@pytest.mark.parametrize("in_hz, out_hz, text", [
    (12e6, 15e6, "PLL output must be 16 to 275 MHz, not 15; the board's own 12 MHz works without the PLL"),
    (12e6, 300e6, "PLL output must be 16 to 275 MHz, not 300"),
    (6e6, 48e6, "The PLL cannot make 48 MHz from 6 MHz: its phase detector takes 10 to 133 MHz"),
])
def test_impossible_frequencies_are_refused(in_hz, out_hz, text):
    with pytest.raises(FormatError, match="^" + text):
        pll_settings(in_hz, out_hz)


def test_power_on_reset_lasts_its_cycles():
    assert PowerOnReset.cycles_at(48e6) == 720
    dut = PowerOnReset(cycles=5)
    seen = []

    async def bench(ctx):
        for _ in range(9):
            seen.append(ctx.get(dut.rst))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert seen == [0] + [1] * 5 + [0] * 3           # the flip-flop starts at 0
    with pytest.raises(FormatError, match="^Reset cycles must be at least 1, not 0"):
        PowerOnReset(cycles=0)


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize("limit", [16.2e6, 23.9e6, 38.94e6, 43.55e6, 97.77e6, 400e6])
def test_the_clock_is_raised_to_what_pll_and_link_can(name, limit):
    hz = raised_hz(BOARDS[name], limit, 1_000_000)
    assert hz is not None and 0.93 * min(limit, 275e6) <= hz <= limit
    assert abs(hz / uart_divisor(hz, 1_000_000) / 1e6 - 1) <= 0.02


def test_no_clock_to_raise_to():
    assert raised_hz(BOARDS["icebreaker"], 15e6, 1_000_000) is None and raised_hz(None, 50e6, 1_000_000) is None


@pytest.mark.parametrize("out_mhz", [3.2, 16, 24, 40, 47.3, 50, 61.7, 73.9, 100, 133, 222, 400])
def test_ecp5_pll_keeps_to_its_limits_and_comes_near(out_mhz):
    s = ecp5_settings(25e6, out_mhz * 1e6)
    vco = 25e6 / s.clki * s.clkop
    assert 10e6 <= 25e6 / s.clki and 400e6 <= vco <= 800e6 and max(s.clki, s.clkop, s.clkos) <= 128
    assert s.hz == pytest.approx(vco / s.clkos) and 0.97 * out_mhz * 1e6 <= s.hz <= out_mhz * 1e6 * (1 + 1e-9)


@pytest.mark.parametrize("in_hz, out_hz", [(25e6, 401e6), (25e6, 3e6), (9e6, 50e6)])
def test_ecp5_pll_refuses_what_it_cannot_make(in_hz, out_hz):
    with pytest.raises(FormatError):
        ecp5_settings(in_hz, out_hz)


def test_the_ulx3s_raises_its_clock():
    hz = raised_hz(BOARDS["ulx3s"], 81.3e6, 1_000_000)
    assert hz and 75e6 < hz <= 81.3e6 and round(made_hz(BOARDS["ulx3s"], hz)) == hz and made_hz(BOARDS["ulx3s"], 25e6) == 25e6
