"""``hwq plan`` on a small network: the table, the goals, the step after."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hwq.cli import app
from hwq.errors import FitError, FormatError, ModelError
from hwq.formats import FixedPoint
from hwq.ir import Add, Conv2d, Graph, Input, Output, Requantize, save


@pytest.fixture
def model(tmp_path):
    rng = np.random.default_rng(0)
    graph = Graph((Input("in", (), shape=(8, 8, 4), lo=0, hi=15),
                   Conv2d("a", ("in",), weight=rng.integers(-8, 8, (8, 3, 3, 4)), bias=np.zeros(8), weight_format=FixedPoint(4, 0)),
                   Requantize("q", ("a",), mult=np.ones(1), offset=np.array([8]), shift=5, lo=0, hi=15),
                   Output("out", ("q",))), name="small")
    save(graph, tmp_path / "small.hwq")
    return tmp_path / "small.hwq"


def plan(*arguments):
    done = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_smallest_that_is_fast_enough(model):
    fastest = json.loads(plan(model, "--json"))
    assert fastest["fits"] and fastest["total"]["cycles"] == max(64, *(row["cycles"] for row in fastest["layers"]))
    slower = json.loads(plan(model, "--json", "--fps", "2000", "--mhz", "24"))
    assert fastest["total"]["cycles"] < slower["total"]["cycles"] <= 12_000
    assert slower["total"]["lc"] < fastest["total"]["lc"]
    assert slower["next_step"]["cycles"] < slower["total"]["cycles"]
    row = slower["layers"][0]
    # half a block a product
    assert row["rom"] == [8 // row["pe"] * 36 // row["simd"], row["pe"] * row["simd"] * 4] and row["style"] == "dsp"


def test_table(model):
    text = plan(model, "--device", "hx8k", "--fps", "1000")
    assert "small on hx8k" in text and "frames/s at 24 MHz" in text and "Next step:" in text
    assert "/7,680" in text


def test_joins_show_both_depths(tmp_path):
    rng = np.random.default_rng(0)
    fmt, even = FixedPoint(4, 0), {"mult": np.ones(1), "offset": np.array([8]), "shift": 5, "lo": 0, "hi": 15}
    nodes = (Input("in", (), shape=(8, 8, 4), lo=0, hi=15),
             Conv2d("a", ("in",), weight=rng.integers(-8, 8, (4, 3, 3, 4)), bias=np.zeros(4), weight_format=fmt, pads=(1, 1, 1, 1)),
             Requantize("q", ("a",), **even), Add("sum", ("in", "q")), Requantize("r", ("sum",), **even), Output("out", ("r",)))
    save(Graph(nodes, name="skip"), tmp_path / "skip.hwq")
    result = json.loads(plan(tmp_path / "skip.hwq", "--json"))
    row = next(row for row in result["layers"] if row["layer"] == "sum")
    full, least = row["fifos"], row["least_fifos"]
    assert len(full) == len(least) == 2 and 0 < least[0] < full[0] and 0 < least[1] <= full[1]
    text = plan(tmp_path / "skip.hwq")
    assert f"{full[0]}+{full[1]} ({least[0]}+{least[1]})" in text and "one beat less costs cycles" in text and result["fifos_tight"]


def test_picture_is_drawn_and_always_the_same(model, tmp_path):
    pytest.importorskip("matplotlib", reason="extra plot is not installed")
    for name in ("a.svg", "b.svg"):
        plan(model, "--picture", tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text() and "<!-- a, " in text and "small on up5k" in text
    with pytest.raises(FormatError, match="must end in .svg or .png, not 'a.pdf'"):
        plan(model, "--picture", tmp_path / "a.pdf")


def test_goals_out_of_reach_are_refused(model):
    with pytest.raises(FitError, match=r"Nothing that fits up5k takes at most 24 cycles a frame; the fastest plan takes \d+"):
        plan(model, "--fps", "1000000")
    with pytest.raises(FormatError, match="--fps must lie above 0 and below the clock, 24 MHz, not -1"):
        plan(model, "--fps", "-1")
    with pytest.raises(ModelError, match="a board or a device, not both"):
        plan(model, "--board", "hx8k", "--device", "up5k")


@pytest.mark.parametrize("mhz", ["0", "-5", "nan", "inf"])
def test_clock_that_is_none(model, mhz):
    for goal in ((), ("--fps", "100")):
        with pytest.raises(FormatError, match=f"--mhz must be a positive number of MHz, not {mhz}"):
            plan(model, f"--mhz={mhz}", *goal)


def test_unknown_device_is_wrong_input(model):
    with pytest.raises(FormatError,
                       match="Unknown device 'zx81'; known: up5k, hx8k, ecp5-12f, ecp5-25f, ecp5-45f, ecp5-85f, generic") as caught:
        plan(model, "--device", "zx81")
    assert caught.value.exit_code == 1


def test_next_step_reads_well(model):
    """A faster step may take less: 'for -74 LC' reads like a riddle."""
    from hwq.cli.plan import step_text
    now, limits = {"cycles": 900, "lc": 1000, "ebr": 4, "dsp": 0}, {"lc": 5280, "ebr": 30, "dsp": 8}
    assert step_text({"cycles": 450, "lc": 926, "ebr": 8, "dsp": 0}, now, limits) == \
        "Next step: 450 cycles a frame, with 74 LC less, 4 EBR more."
    assert step_text({"cycles": 450, "lc": 6000, "ebr": 4, "dsp": 1}, now, limits) == \
        "Next step: 450 cycles a frame, with 5,000 LC more, 1 DSP more; it does not fit: 720 LC too many."
    assert step_text({"cycles": 450, "lc": 1000, "ebr": 4, "dsp": 0}, now, limits) == \
        "Next step: 450 cycles a frame, with the same resources."
