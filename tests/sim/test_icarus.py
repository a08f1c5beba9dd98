"""The emitted Verilog in a 4-state simulator: exact, and never an X where a valid output is."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hwq.build import build
from hwq.interp import encode_images, run_batches
from hwq.ir import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion"


@pytest.mark.skipif(not (shutil.which("iverilog") and shutil.which("vvp")), reason="Icarus Verilog is missing (apt install iverilog)")
def test_no_x_reaches_a_valid_output(tmp_path):
    graph = load(EXAMPLE / "model.hwq")
    build(graph, tmp_path / "b", target="verilog")
    codes = encode_images(graph, np.load(EXAMPLE / "test.npz")["images"][:2])
    (tmp_path / "input.hex").write_text("\n".join(f"{code:02x}" for code in codes.ravel()))
    bench = Path(__file__).with_name("core_tb.v")
    subprocess.run(["iverilog", "-g2012", "-o", "tb.vvp", str(bench), str(tmp_path / "b" / "accel.v")], cwd=tmp_path, check=True, timeout=120)
    out = subprocess.run(["vvp", "-n", "tb.vvp"], cwd=tmp_path, check=True, timeout=600, capture_output=True, text=True).stdout
    lines = [line.split() for line in out.splitlines()]
    assert lines[-1] == ["END", "20", "0"]
    assert [int(line[0]) for line in lines[:-1]] == run_batches(graph, codes).ravel().tolist()
    assert [line[1:] for line in lines[:-1]] == ([["0", "0"]] * 9 + [["1", "0"]]) * 2
