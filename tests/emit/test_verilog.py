"""`accel.v` and its bench: plain, accepted by other tools, and a bench that can fail."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from hwq.build import build
from hwq.emit import plain_names, vector_codes
from hwq.errors import EnvironmentError_
from hwq.toolchain import find, run_yosys

from ..build.small import small_graph


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("verilog") / "v"
    build(small_graph(), path, target="verilog")
    return path


def need(*tools):
    for tool in tools:
        try:
            find(tool)
        except EnvironmentError_ as error:
            pytest.skip(str(error)[:80])


def icarus(folder, work, *, options=(), vectors=None):
    """Compile the bench and return what it prints."""
    need("iverilog", "vvp")
    if not (work / "vectors").exists():
        shutil.copytree(vectors or folder / "vectors", work / "vectors")
    done = subprocess.run(["iverilog", "-g2001", "-Wall", "-o", "tb.vvp", folder / "accel_tb.v", folder / "accel.v"], cwd=work,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    # accel.v has no timescale: it has no delays.
    assert [line for line in done.stderr.splitlines() if "timescale" not in line] == []
    return subprocess.run(["vvp", "-n", "tb.vvp", *options], cwd=work, capture_output=True, text=True,
                          timeout=300, check=True).stdout


@pytest.mark.parametrize("seed", [1, 2])
def test_bench_passes(folder, tmp_path, seed):
    out = icarus(folder, tmp_path, options=[f"+seed={seed}"])
    assert re.fullmatch(r"PASS: 11 frames, 33 results, \d+ cycles\n", out.split("finish called")[0].replace("\r", "")), out


@pytest.mark.parametrize("place", [0, 23])
def test_bench_fails_on_a_damaged_vector(folder, tmp_path, place):
    """One bit of one result."""
    shutil.copytree(folder / "vectors", tmp_path / "vectors")
    file = tmp_path / "vectors" / "output.hex"
    lines = file.read_text().split()
    lines[place] = f"{int(lines[place], 16) ^ 1:0{len(lines[place])}x}"
    file.write_text("\n".join(lines))
    out = icarus(folder, tmp_path)
    # The first frame is sent three times: whole, too long, and whole at the end.
    assert f"FAIL: {3 if place == 0 else 1} differences" in out and "PASS" not in out
    assert f"frame {place // 3}, result {place % 3}: expected" in out


@pytest.mark.parametrize("old, new, text", [
    (r"assign m_axis_tlast = .*?;", "assign m_axis_tlast = 1'b0;", "m_axis_tlast is 0"),
    (r"assign m_axis_tuser = .*?;", "assign m_axis_tuser = 1'b0;", "m_axis_tuser is 0"),
    (r"assign m_axis_tvalid = .*?;", "assign m_axis_tvalid = 1'b0;", "nothing moved for"),
    (r"assign m_axis_tvalid = .*?;", "assign m_axis_tvalid = 1'bx;", "m_axis_tvalid is X"),
    (r"assign s_axis_tready = .*?;", "assign s_axis_tready = 1'b1;", "FAIL"),
])
def test_bench_fails_on_broken_hardware(folder, tmp_path, old, new, text):
    """The wires of the core's edge, one at a time."""
    broken = tmp_path / "broken"
    broken.mkdir()
    shutil.copy(folder / "accel_tb.v", broken)
    source = (folder / "accel.v").read_text()
    head, end, rest = source.partition("endmodule")
    port = old.split()[1]
    head = re.sub(rf"\b{port}\b", f"inner_{port}", head)
    # The port gets the new value, everything inside keeps its own wire.
    head = head.replace(f"inner_{port}", port, 1).replace(f"output inner_{port};", f"output {port};", 1)
    (broken / "accel.v").write_text(head + "  " + new + "\n" + end + rest)
    out = icarus(broken, tmp_path, vectors=folder / "vectors")
    assert "FAIL" in out and text in out and "PASS" not in out


def test_names_and_attributes(folder):
    text = (folder / "accel.v").read_text()
    assert "\\" not in text and "src =" not in text and "hdlname" not in text and "SB_" not in text
    assert set(re.findall(r'\(\* (.*?) \*\)', text)) <= {'rom_style = "block"', 'romstyle = "logic"',
                                                         'ram_style = "block"', 'ramstyle = "no_rw_check"'}
    # On the declaration of the array itself, where Vivado and Quartus look.
    for match in re.finditer(r"\(\* r.m_?style = .*? \*\)\n\s*(?:\(\* .*? \*\)\n\s*)*(.*)", text):
        assert re.match(r"reg \[\d+:0\] \w+ \[\d+:0\];", match[1]), match[0]
    assert "rom_style" in text and "ram_style" in text
    modules = re.findall(r"^module (\w+)", text, re.M)
    assert modules[0] == "accel" and all(name == "accel" or name.startswith("accel_") for name in modules)
    assert len(set(modules)) == len(modules)


def test_plain_names():
    text = "module \\a.b (\\x$1 , x_1);\n  wire \\x$1 ; wire \\x.1 ; wire \\output ; assign \\x$1  = \\3 ;\n"
    plain = plain_names(text)
    assert plain == "module a_b(x_1_2, x_1);\n  wire x_1_2; wire x_1_3; wire output_2; assign x_1_2 = n3;\n"


def test_lint(folder):
    need("verilator")
    tool = find("verilator")
    # Widths: how Yosys writes comparisons with 1 and the ends of sums.
    for language in ("1364-2001", "1364-2005", "1800-2017"):
        done = subprocess.run([*tool.command, "--lint-only", "-Wno-WIDTH", "--language", language,
                               "--top-module", "accel", folder / "accel.v"], capture_output=True, text=True, check=False,
                              env={**os.environ, **tool.env})
        serious = [line for line in done.stderr.splitlines() if line.startswith(("%Error", "%Warning"))
                   and not line.startswith(("%Error: Exiting", "%Warning-UNOPTFLAT"))]
        assert serious == [], "\n".join(serious[:10])


def test_yosys_reads_it_back_into_block_ram(folder, tmp_path):
    """The attributes do their work in another synthesis run of the text alone."""
    shutil.copy(folder / "accel.v", tmp_path)
    log = run_yosys("read_verilog accel.v\nsynth_xilinx -family xc7 -top accel -noiopad\nstat\n", tmp_path / "y.log", tmp_path)
    assert "RAMB18E1" in log or "RAMB36E1" in log


def test_vectors_are_the_same_twice(folder, tmp_path):
    graph = small_graph()
    build(graph, tmp_path / "v", target="verilog")
    for name in ("accel.v", "accel_tb.v", "README.txt", "accel.il", "manifest.json", "report.json",
                 "report.html", "vectors/input.hex"):
        assert (tmp_path / "v" / name).read_bytes() == (folder / name).read_bytes(), name
    codes = vector_codes(graph, 8)
    assert codes[0].max() == 0 and codes[1].min() == 15 and np.ptp(codes[2:]) == 15
    lines = (folder / "vectors" / "input.hex").read_text().split()
    assert [int(line, 16) for line in lines] == codes.ravel().tolist()
    results = np.load(folder / "vectors" / "output.npy").ravel()
    want = [int(line, 16) for line in (folder / "vectors" / "output.hex").read_text().split()]
    assert [value & 0xFFFF if len((folder / "vectors" / "output.hex").read_text().split()[0]) == 4 else value & 0xFF
            for value in results.tolist()] == want
