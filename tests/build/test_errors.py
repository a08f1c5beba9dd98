"""What users get wrong: a worded error that says what to do, before long steps where it can be known."""

import dataclasses
import os
import subprocess
import sys

import pytest

from hwq.boards.registry import find_device
from hwq.build import build
from hwq.build.diagnose import diagnose, utilization
from hwq.build.pins import check_pins, read_pcf
from hwq.errors import EnvironmentError_, FitError, FormatError, HwqError, ModelError, ToolError
from hwq.ir import save
from hwq.passes import apply_passes
from hwq.plan import device, make_plan

from .small import small_graph


@pytest.mark.parametrize("arguments, kind, text", [
    (dict(target="vhdl"), FormatError, "Target must be one of ice40, ecp5, verilog, not 'vhdl'"),
    (dict(device_name="zx81"), FormatError, "Device must be one of up5k, hx8k, ecp5-12f, ecp5-25f, ecp5-45f, ecp5-85f, not 'zx81'"),
    (dict(board="zx81"), FormatError, "Board must be one of icebreaker, upduino, hx8k, ulx3s, ulx3s-12f, ulx3s-25f, ulx3s-45f, "
     "ulx3s-85f, not 'zx81'"),
    (dict(board=""), FormatError, "Board must be one of icebreaker, upduino, hx8k, ulx3s, ulx3s-12f, ulx3s-25f, "
     "ulx3s-45f, ulx3s-85f, not ''"),
    (dict(board="hx8k", device_name="hx8k"), FormatError, "--board and --device exclude each other"),
    (dict(pcf="x.pcf"), FormatError, "--pcf goes with --device only"),
    (dict(board="hx8k", pcf="x.pcf"), FormatError, "--pcf goes with --device only"),
    (dict(target="verilog", board="hx8k"), FormatError, "--target verilog stops before place and route: leave out --board"),
    (dict(target="verilog", freq_mhz=20.0, seed=3), FormatError, "leave out --freq, --seed$"),
    (dict(freq_mhz=0.0), FormatError, "--freq must be 0.1 to 275 MHz, not 0"),
    (dict(freq_mhz=-1.0), FormatError, "not -1"),
    (dict(freq_mhz=float("nan")), FormatError, "not nan"),
    (dict(freq_mhz=float("inf")), FormatError, "not inf"),
    (dict(freq_mhz=1000.0), FormatError, "not 1000"),
    (dict(freq_mhz=15.0), FormatError, "PLL output must be 16 to 275 MHz, not 15; the board's own 12 MHz works without"),
    (dict(seeds=0), FormatError, "--seeds must be 1 to 64, not 0"),
    (dict(seeds=65), FormatError, "--seeds must be 1 to 64, not 65"),
    (dict(seed=-1), FormatError, "--seed must be 0 to 2147483647, not -1"),
    (dict(baud=0), FormatError, "baud rate must be positive, not .* 0 baud"),
    (dict(baud=100_000_000), FormatError, "Baud rate must be at most a 4th of the clock"),
    (dict(max_cycles=0), FormatError, "--cycles must be at least 1, not 0"),
    (dict(max_cycles=100, fps=100), FormatError, "--fps and --cycles exclude each other"),
    (dict(fps=100, target="verilog"), FormatError, "--fps needs a clock"),
    (dict(fps=0), FormatError, "--fps must lie above 0 and below the clock, 24 MHz, not 0"),
    (dict(fps=float("nan")), FormatError, "--fps must lie above 0"),
    (dict(fps=8e6), FitError, "takes at most 3 cycles a frame"),
    (dict(fps=3.9e6, freq_mhz=12), FitError, "takes at most 3 cycles a frame"),
    (dict(max_cycles=3), FitError, "Nothing that fits up5k takes at most 3 cycles a frame; the fastest plan takes"),
    (dict(folds=["conv"]), ModelError, "form layer=pe,simd"),
    (dict(folds=["net_conv=2"]), ModelError, "form layer=pe,simd"),
    (dict(folds=["net_conv=2,x"]), ModelError, "form layer=pe,simd"),
    (dict(folds=["nothing=1,1"]), ModelError, "unknown layer 'nothing'; layers that fold: net_conv, fc"),
    (dict(folds=["net_conv=3,1"]), ModelError, "pe must divide the 4 outputs, not 3"),
    (dict(folds=["net_conv=1,2"]), ModelError, "simd must divide the 1 input channels"),
    (dict(folds=["fc=0,1"]), ModelError, "pe must divide the 3 outputs, not 0"),
    (dict(folds=["fc=1,-1"]), ModelError, "simd must divide"),
])
def test_options(tmp_path, arguments, kind, text):
    steps = []
    with pytest.raises(kind, match=text):
        build(small_graph(), tmp_path / "out", say=steps.append, **arguments)
    assert list(tmp_path.iterdir()) == [] and steps in ([], ["plan"])      # known before the long steps


@pytest.mark.parametrize("text, message", [
    ("set_io clk 35\nset_io rx 6\n", "gives no pin for tx; add a line such as 'set_io tx PIN'"),
    ("", "gives no pin for clk, rx, tx"),
    ("set_io clk\n", "line 1: set_io must have a port and a pin, not 'clk'"),
    ("# pins\nset_io clk 35 36\n", "line 2: set_io must have a port and a pin"),
    ("set_loc clk 35\n", "line 1: 'set_loc' is unknown; accepted: set_io"),
    ("set_io -fast clk 35\n", "option '-fast' is unknown; accepted: -nowarn"),
    ("set_io led 35\n", "port 'led' is unknown; the design has clk, rx, tx"),
    ("set_io clk 35\nset_io clk 36\n", "line 2: port 'clk' has a pin already, 35"),
    ("set_io clk 35\nset_io rx 35\n", "line 2: pin 35 is taken by 'clk'"),
])
def test_pcf(tmp_path, text, message):
    (tmp_path / "x.pcf").write_text(text)
    with pytest.raises(FormatError, match=message):
        build(small_graph(), tmp_path / "out", device_name="up5k", pcf=tmp_path / "x.pcf")
    assert [p.name for p in tmp_path.iterdir()] == ["x.pcf"]


def test_a_pin_that_the_package_lacks_is_known_before_synthesis(tmp_path):
    (tmp_path / "x.pcf").write_text("set_io clk 35\nset_io rx 6\nset_io tx 99\n")
    steps = []
    with pytest.raises(FormatError, match=r"The package of up5k has no pin '99'. Correct the .pcf file\.$"):
        build(small_graph(), tmp_path / "out", device_name="up5k", pcf=tmp_path / "x.pcf", say=steps.append)
    assert steps == ["check the pins"] and [p.name for p in tmp_path.iterdir()] == ["x.pcf"]
    # Right pins leave nothing behind either.
    check_pins(find_device("up5k"), "set_io clk 35\nset_io rx 6\nset_io tx 9\n", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pcf"]


def test_good_pcf(tmp_path):
    text = "# a comment\nset_io -nowarn clk 35   # crystal\nset_io -pullup yes rx 6\n\nset_io tx 9\nset_frequency clk 12\n"
    (tmp_path / "x.pcf").write_text(text)
    assert read_pcf(tmp_path / "x.pcf") == text
    with pytest.raises(FormatError, match="Cannot read the pins in .*y.pcf: No such file"):
        read_pcf(tmp_path / "y.pcf")
    (tmp_path / "z.pcf").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="is no text file"):
        read_pcf(tmp_path / "z.pcf")


@pytest.mark.parametrize("tool, target",
                         [("yosys", "verilog"), ("yosys", "ice40"), ("nextpnr-ice40", "ice40"), ("icepack", "ice40")])
def test_missing_tool_is_known_before_any_work(tmp_path, monkeypatch, tool, target):
    find_module = sys.modules["hwq.toolchain.find"]
    real = find_module.find

    def find(name):
        if name == tool:
            monkeypatch.setenv("PATH", str(tmp_path))
            monkeypatch.setattr(find_module, "_package_folder", lambda module: None)
        return real(name)
    monkeypatch.setattr("hwq.build.flow.find", find)
    steps = []
    with pytest.raises(EnvironmentError_, match=f"{tool} is missing. Looked for: .*on PATH.* Install it: pip install"):
        build(small_graph(), tmp_path / "out", target=target, say=steps.append)
    assert steps == [] and list(tmp_path.iterdir()) == []


def test_variable_that_names_no_tool(tmp_path):
    save(small_graph(), tmp_path / "m.hwq")
    done = subprocess.run([sys.executable, "-c", "from hwq.cli import main; main()", "build", "m.hwq"], cwd=tmp_path, text=True,
                          capture_output=True, env={**os.environ, "HWQ_YOSYS": "no-such-yosys"}, check=False)
    assert done.returncode == 5 \
        and "HWQ_YOSYS names 'no-such-yosys', which is no command here; correct it or unset it" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["m.hwq"]


@pytest.mark.parametrize("variable, output", [
    ("HWQ_YOSYS", "accel.v"), pytest.param("HWQ_NEXTPNR_ICE40", "pnr.json, top.asc", marks=pytest.mark.slow),
    pytest.param("HWQ_ICEPACK", "top.bin", marks=pytest.mark.slow)])
def test_a_tool_that_makes_nothing(tmp_path, monkeypatch, variable, output):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ToolError, match=f"ended without an error, but made no output: {output} is missing. Is it "):
        build(small_graph(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out.logs"]


def test_certainly_too_large_is_said_before_synthesis(tmp_path):
    """More weight bits than all block RAM holds."""
    import numpy as np

    from hwq.formats import FixedPoint
    from hwq.ir import Flatten, Graph, Input, Linear, Output, Preprocess
    from hwq.ir.storage import dumps, loads
    weight = np.random.default_rng(0).integers(-127, 128, (64, 784))
    graph = Graph((Input("x", (), shape=(28, 28, 1), lo=0, hi=255), Flatten("f", ("x",)),
                   Linear("fc", ("f",), weight=weight, bias=np.zeros(64, np.int64), weight_format=FixedPoint(8, 0)),
                   Output("y", ("fc",))), preprocess=Preprocess(8))
    steps = []
    with pytest.raises(FitError, match="does not fit up5k: at least .* of 30 block RAMs.*'fc'.* hwq search PACKAGE.MODULE:FUNCTION "
                       "--cost up5k -o search") as caught:
        build(graph, tmp_path / "out", say=steps.append)
    trained = dataclasses.replace(graph, factory="hwq.models.fashion:network")
    with pytest.raises(FitError, match="hwq search hwq.models.fashion:network --cost up5k -o search"):
        build(loads(dumps(trained)), tmp_path / "out")
    assert dumps(graph) != dumps(trained) and loads(dumps(graph)).factory == ""
    assert caught.value.exit_code == 3 and steps == ["plan"] and list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def plan():
    return make_plan(apply_passes(small_graph()), device("up5k"))


# Lines as nextpnr-ice40 0.11.1 prints them.
_TABLE = ("Info: Device utilisation:\nInfo: \t         ICESTORM_LC:    {lc}/   5280   {p}%\n"
          "Info: \t        ICESTORM_RAM:      {ram}/     30   100%\n")


@pytest.mark.parametrize("log, text", [
    (_TABLE.format(lc=6001, p=113, ram=12) + "ERROR: Unable to place cell 'x', no BELs "
     "remaining to implement cell type 'ICESTORM_LC'\n",
     "after synthesis: it takes 6001 of 5280 logic cells. Type --fold (net_conv|fc)=[0-9]+,[0-9]+: .*--board hx8k"),
    (_TABLE.format(lc=5200, p=98, ram=12) + "ERROR: Unable to find legal placement for all cells\n",
     "it takes 5200 of 5280 logic cells"),
    (_TABLE.format(lc=900, p=17, ram=33) + "ERROR: Unable to place cell\n",
     "it takes 33 of 30 block RAMs. Most weights are in '.*fewer bits"),
    ("Info: Max frequency for clock 'clk': 31.42 MHz (FAIL at 48.00 MHz)\nERROR: Max frequency for clock 'clk': 42.51 MHz (FAIL at "
     "48.00 MHz)\n", "clock of 48 MHz is not reached: 42.51 MHz. Type --freq 42"),
    ("ERROR: Max frequency for clock 'clk_$glb_clk': 31.42 MHz (FAIL at 48.00 MHz)\n",
     "clock of 48 MHz is not reached: 31.42 MHz. Type --freq 31, or --seeds 8"),
    ("ERROR: package does not have a pin named '99' (on line 3)\n",
     "The package of up5k has no pin '99'. Correct the .pcf file\\.$"),
    ("ERROR: something else\n", "nextpnr failed"),
])
def test_after_synthesis(plan, log, text):
    import re
    error = diagnose(log, plan, 48_000_000, 1, ToolError("nextpnr failed"))
    assert isinstance(error, HwqError) and re.search(text, str(error)), str(error)
    fold = re.search(r"--fold (\S+)=(\d+),(\d+)", str(error))
    if fold and "Type --fold" in str(error):             # what it says must be possible, and smaller
        typed = make_plan(apply_passes(small_graph()), device("up5k"), folds={fold[1]: (int(fold[2]), int(fold[3]))})
        before, after = ({p.layer.name: p.fold for p in each.layers}[fold[1]] for each in (plan, typed))
        assert after.pe * after.simd < before.pe * before.simd


def test_utilization():
    assert utilization(_TABLE.format(lc=6001, p=113, ram=12)) == {"ICESTORM_LC": (6001, 5280), "ICESTORM_RAM": (12, 30)}


def test_a_folding_that_is_too_large_says_so(tmp_path):
    with pytest.raises(FitError, match="does not fit up5k.* Or leave out --fold for net_conv: the automatic choice may fit"):
        build(small_graph(channels=64), tmp_path / "out", folds=["net_conv=64,9"])
    assert list(tmp_path.iterdir()) == []
