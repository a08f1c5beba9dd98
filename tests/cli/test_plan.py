"""``hwq plan`` on a small network: the table, the goals, the step after."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hwq.cli import app
from hwq.errors import FitError, ModelError
from hwq.formats import FixedPoint
from hwq.ir import Conv2d, Graph, Input, Output, Requantize, save


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
    assert row["rom"] == [8 // row["pe"] * 36 // row["simd"], row["pe"] * row["simd"] * 4] and row["style"] == "lut"


def test_table(model):
    text = plan(model, "--device", "hx8k", "--fps", "1000")
    assert "small on hx8k" in text and "frames/s at 24 MHz" in text and "Next step:" in text
    assert "/7,680" in text


def test_goals_out_of_reach_are_refused(model):
    with pytest.raises(FitError, match=r"Nothing that fits up5k takes at most 24 cycles a frame; the fastest plan takes \d+"):
        plan(model, "--fps", "1000000")
    with pytest.raises(ModelError, match=r"Frames a second must lie in 0\.\.2\.4e\+07, not -1"):
        plan(model, "--fps", "-1")
    with pytest.raises(ModelError, match="a board or a device, not both"):
        plan(model, "--board", "hx8k", "--device", "up5k")
