"""`verify` and its command: every simulator and level, every way to be wrong, and what a user may get wrong."""

import hashlib
import importlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from hwq.build import build
from hwq.errors import EnvironmentError_, FormatError, ModelError, VerifyError
from hwq.formats import FixedPoint
from hwq.interp import run_batches
from hwq.ir import Graph, Input, Linear, Output, Requantize, content_hash, save
from hwq.rtl.frames import FlagQueue
from hwq.sim import verify
from hwq.sim.cocotb_runner import BenchResult
from hwq.sim.control import flip_one_bit
from hwq.sim.folder import load_build
from hwq.sim.rebuild import rebuild
from hwq.sim.result import SimResult

from .conftest import hwq, need, small_network

ALL_THREE = {"resets", "short", "long"}


def seal(folder):
    """Make the manifest agree with the files again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def flip_a_weight(folder):
    """Flip one bit in a ROM of accel.v."""
    text = (folder / "accel.v").read_text()
    found = list(re.finditer(r"^\s+\\?\S*\[\d+\] = \d+'[hb]([0-9a-f]+);", text, re.M))
    assert found, "accel.v has no memory contents"
    at = found[0].start(1)
    changed = text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1:]
    (folder / "accel.v").write_text(changed)
    seal(folder)


@pytest.mark.parametrize("stalls, faults", [(None, 0), (4, 0), (None, 40), (4, 40)])
def test_compiled_simulation(board, pictures, stalls, faults):
    need("verilator", "c++")
    steps = []
    report = verify(board, data=pictures, stalls=stalls, faults=faults, negative_control=True,
                    progress=lambda *step: steps.append(step))
    assert (report.simulator, report.level, report.images, report.identical, report.right) == ("verilator", "rtl", 30, 30, 29)
    assert report.accuracy == 29 / 30 and report.note == "" and steps[-1][0] == "measure" and ("simulate", 30, 30) in steps
    # Measured without stalls, whatever the run before was like.
    assert report.cycles_per_frame == verify(board, images=1).cycles_per_frame
    assert report.planned_cycles == load_build(board).cycles == report.cycles_per_frame <= report.latency
    assert set(report.faults) == (ALL_THREE if faults else set()) and all(report.faults.values())
    assert report.negative_control.images == 30 and report.negative_control.different > 0
    assert report.hashes["accel.v"] == load_build(board).files["accel.v"] and "missing" not in report.tools.values()


def test_each_fault_comes_even_to_a_single_frame(board):
    need("verilator", "c++")
    assert verify(board, images=1, faults=1).faults == {"resets": 1, "short": 1, "long": 1}


def test_netlist(board, pictures):
    need("verilator", "c++")
    report = verify(board, level="netlist", data=pictures, stalls=1, faults=30, images=12)
    assert report.identical == 12 and "netlist.v" in report.hashes and all(report.faults.values())


def test_a_core_slower_than_planned_fails(copy, pictures):
    need("verilator", "c++")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["cycles"] -= 1
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(VerifyError, match=rf"takes {manifest['cycles'] + 1:,}.00 cycles .* promises {manifest['cycles']:,}:"):
        verify(copy)
    assert "the plan promises" in hwq("verify", copy, "--stalls", "1", code=6)           # measured without stalls
    manifest["cycles"] += 2                              # the bound of a plan that did not settle
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert verify(copy).cycles_per_frame == manifest["cycles"] - 1


def test_the_measurement_outlasts_the_flag_queue(tmp_path, monkeypatch):
    """A core that runs at its rate for the first frames only, until the queue beside its stages is full."""
    need("verilator", "c++", "yosys")
    monkeypatch.setattr("hwq.rtl.accelerator.FlagQueue", lambda depth: FlagQueue(14))
    rng = np.random.default_rng(5)
    nodes = [Input("x", (), shape=(1,), lo=0, hi=15)]
    for k in range(6):
        nodes += [Linear(f"fc{k}", (nodes[-1].name,), weight=rng.integers(1, 8, (1, 1)), bias=np.zeros(1),
                         weight_format=FixedPoint(4, 0)),
                  Requantize(f"q{k}", (f"fc{k}",), mult=np.array([5]), offset=np.array([16]), shift=5, lo=0, hi=15)]
    build(Graph((*nodes, Output("y", (nodes[-1].name,)))), tmp_path / "b", target="verilog")
    with pytest.raises(VerifyError, match=r"takes \d+.\d\d cycles a frame at level rtl without stalls, the plan promises \d+:"):
        verify(tmp_path / "b")


def result_of(ends):
    stamps = np.zeros((len(ends), 3), np.uint64)
    stamps[:, 2] = ends
    return SimResult(np.zeros((len(ends), 1, 1), np.uint8), stamps, int(ends[-1]), 0.0, part=len(ends))


def test_the_rate_of_a_settled_run():
    steady = result_of(np.cumsum([50] + [9] * 5 + [7, 7, 8] * 5))
    assert steady.settled and steady.cycles_per_frame == 22 / 3          # to the period, whatever phase the run ends in
    assert result_of(np.arange(1, 13) * 7).cycles_per_frame == 7
    slowing = result_of(np.cumsum([50] + [7] * 10 + [12]))
    assert not slowing.settled and slowing.cycles_per_frame > 7
    few = result_of(np.array([5, 9]))
    assert not few.settled and few.cycles_per_frame == 4
    assert result_of(np.array([5])).cycles_per_frame is None


@pytest.mark.parametrize("level", ["rtl", "netlist"])
def test_cocotb_in_icarus(board, level):
    need("iverilog", "vvp")
    pytest.importorskip("cocotb_tools.runner")
    steps = []
    report = verify(board, level=level, simulator="cocotb-icarus", images=3, stalls=9, progress=lambda *step: steps.append(step))
    assert report.four_state and len(report.benches) == 4 and report.stalls == 9 and report.cycles_per_frame is None
    assert max(done for _, done, _ in steps) > 3


def test_negative_control_of_the_benches(board, monkeypatch):
    """The bench itself must fail with a flipped reference; where it does not, the control says so."""
    need("iverilog", "vvp")
    pytest.importorskip("cocotb_tools.runner")
    report = verify(board, simulator="cocotb-icarus", images=2, negative_control=True)
    assert report.negative_control.bench == "random_stalls" and report.negative_control.different > 0
    assert "bench random_stalls failed with it" in "\n".join(report.lines())
    blind = importlib.import_module("hwq.sim.verify")
    monkeypatch.setattr(blind, "run_bench", lambda *args, benches, **rest: BenchResult(benches, 0.0))      # compares nothing
    with pytest.raises(VerifyError, match="Negative control: bench random_stalls passed although a bit of '.*' was flipped"):
        verify(board, simulator="cocotb-icarus", images=2, negative_control=True)


@pytest.mark.slow
def test_cocotb_in_verilator(board):
    need("verilator", "c++")
    assert verify(board, simulator="cocotb-verilator").benches == verify(board, simulator="cocotb-icarus").benches


@pytest.mark.parametrize("stalls, faults", [(None, 0), (7, 50)])
def test_amaranth(board, pictures, stalls, faults):
    report = verify(board, simulator="amaranth", data=pictures, images=4, stalls=stalls, faults=faults)
    assert report.identical == 4 and bool(report.faults) == bool(faults) and all(report.faults.values())
    if stalls is None:
        need("verilator", "c++")
        assert report.latency == verify(board, images=1).latency


def test_amaranth_attests_what_it_simulates(copy):
    """It runs the tree of accel.il and never reads the Verilog, so it says nothing of accel.v."""
    (copy / "accel.v").unlink()
    report = verify(copy, simulator="amaranth", images=1)
    assert set(report.hashes) == {"model", "accel.il", "input codes"}
    assert report.hashes["accel.il"] == hashlib.sha256((copy / "accel.il").read_bytes()).hexdigest()


def test_a_few_frames_by_default_and_it_says_so(board):
    report = verify(board, simulator="amaranth")
    assert (report.images, report.available) == (2, 8) and report.note.startswith("2 of 8 images, for this simulator is slow")


def test_wrong_hardware_is_noticed(copy, pictures):
    need("verilator", "c++")
    flip_a_weight(copy)
    with pytest.raises(VerifyError,
                       match=r"of 30 images differ at level rtl; first: image \d+, result \d, expected -?\d+, found -?\d+"):
        verify(copy, data=pictures)
    assert "differ at level rtl" in hwq("verify", copy, "--data", pictures, code=6)


def test_wrong_hardware_is_noticed_by_the_benches(copy):
    need("iverilog", "vvp")
    pytest.importorskip("cocotb_tools.runner")
    flip_a_weight(copy)
    with pytest.raises(VerifyError, match=r"Bench \w+ failed: .*frame \d+: result beat \d is"):
        verify(copy, simulator="cocotb-icarus")


def test_files_of_another_build_are_refused(copy):
    with open(copy / "accel.v", "a") as stream:
        stream.write("// edited\n")
    with pytest.raises(FormatError, match="accel.v is not the file that was built: its hash is .*; build again"):
        verify(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["plan"]["layers"][0]["fold"]["pe"] = 2
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="was built by another version of hwq or Amaranth"):
        rebuild(load_build(copy))
    for broken, words in (({"pe": "two"}, "."), ({"pie": 1}, "The plan is malformed")):
        manifest["plan"]["layers"][0]["fold"] = broken
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises((FormatError, ModelError), match=words):
            rebuild(load_build(copy))
    manifest["plan"]["layers"].pop()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="The plan belongs to another network"):
        rebuild(load_build(copy))
    del manifest["plan"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="keeps no plan: build again"):
        rebuild(load_build(copy))


def test_the_tree_made_again_is_the_one_that_was_built(board):
    rebuild(load_build(board))                           # raises where one byte of the RTLIL differs


def test_a_control_that_says_nothing_fails():
    """A network that ignores its input: no weight matters."""
    graph = small_network()
    deaf = graph.with_nodes(replace(node, lo=0, hi=0) if node.name == "relu" else node for node in graph)
    codes = np.zeros((2, 6, 6, 2), np.int64)
    with pytest.raises(VerifyError, match="Negative control: no single weight bit of 50 changes a result of these 2 images"):
        flip_one_bit(deaf, codes, run_batches(deaf, codes).reshape(2, -1), 0)


@pytest.mark.parametrize("arguments, words", [
    ({"level": "gates"}, "Level must be rtl or netlist, not 'gates'"),
    ({"simulator": "modelsim"}, "Simulator must be one of verilator, cocotb-icarus, cocotb-verilator, amaranth, not 'modelsim'"),
    ({"simulator": "amaranth", "level": "netlist"}, "Amaranth's own simulator knows the RTL only"),
    ({"images": 0}, "Images must be a number from 1, or 'all', not 0"),
    ({"images": 9}, "There are 8 images, not 9; give more with --data"),
    ({"faults": 95}, "Faults must be 0 to 90 percent, not 95"),
    ({"stalls": -3}, "The seed of stalls must be 0 to"),
    ({"data": "nowhere.npz"}, "Cannot read nowhere.npz"),
])
def test_arguments(board, arguments, words):
    with pytest.raises((ModelError, FormatError), match=words):
        verify(board, **arguments)


def test_arguments_of_the_command(board):
    assert "Images must be a number or 'all', not 'many'" in hwq("verify", board, "--images", "many", code=1)
    assert "Jobs must be at least 1, not 0" in hwq("verify", board, "--jobs", 0, code=1)


def test_a_folder_that_is_no_build(tmp_path):
    assert "is no build folder: cannot read manifest.json: No such file" in hwq("verify", tmp_path / "gone", code=1)
    (tmp_path / "manifest.json").write_text("{}")
    assert "is malformed (KeyError: 'format'); build again" in hwq("verify", tmp_path, code=1)


def test_a_network_that_takes_no_images(copy, pictures):
    graph = replace(small_network(), preprocess=None)
    save(graph, copy / "model.hwq")
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "model_hash": content_hash(graph)}))
    with pytest.raises(ModelError, match="Network 'small' takes numbers, not images"):
        verify(copy, data=pictures)
    assert verify(copy, images=1, simulator="amaranth").identical == 1


def test_a_build_without_a_netlist(copy):
    (copy / "netlist.v").unlink()
    assert "only builds for a device have one" in hwq("verify", copy, "--level", "netlist", code=1)


def test_missing_tools(board, tmp_path):
    nothing = str(tmp_path)
    for simulator, variable in (("cocotb-icarus", "HWQ_IVERILOG"), ("verilator", "HWQ_VERILATOR"), ("verilator", "CXX")):
        message = hwq("verify", board, "--simulator", simulator, code=5, **{variable: "no-such-tool"})
        assert f"the environment variable {variable} names 'no-such-tool', which is no command here" in message
    assert "iverilog is missing. Looked for: " in hwq("verify", board, "--simulator", "cocotb-icarus", code=5, PATH=nothing)


def test_without_a_compiler(board, tmp_path):
    """No compiler on this machine: a few frames in Amaranth's own simulator, and the report says so."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['ziglang'] = None")   # the wheel would count as one
    bare = {"PATH": str(tmp_path), "CXX": None, "PYTHONPATH": str(tmp_path)}
    report = json.loads(hwq("verify", board, "--stalls", "3", "--json", **bare))
    assert (report["simulator"], report["identical"], report["images"], report["available"]) == ("amaranth", 2, 2, 8)
    assert report["note"].startswith("c++") and "only a few frames ran, in Amaranth's own simulator" in report["note"]
    text = hwq("verify", board, "--images", "1", **bare)
    assert text.startswith("rtl, amaranth: 1 of 1 images identical") and "note: c++" in text
    assert "c++" in hwq("verify", board, "--level", "netlist", code=5, **bare)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "no-such-compiler")
        with pytest.raises(EnvironmentError_, match="CXX"):
            verify(board, simulator="verilator")
