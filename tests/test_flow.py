"""The commands, as a user types them, on the shipped network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hwq.errors import EnvironmentError_, HwqError
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
    report = json.loads(hwq("verify", verilog, "--data", EXAMPLE / "test.npz", "--stalls", "5", "--faults", "30",
                            "--negative-control", "--json"))
    assert report["identical"] == report["images"] == 20 and report["right"] >= 17 and min(report["faults"].values()) > 0
    assert report["planned_cycles"] == report["cycles_per_frame"] and report["negative_control"]["different"] > 0
    # The reference is the network that was built, and no other.
    from dataclasses import replace

    from hwq.ir import load, save
    graph = load(verilog / "model.hwq")
    save(graph.with_nodes(replace(n, bias=n.bias + 1) if n.name == "fc" else n for n in graph), verilog / "model.hwq")
    assert "is not the network that was built" in hwq("verify", verilog, code=1)
    save(graph, verilog / "model.hwq")


@pytest.mark.slow
@pytest.mark.skipif(not have("iverilog", "vvp"), reason="Icarus Verilog is missing (apt install iverilog)")
def test_no_x_reaches_a_valid_output(verilog):
    report = json.loads(hwq("verify", verilog, "--simulator", "cocotb-icarus", "--data", EXAMPLE / "test.npz", "--images", "2",
                            "--json"))
    assert report["four_state"] and report["identical"] == 2 and len(report["benches"]) == 4


@pytest.mark.slow
@pytest.mark.skipif(not have("verilator", "c++"), reason="Verilator or a C++ compiler is missing")
def test_whole_test_set(verilog):
    from hwq.data import open_dataset
    try:
        open_dataset("fashion-mnist")
    except HwqError as error:
        pytest.skip(f"no Fashion-MNIST: {error}")
    report = json.loads(hwq("verify", verilog, "--data", "fashion-mnist", "--images", "all", "--stalls", "1",
                            "--faults", "5", "--json"))
    assert report["identical"] == report["images"] == 10_000 and report["accuracy"] >= 0.905


@pytest.mark.slow
def test_bitstream_netlist_and_board(tmp_path):
    folder = tmp_path / "b"
    report = json.loads(hwq("build", EXAMPLE / "model.hwq", "-o", folder, "--json"))
    assert report["fmax_mhz"] >= report["clock_mhz"] and (folder / "top.bin").stat().st_size > 100_000
    report = json.loads(hwq("verify", folder, "--level", "netlist", "--stalls", "2", "--faults", "10", "--json"))
    assert report["identical"] == 8 and min(report["faults"].values()) > 0
    report = json.loads(hwq("run", EXAMPLE / "test.npz", "--port", f"sim:{folder}", "--check", "--json"))
    assert report["labelled"] == 20 and report["right"] >= 17 and not report["different"]
    if have("iverilog", "vvp"):
        report = json.loads(hwq("verify", folder, "--level", "netlist", "--simulator", "cocotb-icarus", "--images", "1", "--json"))
        assert report["four_state"] and len(report["benches"]) == 4


@pytest.mark.parametrize("arguments, code, text", [
    (["show", "missing.hwq"], 1, "Cannot read missing.hwq"),
    (["build", "broken.hwq"], 1, "truncated or damaged|no .hwq file|is truncated"),
    (["build", "model.hwq", "--device", "zx81"], 1, "icebreaker|up5k"),
    (["build", "model.hwq", "--board", "zx81"], 1, "icebreaker"),
    (["build", "model.hwq", "--fold", "conv1"], 1, "form layer=pe,simd"),
    (["build", "model.hwq", "-o", "taken"], 1, "holds something that is no build"),
    (["build", "model.hwq", "-o", "broken.hwq/x"], 1, "Cannot write"),
    (["verify", "taken"], 1, "is no build"),
    (["verify", "gone"], 1, "is no build"),
    (["eval", "model.hwq", "--data", "odd.npz"], 1, "Images must have the shape"),
    (["eval", "model.hwq", "--data", "nolabels.npz"], 1, "lacks labels"),
    (["eval", "model.hwq", "--data", "nowhere"], 1, "no data set, file or folder 'nowhere'; known data sets: fashion-mnist"),
    (["eval", "model.hwq", "--data", "far.npz"], 1, "far.npz: image 1 has the label 10, but the network has 10 classes, 0 to 9"),
    (["run", "far.npz", "--port", "/dev/nothing"], 5,
     "Cannot open /dev/nothing at 1000000 baud: No such file or directory. Ports of this"),
    (["run", "far.npz", "--port", "sim:gone"], 1,
     "Cannot run the simulator gone: No such file or directory; sim: takes a folder of hwq build"),
    (["run", "far.npz", "--port", "sim:taken"], 1, "taken is no build folder"),
    (["run", "far.npz", "--port", "/dev/nothing", "--baud", "0"], 1, "Baud rate must be positive, not 0"),
    (["build"], 2, "Missing argument"),
])
def test_bad_input_is_worded_and_leaves_nothing(tmp_path, arguments, code, text):
    data = (EXAMPLE / "model.hwq").read_bytes()
    (tmp_path / "model.hwq").write_bytes(data)
    (tmp_path / "broken.hwq").write_bytes(data[:-100])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("keep me")
    np.savez(tmp_path / "odd.npz", images=np.zeros((2, 20, 20), np.uint8), labels=np.zeros(2, np.uint8))
    np.savez(tmp_path / "far.npz", images=np.zeros((2, 28, 28), np.uint8), labels=np.array([9, 10], np.uint8))
    np.savez(tmp_path / "nolabels.npz", images=np.zeros((2, 28, 28), np.uint8))
    before = sorted(p.name for p in tmp_path.rglob("*"))
    import re
    message = hwq(*arguments, code=code, cwd=tmp_path)
    assert re.search(text, message), message
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert "Traceback" not in message
