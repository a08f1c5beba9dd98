"""Finding and running tools: what is missing, what fails, and that nothing is left running."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from hwq.errors import EnvironmentError_, ToolError
from hwq.toolchain import TOOLS, Child, Tool, find, run, run_many, run_yosys, versions

PYTHON = Tool("python", [sys.executable], "3", "test")


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """No PATH, no packages, no variables."""
    monkeypatch.setenv("PATH", str(tmp_path))
    # The function `find` hides the module of that name.
    monkeypatch.setattr(sys.modules["hwq.toolchain.find"], "_package_folder", lambda module: None)
    for name in ("CXX", *("HWQ_" + tool.upper().replace("-", "_") for tool in TOOLS)):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("tool", TOOLS)
def test_missing_tool_says_where_and_what_helps(bare, tool):
    with pytest.raises(EnvironmentError_) as caught:
        find(tool)
    text = str(caught.value)
    assert text.startswith(f"{tool} is missing. Looked for: the environment variable ")
    assert "on PATH" in text and ("pip install" in text or "apt install" in text)
    assert caught.value.exit_code == 5


def test_missing_in_report(bare):
    assert set(versions().values()) == {"missing"}


def test_variable_names_nothing(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -x")
    with pytest.raises(EnvironmentError_, match="variable CXX names 'no-such-compiler'"):
        find("c++")


@pytest.mark.parametrize("text", ["'g++", " "])
def test_variable_that_is_no_command_line(monkeypatch, text):
    monkeypatch.setenv("CXX", text)
    with pytest.raises(EnvironmentError_, match="variable CXX names .*, which is no command here; correct it or unset it"):
        find("c++")


@pytest.mark.parametrize("variable", ["HWQ_VERILATOR", "CXX"])
def test_a_wrong_variable_is_no_missing_tool(monkeypatch, variable):
    """No other simulator in silence: the user asked for this one."""
    from hwq.sim.verify import choose_simulator
    monkeypatch.setenv(variable, "/nope")
    with pytest.raises(EnvironmentError_, match=f"variable {variable} names '/nope'"):
        choose_simulator("rtl")


def test_variable_wins(monkeypatch):
    monkeypatch.setenv("HWQ_VVP", f"{sys.executable} -c pass")
    tool = find("vvp")
    assert tool.command == [sys.executable, "-c", "pass"] and tool.origin == "HWQ_VVP"


def test_unknown_tool():
    with pytest.raises(EnvironmentError_, match="Tool 'vivado' is unknown; known are yosys"):
        find("vivado")


def test_failure_has_the_end_of_the_log(tmp_path):
    code = "import sys; [print('line', k) for k in range(50)]; sys.exit(3)"
    with pytest.raises(ToolError) as caught:
        run(PYTHON, ["-c", code], tmp_path / "logs" / "x.log", tmp_path)
    text = str(caught.value)
    assert "exit code 3" in text and str(tmp_path / "logs" / "x.log") in text
    assert "| line 49" in text and "| line 30" in text and "line 29\n" not in text


@pytest.mark.parametrize("words", ["/tmp/x.s: No space left on device", "as: Disk quota exceeded"])
def test_a_full_disk_is_recognised(tmp_path, words):
    with pytest.raises(EnvironmentError_,
                       match=f"The disk that holds {tmp_path} is full: python could not write. Free some") as caught:
        run(PYTHON, ["-c", f"import sys; print('junk {words} junk'); sys.exit(1)"], tmp_path / "x.log", tmp_path)
    assert caught.value.exit_code == 5


def test_temporary_files_go(tmp_path):
    """Also those of a tool that fails, takes too long or is killed."""
    code = "import tempfile; print(tempfile.mkdtemp()); "
    assert run(PYTHON, ["-c", code], tmp_path / "x.log", tmp_path).startswith(str(tmp_path))
    for end in ("raise SystemExit(1)", "import time; print(flush=True); time.sleep(60)"):
        with pytest.raises(ToolError):
            run(PYTHON, ["-c", code + end], tmp_path / "x.log", tmp_path, timeout=0.5)
    with Child(PYTHON, ["-c", code + "import time; time.sleep(60)"], tmp_path / "x.log", tmp_path) as child:
        while not child.log.read_text():
            time.sleep(0.02)
    run_many(PYTHON, [(["-c", code], tmp_path / f"{k}.log") for k in range(3)], tmp_path)
    assert all(path.suffix == ".log" for path in tmp_path.iterdir())


def test_yosys_that_makes_nothing_or_is_old(tmp_path, monkeypatch):
    older = "older than the 0.70 that hwq is tested with: pip install pyosys==0.70, and unset HWQ_YOSYS"
    for number, (text, extra) in enumerate((("echo Yosys 0.70", ""), ("echo Yosys 0.23", f"0.23, {older}"),
                                            ("echo Yosys 0.9; [ $1 = -V ]", f"0.9, {older}"))):
        tool = tmp_path / f"yosys{number}"
        tool.write_text(f"#!/bin/sh\n{text}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("HWQ_YOSYS", str(tool))
        with pytest.raises(ToolError) as caught:
            run_yosys("read_verilog a.v\nwrite_verilog -noattr b.v\n", tmp_path / "y.log", tmp_path)
        message = str(caught.value).replace("\n", " ")
        assert re.search(extra or "made no output: b.v is missing. Is it yosys", message), message
        assert caught.value.exit_code == 4 and ("older" in message) == bool(extra)


def test_a_log_that_goes_is_quoted_only(tmp_path):
    with pytest.raises(ToolError, match=r"exit code 1\). It printed at the end:\n  \| why") as caught:
        run(PYTHON, ["-c", "print('why'); raise SystemExit(1)"], tmp_path / "x.log", tmp_path)
    assert "x.log" not in str(caught.value)


def test_input_and_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_FLAGS", "-x")
    code = "import os, sys; print(sys.stdin.read(), os.environ.get('SECRET_FLAGS'), os.environ['LC_ALL'])"
    assert run(PYTHON, ["-c", code], tmp_path / "x.log", tmp_path, b"hello").split() == ["hello", "None", "C"]


def test_timeout_kills(tmp_path):
    with pytest.raises(ToolError, match="did not end within 0.3 s"):
        run(PYTHON, ["-c", "import time; time.sleep(60)"], tmp_path / "x.log", tmp_path, timeout=0.3)


def _running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_interrupt_leaves_nothing_running(tmp_path):
    """Ctrl-C while a tool with a child of its own runs."""
    inner = "import os,time; open('pid','a').write(f'{os.getpid()}\\n'); time.sleep(60)"
    outer = f"import subprocess,sys,os; open('pid','a').write(f'{{os.getpid()}}\\n'); " \
            f"subprocess.run([sys.executable, '-c', {inner!r}])"
    script = ("from pathlib import Path; import sys; from hwq.toolchain import run, Tool; "
              f"run(Tool('t', [sys.executable], '1', 'x'), ['-c', {outer!r}], Path('x.log'), Path('.'))")
    child = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    pids = []
    while len(pids) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        pids = (tmp_path / "pid").read_text().split() if (tmp_path / "pid").exists() else []
    assert len(pids) == 2
    os.kill(child.pid, signal.SIGINT)
    assert child.wait(20) != 0
    assert not any(_running(pid) for pid in pids)


def test_run_many_stops_at_the_first_failure(tmp_path):
    begin = time.monotonic()
    jobs = [(["-c", "import time; time.sleep(30)"], tmp_path / "a.log"),
            (["-c", "raise SystemExit(2)"], tmp_path / "b.log")]
    with pytest.raises(ToolError, match="exit code 2"):
        run_many(PYTHON, jobs, tmp_path, parallel=2)
    assert time.monotonic() - begin < 15


def test_leaving_a_child_kills_it(tmp_path):
    with Child(PYTHON, ["-c", "import time; time.sleep(60)"], tmp_path / "x.log", tmp_path) as child:
        assert child.poll() is None
    assert child.poll() is not None


def test_yosys_in_a_folder_with_spaces(tmp_path):
    folder = tmp_path / "a b"
    folder.mkdir()
    (folder / "a.v").write_text("module a(input x, output y); assign y = ~x; endmodule\n")
    log = run_yosys("# comment\nread_verilog a.v\nproc; \\\nstat", folder / "logs" / "y.log", folder)
    assert "1 cells" in log and (folder / "logs" / "y.ys").is_file()
    with pytest.raises(ToolError, match="b.v' not found"):
        run_yosys("read_verilog b.v", folder / "logs" / "y.log", folder)
