"""The compiled simulation: right on a right core, and it notices each way to break it."""

import hashlib
import os
import shutil
import stat
import time

import pytest

from hwq.errors import VerifyError
from hwq.sim import verilate
from hwq.sim.fast import compile_core, simulate
from hwq.sim.verilate import cache_folder, cached

from .conftest import need


@pytest.fixture(autouse=True)
def _tools():
    need("verilator", "c++", "yosys")


@pytest.mark.parametrize("stall, faults", [(0, 0), (30, 0), (0, 60), (30, 60)])
def test_right_core(builds, stall, faults):
    build, beats, results = builds()
    got = simulate(build, compile_core(build), beats, stall=stall, faults=faults, seed=7, processes=2)
    assert (got.beats == results).all()
    assert bool(sum(got.counts.values())) == bool(faults)
    if not stall and not faults:
        assert got.cycles_per_frame == 35                # two a beat in, one a beat out
        assert got.latency == 34                         # the first beat waits for no one else


def test_all_injections_happen(builds):
    build, beats, results = builds()
    got = simulate(build, compile_core(build), beats, faults=90, seed=1, processes=1)
    assert min(got.counts.values()) > 0 and (got.beats == results).all()


@pytest.mark.parametrize("fault, words", [
    ("drops", "tlast came before the end"), ("changes", "changed its payload"), ("deadlock", "nothing moved"),
    ("flag", "tuser is 0 on the result of a frame of a wrong length")])
def test_broken_core(builds, fault, words):
    build, beats, _ = builds(fault)
    with pytest.raises(VerifyError, match=words):
        simulate(build, compile_core(build), beats, stall=50, faults=50, seed=2, processes=1)


def test_only_a_whole_file_is_cached(tmp_path):
    file = tmp_path / "core"
    assert not cached(file)
    file.write_bytes(b"program")
    assert not cached(file)
    (tmp_path / "core.sha256").write_text(hashlib.sha256((7).to_bytes(8, "little") + b"program").hexdigest())
    assert cached(file)
    file.write_bytes(b"progra")
    assert not cached(file)


def test_damaged_cache_is_no_cache(builds):
    build, beats, results = builds()
    program = compile_core(build)
    whole = program.read_bytes()
    program.write_bytes(whole[:1000])
    assert compile_core(build) == program and len(program.read_bytes()) > 1000
    assert (simulate(build, program, beats).beats == results).all()


def test_a_program_in_the_build_folder_is_not_trusted(builds, tmp_path):
    """A folder from elsewhere must not bring the program that judges it."""
    build, _, _ = builds()
    program = compile_core(build)
    assert build.path not in program.parents
    for place in (build.path / ".sim" / program.parent.name, build.path / program.parent.name):
        place.mkdir(parents=True)
        (place / "core").write_bytes(b"planted")
        (place / "core.sha256").write_text(hashlib.sha256((7).to_bytes(8, "little") + b"planted").hexdigest())
    assert compile_core(build) == program and b"planted" not in program.read_bytes()
    shutil.rmtree(build.path / ".sim")


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "hwq" and stat.S_IMODE(cache_folder().stat().st_mode) == 0o700
    (tmp_path / "xdg" / "hwq").chmod(0o777)              # others could plant a program
    assert stat.S_IMODE(cache_folder().stat().st_mode) & 0o022 == 0
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / "home" / ".cache" / "hwq"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / "home" / ".cache" / "hwq"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    private = cache_folder()
    assert tmp_path not in private.parents and stat.S_IMODE(private.stat().st_mode) == 0o700 and cache_folder() == private
    monkeypatch.delenv("HOME")
    assert cache_folder() == private
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(os, "geteuid", lambda: 12345)    # the folder is another user's
    assert cache_folder() == private


def test_the_cache_keeps_to_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(verilate, "_KEPT", 2)
    for age, name in enumerate(("core-new", "core-newer", "core-old", "part.live", "verilator-x", "mnist"), 1):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - 60 * age,) * 2)
    (tmp_path / "part.dead").mkdir()
    os.utime(tmp_path / "part.dead", (1, 1))
    verilate._tidy(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"core-new", "core-newer", "part.live", "verilator-x", "mnist"}


@pytest.mark.slow
def test_netlist(builds):
    build, beats, results = builds(netlist=True)
    assert "SB_RAM40_4K" in (build.path / "netlist.v").read_text()
    got = simulate(build, compile_core(build, "netlist"), beats, stall=30, faults=40, seed=3)
    assert (got.beats == results).all()
