"""The cocotb benches: pass on a right core, and notice each way to break it."""

import pytest

from hwq.errors import VerifyError
from hwq.sim.cocotb_runner import BENCHES, run_bench

from .conftest import need

pytest.importorskip("cocotb_tools.runner")


def test_right_core(builds):
    need("iverilog", "yosys")
    build, beats, results = builds()
    assert run_bench(build, beats[:6], results[:6], timeout=120).passed == BENCHES


@pytest.mark.parametrize("fault, words", [
    ("drops", "random_stalls failed.*2 beats, expected 3"), ("changes", "changed from"), ("x", "unknown bits"),
    ("deadlock", "nothing moved"), ("flag", "wrong_frames failed.*tuser is 0, expected 1")])
def test_broken_core(builds, fault, words):
    need("iverilog", "yosys")
    build, beats, results = builds(fault)
    with pytest.raises(VerifyError, match=words):
        run_bench(build, beats[:6], results[:6], timeout=120)


def test_wrong_result(builds):
    need("iverilog", "yosys")
    build, beats, results = builds()
    wrong = results[:3].copy()
    wrong[1, 2, 0] ^= 1
    with pytest.raises(VerifyError, match="frame 1: result beat 2 is"):
        run_bench(build, beats[:3], wrong, benches=("random_stalls",), timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("simulator, level", [("verilator", "rtl"), ("icarus", "netlist")])
def test_other_simulators(builds, simulator, level):
    need("iverilog", "yosys", "verilator", "c++")
    build, beats, results = builds(netlist=True)
    assert run_bench(build, beats[:6], results[:6], simulator=simulator, level=level).passed == BENCHES
