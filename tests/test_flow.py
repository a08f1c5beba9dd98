"""The commands, as a user types them, on the shipped network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hwq.errors import EnvironmentError_
from hwq.toolchain import find

EXAMPLE = Path(__file__).parent.parent / "examples" / "fashion"


def have(*names):
    try:
        return all(find(name) for name in names)
    except EnvironmentError_:
        return False


def hwq(*arguments, code=0, cwd=None):
    done = subprocess.run([sys.executable, "-c", "from hwq.cli import main; main()", *map(str, arguments)], capture_output=True,
                          text=True, cwd=cwd, env={**os.environ, "COLUMNS": "140"}, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_show_and_eval():
    nodes = json.loads(hwq("show", EXAMPLE / "model.hwq", "--json"))["nodes"]
    assert sum(node["weights"] for node in nodes) == 30_024
    assert "conv4" in hwq("show", EXAMPLE / "model.hwq")
    report = json.loads(hwq("eval", EXAMPLE / "model.hwq", "--data", EXAMPLE / "test.npz", "--json"))
    assert report["images"] == 20 and report["right"] >= 17


@pytest.fixture(scope="module")
def verilog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow") / "verilog"
    hwq("build", EXAMPLE / "model.hwq", "--target", "verilog", "-o", folder)
    return folder


def test_verilog_is_plain_and_reproducible(verilog, tmp_path):
    text = (verilog / "accel.v").read_text()
    assert "module accel(" in text and "rom_style" in text and "SB_" not in text and "src =" not in text
    hwq("build", EXAMPLE / "model.hwq", "--target", "verilog", "-o", tmp_path / "again")
    assert (tmp_path / "again" / "accel.v").read_bytes() == (verilog / "accel.v").read_bytes()
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (verilog / "manifest.json").read_bytes()


@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
def test_rtl_is_exact(verilog):
    for extra in (["--stalls", "5", "--data", EXAMPLE / "test.npz"], ["--fault", "short"], ["--fault", "long"], ["--fault", "reset"]):
        report = json.loads(hwq("verify", verilog, "--images", "6", "--json", *extra))
        assert report["identical"] == report["images"] == 6
    assert "noticed" in hwq("verify", verilog, "--negative-control", "--images", "6")
    # A build whose hardware is not the model's must fail: the reference is another network.
    from hwq.ir import load, save
    graph = load(verilog / "model.hwq")
    node = graph.by_name["fc"]
    from dataclasses import replace
    save(graph.with_nodes(replace(n, bias=n.bias + 1) if n is node else n for n in graph), verilog / "model.hwq")
    assert "differ" in hwq("verify", verilog, "--images", "6", code=6)
    save(graph, verilog / "model.hwq")


@pytest.mark.slow
def test_bitstream_and_netlist(tmp_path):
    report = json.loads(hwq("build", EXAMPLE / "model.hwq", "-o", tmp_path / "b", "--json"))
    assert report["fmax_mhz"] >= report["clock_mhz"] and (tmp_path / "b" / "top.bin").stat().st_size > 100_000
    assert json.loads(hwq("verify", tmp_path / "b", "--level", "netlist", "--stalls", "2", "--json"))["identical"] == 8


@pytest.mark.parametrize("arguments, code, text", [
    (["show", "missing.hwq"], 1, "Cannot read missing.hwq"),
    (["build", "broken.hwq"], 1, "truncated or damaged|no .hwq file|is truncated"),
    (["build", "model.hwq", "--device", "zx81"], 1, "icebreaker|up5k"),
    (["build", "model.hwq", "--board", "zx81"], 1, "icebreaker"),
    (["build", "model.hwq", "--fold", "conv1"], 1, "form layer=pe,simd"),
    (["build", "model.hwq", "-o", "taken"], 5, "holds something that is no build"),
    (["build", "model.hwq", "-o", "broken.hwq/x"], 5, "Cannot write"),
    (["verify", "taken"], 1, "is no build"),
    (["eval", "model.hwq", "--data", "odd.npz"], 1, "Images must have the shape"),
    (["eval", "model.hwq", "--data", "nolabels.npz"], 1, "holds no labels"),
    (["eval", "model.hwq", "--data", "nowhere"], 1, "accepted: a folder of IDX files"),
    (["build"], 2, "Missing argument"),
])
def test_bad_input_is_worded_and_leaves_nothing(tmp_path, arguments, code, text):
    data = (EXAMPLE / "model.hwq").read_bytes()
    (tmp_path / "model.hwq").write_bytes(data)
    (tmp_path / "broken.hwq").write_bytes(data[:-100])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("keep me")
    np.savez(tmp_path / "odd.npz", images=np.zeros((2, 20, 20), np.uint8), labels=np.zeros(2, np.uint8))
    np.savez(tmp_path / "nolabels.npz", images=np.zeros((2, 28, 28), np.uint8))
    before = sorted(p.name for p in tmp_path.rglob("*"))
    import re
    message = hwq(*arguments, code=code, cwd=tmp_path)
    assert re.search(text, message), message
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert "Traceback" not in message
