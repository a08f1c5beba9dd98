"""Ctrl-C, full disks, folders that cannot be written: a worded error, the right exit code, nothing left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from hwq.sim import verify

from .conftest import hwq, need


@pytest.fixture(autouse=True)
def _tools():
    need("verilator", "c++")


def users_of(folder):
    """Processes whose command line or working folder names ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace") + os.readlink(process / "cwd")
        except OSError:
            continue
        if str(folder) in words and process.name != str(os.getpid()):
            found.append((process.name, words))
    return found


def interrupt_when(arguments, environment, ready, number=signal.SIGINT):
    """Start the command, send a signal once ``ready()``; return exit code and standard error."""
    child = subprocess.Popen([sys.executable, "-c", "from hwq.cli import main; main()", *map(str, arguments)],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    try:
        deadline = time.monotonic() + 120
        while not ready():
            assert child.poll() is None and time.monotonic() < deadline, child.communicate()
            time.sleep(0.01)
        time.sleep(0.2)
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
        return child.returncode, errors
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("number, expected", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_while_it_simulates(board, tmp_path, number, expected):
    verify(board, images=1)                              # compiled: only the simulation is left to do
    np.savez(tmp_path / "many.npz", images=np.zeros((30_000, 6, 6, 2), np.uint8))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code, errors = interrupt_when(["verify", board, "--data", tmp_path / "many.npz"], {"TMPDIR": str(scratch)},
                                  lambda: any(file.stat().st_size for file in scratch.glob("hwq-sim-*/out0")), number)
    assert code == expected and "Traceback" not in errors
    assert list(scratch.iterdir()) == [] and users_of(scratch) == []


def test_interrupt_while_it_compiles(board, tmp_path):
    cache = tmp_path / "cache" / "hwq"
    code, errors = interrupt_when(["verify", board], {"XDG_CACHE_HOME": str(cache.parent)}, lambda: any(cache.glob("part.*/*.cpp")))
    assert code == 130 and "Traceback" not in errors
    assert not [path for path in cache.iterdir() if not path.name.startswith("verilator-")] and users_of(tmp_path) == []


def test_interrupt_of_the_benches(copy, tmp_path):
    need("iverilog", "vvp")
    pytest.importorskip("cocotb_tools.runner")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code, errors = interrupt_when(["verify", copy, "--simulator", "cocotb-icarus"], {"TMPDIR": str(scratch)},
                                  lambda: any(scratch.glob("hwq-cocotb-*/sim.vvp")))
    assert code == 130 and "Traceback" not in errors and users_of(scratch) == []
    assert list(scratch.iterdir()) == []


def test_a_build_folder_that_cannot_be_written(copy, tmp_path):
    shutil.rmtree(copy / "logs")
    (copy / "logs").write_text("a file in place of the folder")
    message = hwq("verify", copy, code=5, XDG_CACHE_HOME=str(tmp_path))      # nothing is compiled yet
    assert "Cannot" in message and "logs" in message


@contextmanager
def small_disk(place, size):
    """Mount a RAM disk of ``size`` bytes; skip where that is not allowed."""
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, text=True,
                          check=False) if os.geteuid() == 0 else None
    if done is None or done.returncode:
        pytest.skip("no RAM disk for the full disk: mounting one takes root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_for_temporary_files(board, tmp_path):
    verify(board, images=1)
    np.savez(tmp_path / "many.npz", images=np.zeros((6000, 6, 6, 2), np.uint8))
    beats = 6000 * 6 * 6 * 2
    for size in (beats // 2, beats + 8192 * 6):          # no room for the frames; room for them but not for the results
        with small_disk(tmp_path / f"disk{size}", size) as disk:
            message = hwq("verify", board, "--data", tmp_path / "many.npz", code=5, TMPDIR=str(disk))
            assert f"Cannot write the simulation's files in {disk}: " in message and "No space left on device" in message
            assert list(disk.iterdir()) == []


def test_a_full_disk_for_the_compiler(board, tmp_path):
    with small_disk(tmp_path / "disk", 4 << 20) as disk:
        free = os.statvfs(disk)
        (disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - 200_000))
        done = subprocess.run([sys.executable, "-c", "from hwq.cli import main; main()", "verify", str(board)], capture_output=True,
                              text=True, check=False, timeout=120, env={**os.environ, "XDG_CACHE_HOME": str(disk)})
        assert done.returncode == 5 and done.stderr.startswith(f"hwq: error: The disk that holds {disk}"), done.stderr
        assert list((disk / "hwq").iterdir()) == []
