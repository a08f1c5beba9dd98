"""The start of the command line: an interrupt at any time, and what it may cost."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from hwq.cli import app
from hwq.cli.commands import COMMANDS


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("module", ["typer", "rich", "numpy", "hwq.ir", "amaranth"])
@pytest.mark.parametrize("number, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_interrupt_while_it_starts(tmp_path, module, number, code):
    """Ctrl-C in the first half second, as an import begins."""
    script = ("import os, signal, sys\n"
              "class Finder:\n"
              "    def find_spec(self, name, path=None, target=None):\n"
              f"        if name == {module!r}:\n"
              "            sys.meta_path.remove(self)\n"
              f"            os.kill(os.getpid(), signal.{number})\n"
              "sys.meta_path.insert(0, Finder())\n"
              "from hwq.cli import main; main()")
    done = subprocess.run([sys.executable, "-c", script, "run", "x.png", "--port", "sim:."], capture_output=True, text=True,
                          cwd=tmp_path, check=False)
    assert done.returncode == code and done.stderr.strip() == "hwq: interrupted", done.stderr


def test_every_command_is_there_and_helps():
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "160"}).stdout
    for name in COMMANDS:
        assert f" {name} " in text
        done = CliRunner().invoke(app, [name, "-h"])
        assert done.exit_code == 0 and f" {name} " in done.stdout.split("\n")[1]
    mistyped = CliRunner().invoke(app, ["bild"])
    assert mistyped.exit_code == 2 and "Did you mean 'build'" in mistyped.output
    assert "Usage:" in CliRunner().invoke(app, []).output


def test_a_command_imports_what_it_needs():
    script = ("import sys\nfrom hwq.cli.commands import app\n"
              "try: app(['--version'])\nexcept SystemExit: print(*sys.modules)")
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "hwq.cli" in loaded and not {"numpy", "amaranth", "torch"} & set(loaded)
