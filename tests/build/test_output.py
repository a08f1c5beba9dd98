"""The output folder: whole or not at all, whatever happens."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hwq.build import build
from hwq.build.output import output_folder
from hwq.errors import EnvironmentError_, FormatError, ToolError
from hwq.ir import save

from .small import small_graph


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def fill(work, text="new"):
    (work / "manifest.json").write_text('{"format": 1, "model_hash": "00", "files": {"x": "00"}}')
    (work / "x").write_text(text)


def test_new_and_again(tmp_path):
    for text in ("one", "two"):
        with output_folder(tmp_path / "a" / "b") as work:
            fill(work, text)
            assert not (tmp_path / "a" / "b").exists() or text == "two"
        assert tree(tmp_path) == ["a", "a/b", "a/b/manifest.json", "a/b/x"]
        assert (tmp_path / "a" / "b" / "x").read_text() == text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError, EnvironmentError_])
def test_failure_keeps_the_earlier_build(tmp_path, error):
    out = tmp_path / "out"
    with output_folder(out) as work:
        fill(work, "old")
    with pytest.raises(error), output_folder(out) as work:
        fill(work)
        raise error("x")
    assert tree(tmp_path) == ["out", "out/manifest.json", "out/x"] and (out / "x").read_text() == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt, EnvironmentError_])
def test_failure_removes_the_folders_it_made(tmp_path, error):
    with pytest.raises(error), output_folder(tmp_path / "a" / "b" / "c") as work:
        fill(work)
        raise error("x")
    assert tree(tmp_path) == []


def test_logs_of_a_failure_stay_where_the_message_says(tmp_path):
    for number in range(2):
        with pytest.raises(ToolError) as caught, output_folder(tmp_path / "out") as work:
            (work / "logs").mkdir()
            (work / "logs" / "t.log").write_text(f"broke {number}")
            raise ToolError(f"t failed. Its log is {work / 'logs' / 't.log'}; it ends:")
        kept = tmp_path / "out.logs" / "t.log"
        assert str(kept) in str(caught.value) and kept.read_text() == f"broke {number}"
        assert tree(tmp_path) == ["out.logs", "out.logs/t.log"]
    # A folder of the user's with that name stays as it is.
    (tmp_path / "out.logs" / "thesis.txt").write_text("mine")
    with pytest.raises(ToolError) as caught, output_folder(tmp_path / "out") as work:
        (work / "logs").mkdir()
        (work / "logs" / "t.log").write_text("broke")
        raise ToolError("t failed")
    assert "out.logs.2" in str(caught.value) and (tmp_path / "out.logs" / "thesis.txt").read_text() == "mine"


def test_refusals(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = tree(tmp_path)
    for name, text in (("file", "is a file"),
                       ("taken", r"holds something that is no build \(thesis.txt\)"), ("link", "link to nowhere"),
                       ("file/x", "Cannot write to .*file is a file"), ("file/x/y", "Cannot write to .*file is a file")):
        with pytest.raises(FormatError, match=text), output_folder(tmp_path / name):
            raise AssertionError("never gets here")
        assert tree(tmp_path) == before
    # A link to a folder is that folder.
    (tmp_path / "target").mkdir()
    (tmp_path / "good").symlink_to(tmp_path / "target")
    with output_folder(tmp_path / "good") as work:
        fill(work)
    assert (tmp_path / "good").is_symlink() and (tmp_path / "target" / "x").exists()
    monkeypatch.chdir(tmp_path / "taken")
    (tmp_path / "taken" / "thesis.txt").unlink()
    for name in (".", "../../" + tmp_path.name + "/taken"):
        with pytest.raises(FormatError, match="is the current folder"), output_folder(Path(name)):
            raise AssertionError("never gets here")


def test_other_files_in_an_earlier_build_are_no_prey(tmp_path):
    """What the manifest does not list, hwq did not make: it would be lost."""
    out = tmp_path / "out"
    with output_folder(out) as work:
        fill(work, "old")
    for name in ("thesis.txt", "sub/thesis.txt", "logs/thesis.txt"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
        with pytest.raises(FormatError, match=f"holds files that hwq did not make.*{name}.*move them"), output_folder(out):
            raise AssertionError("never gets here")
        assert (out / name).read_text() == "mine" and (out / "x").read_text() == "old"
        (out / name).unlink()
    # The same when they come while the new one is built.
    with pytest.raises(FormatError, match="thesis.txt"), output_folder(out) as work:
        fill(work)
        (out / "thesis.txt").write_text("mine")
    assert (out / "thesis.txt").read_text() == "mine" and (out / "x").read_text() == "old"
    (out / "thesis.txt").unlink()
    # What hwq and the commands of README.txt leave goes; so do empty folders.
    for name in ("logs/a.log", "logs/a.ys", "logs/pnr.json", ".sim/key/core", "accel_tb.vvp", "obj_dir/Vaccel_tb"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x")
    with output_folder(out) as work:
        fill(work)
    assert tree(out) == ["manifest.json", "x"] and (out / "x").read_text() == "new"


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"name": "my web app", "icons": []}',
                                  '{"format": 1, "model_hash": "0", "files": []}'])
def test_just_any_manifest_is_no_build(tmp_path, text):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text(text)
    with pytest.raises(FormatError, match=r"holds something that is no build \(manifest.json\); give another one with -o"), \
            output_folder(tmp_path / "app"):
        raise AssertionError("never gets here")
    assert (tmp_path / "app" / "manifest.json").read_text() == text


def test_unwritable_place(tmp_path):
    if os.geteuid() == 0:
        place = Path("/proc/hwq-test")                   # root may write anywhere else
    else:
        place = tmp_path / "locked"
        place.mkdir(mode=0o555)
    with pytest.raises(EnvironmentError_, match="Cannot write to .*; give another place with -o"), output_folder(place / "out"):
        raise AssertionError("never gets here")


def test_one_build_at_a_time(tmp_path):
    with output_folder(tmp_path / "out") as work:
        with pytest.raises(EnvironmentError_, match="Another build is writing to"), output_folder(tmp_path / "out"):
            raise AssertionError("never gets here")
        with output_folder(tmp_path / "other") as other:
            fill(other)
        fill(work)
    assert tree(tmp_path) == ["other", "other/manifest.json", "other/x", "out", "out/manifest.json", "out/x"]


def test_a_killed_build_is_no_hindrance(tmp_path):
    """What a process that was killed outright leaves, the next build clears; an earlier build it had set aside comes back."""
    code = ("import os, sys; from pathlib import Path; from hwq.build.output import output_folder\n"
            "with output_folder(Path(sys.argv[1])) as work:\n    (work / 'x').write_text('half'); os._exit(9)\n")
    out = tmp_path / "out"
    with output_folder(out) as work:
        fill(work, "old")
    assert subprocess.run([sys.executable, "-c", code, out], check=False).returncode == 9
    assert (tmp_path / ".out.building").exists()
    out.rename(tmp_path / ".out.old")
    with pytest.raises(EnvironmentError_), output_folder(out):
        raise EnvironmentError_("x")
    assert tree(tmp_path) == ["out", "out/manifest.json", "out/x"] and (out / "x").read_text() == "old"


@pytest.mark.parametrize("stage", range(3))
def test_interrupt_at_every_stage(tmp_path, stage):
    stages = []

    def say(text):
        stages.append(text)
        if len(stages) == stage + 1:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        build(small_graph(), tmp_path / "out", target="verilog", say=say)
    assert tree(tmp_path) == []


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number, code, tool", [(signal.SIGINT, 130, "HWQ_YOSYS"), (signal.SIGTERM, 143, "HWQ_YOSYS"),
                                                (signal.SIGINT, 130, "HWQ_NEXTPNR_ICE40")])
def test_signal_ends_the_tools_and_leaves_nothing(tmp_path, number, code, tool):
    (tmp_path / "tool.py").write_text("import os, sys, time\nif '-V' in sys.argv or "
                                      "'--version' in sys.argv: sys.exit(print('1.0'))\n"
                                      "open(os.environ['HOME'] + '/pid', 'w').write(str(os.getpid()))\ntime.sleep(100)\n")
    place = tmp_path / "place"
    place.mkdir()
    save(small_graph(), place / "m.hwq")
    env = {**os.environ, tool: f"{sys.executable} {tmp_path / 'tool.py'}", "HOME": str(tmp_path)}
    child = subprocess.Popen([sys.executable, "-c", "from hwq.cli import main; main()", "build", "m.hwq", "-o", "deep/out"],
                             cwd=place, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline and child.poll() is None, child.communicate()
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    child.send_signal(number)
    child.send_signal(number)                            # an impatient second time must not leave half of it
    _, err = child.communicate(timeout=30)
    assert child.returncode == code and err.strip().endswith("hwq: interrupted") and "Traceback" not in err
    assert not running(pid) and tree(place) == ["m.hwq"]


@pytest.mark.parametrize("kilobytes", [4, 60, 300])
def test_full_disk(tmp_path, kilobytes):
    """A small file system: full at the first file, in the middle, and while Yosys writes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk],
                      capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        with pytest.raises(EnvironmentError_, match=f"The disk that holds {disk} is full") as caught:
            build(small_graph(), disk / "out", target="verilog")
        assert caught.value.exit_code == 5
        assert [name for name in tree(disk) if not name.startswith("out.logs")] == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_smallest_design_that_is_fast_enough(tmp_path):
    fast, slow = (build(small_graph(), tmp_path / "out", target="verilog", max_cycles=cycles) for cycles in (None, 700))
    assert fast["cycles"] < slow["cycles"] <= 700
