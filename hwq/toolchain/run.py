"""Runs tools: a process group each, a log each, a small environment, nothing left running."""

import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import EnvironmentError_, ToolError
from .find import Tool, find

__all__ = ["Child", "run", "run_many", "run_yosys", "require_output"]

# What tools need to find themselves, a temporary folder and their cache. The rest (locale, compiler flags of the user's
# shell, ...) could change what they make.
_KEPT = ("PATH", "HOME", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "USERPROFILE", "LOCALAPPDATA", "LD_LIBRARY_PATH",
         "PYTHONPATH", "VIRTUAL_ENV", "XDG_CACHE_HOME", "YOWASP_CACHE_DIR", "ZIG_GLOBAL_CACHE_DIR")
_TAIL = 20
_FULL = 1 << 16                                          # bytes; with less than that left, the disk counts as full
_NO_SPACE = re.compile("No space left on device|Disk quota exceeded")
_YOSYS = (0, 70)                                         # what hwq is made with; an older one may know less


class Child:
    """A running tool. As a context manager it kills the tool's whole process group when left early.

    Its temporary files go into a folder below ``cwd`` that is removed when it ends: a tool that is killed leaves them.

    Parameters
    ----------
    tool : Tool
        What to run.
    args : sequence of str
        Its arguments.
    log : Path
        Gets its standard output and standard error; its folder is made. A log in ``cwd`` itself counts as temporary, like
        all else there: errors quote its end but do not point to it.
    cwd : Path
        Where it runs.
    input : bytes or None
        Its standard input; None: empty.
    env : dict of str to str or None
        More environment variables.
    """

    def __init__(self, tool: Tool, args: Sequence[str], log: Path, cwd: Path, input: bytes | None = None,
                 env: dict[str, str] | None = None):
        self.tool, self.log = tool, Path(log)
        self._input, self._cwd = input, Path(cwd).resolve()
        self._scratch: str | None = None
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self._scratch = tempfile.mkdtemp(prefix=".tmp.", dir=self._cwd)
            temporary = {name: self._scratch for name in ("TMPDIR", "TEMP", "TMP")}
            with open(self.log, "wb") as stream:
                self._process = subprocess.Popen(
                    [*tool.command, *map(str, args)], stdout=stream, stderr=subprocess.STDOUT, cwd=cwd,
                    stdin=subprocess.DEVNULL if input is None else subprocess.PIPE, env=_environment(tool, temporary | (env or {})),
                    # Its own session: Ctrl-C reaches us only, and we end the tool with all that it started.
                    start_new_session=True)
        except OSError as error:
            self._clean()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full() from None
            raise EnvironmentError_(f"Cannot start {tool.name} ({tool.command[0]}) in {cwd}, log {log}: "
                                    f"{error.strerror}") from None

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Feed the input, wait, return the exit code. After ``timeout`` seconds: kill it, `ToolError`."""
        try:
            self._process.communicate(self._input, timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ToolError(f"{self.tool.name} did not end within {timeout:g} s and was killed.{self._tail()}") from None
        return self._process.returncode

    def check(self) -> str:
        """Return the log of a tool that has ended; raise `ToolError` with the log's end if it failed.

        A full disk is an `EnvironmentError_`: what tools say of it is rarely plain.
        """
        code = self._process.wait()
        self._clean()
        if code:
            if self._disk_is_full():
                raise self._full()
            reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise ToolError(f"{self.tool.name} {self.tool.version} failed ({reason}).{self._tail()}")
        return self.log.read_text(errors="replace")

    def _disk_is_full(self) -> bool:
        try:
            return bool(_NO_SPACE.search(self.log.read_text(errors="replace"))) or \
                any(shutil.disk_usage(place).free < _FULL for place in (self._cwd, self.log.parent))
        except OSError:
            return False

    def _full(self) -> EnvironmentError_:
        return EnvironmentError_(f"The disk that holds {self._cwd} is full: {self.tool.name} could not write. Free some there, "
                                 "and run again")

    def _clean(self) -> None:
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def kill(self) -> None:
        """End it and all that it started; no harm if it has ended."""
        if self._process.poll() is None:
            for number, patience in ((signal.SIGTERM, 1.0), (signal.SIGKILL, 10.0)):
                try:
                    os.killpg(self._process.pid, number)
                except (ProcessLookupError, PermissionError):
                    pass
                try:
                    self._process.wait(patience)
                    break
                except subprocess.TimeoutExpired:
                    continue
            try:                                         # grandchildren that outlived the child
                os.killpg(self._process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        if self._process.stdin:
            self._process.stdin.close()
        self._clean()

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL:]
        body = "".join(f"\n  | {line}" for line in lines) or "\n  (it printed nothing)"
        stays = self.log.parent.resolve() != self._cwd
        return (f" Its log is {self.log}; it ends:" if stays else " It printed at the end:") + body


def _environment(tool: Tool, extra: dict[str, str] | None) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "LC_ALL": "C", "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", **tool.env, **(extra or {})}


def run(tool: Tool | str, args: Sequence[str], log: Path, cwd: Path, input: bytes | None = None, *,
        env: dict[str, str] | None = None, timeout: float | None = None) -> str:
    """Run a tool to its end.

    Parameters
    ----------
    tool : Tool or str
        What to run; a name is looked up with `find`.
    args, log, cwd, input, env
        See `Child`.
    timeout : float or None
        Seconds after which it is killed.

    Returns
    -------
    str
        Its log.

    Raises
    ------
    ToolError
        It failed or took too long; the message has the log's last lines and its path.
    EnvironmentError_
        It is missing or cannot be started.
    """
    with Child(find(tool) if isinstance(tool, str) else tool, args, log, cwd, input, env) as child:
        child.wait(timeout)
        return child.check()


def run_many(tool: Tool, jobs: Sequence[tuple[Sequence[str], Path]], cwd: Path, *, parallel: int | None = None,
             env: dict[str, str] | None = None, keep_going: bool = False,
             watch: Callable[[Path], None] = lambda log: None) -> list[ToolError | None]:
    """Run a tool once for each (arguments, log), several at a time.

    The first failure ends them all, unless ``keep_going``: then every job runs to its end, and each one's error, or None,
    is returned in the order of the jobs. ``watch`` is called with the log of each that runs, every second or so; the
    `ToolError` that it raises ends that job, as its failure.
    """
    parallel = parallel or os.cpu_count() or 1
    waiting, running = list(enumerate(jobs))[::-1], dict[int, Child]()
    errors: list[ToolError | None] = [None] * len(jobs)
    looked = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                number, (args, log) = waiting.pop()
                running[number] = Child(tool, args, log, cwd, None, env)
            before, look = len(running), time.monotonic() > looked + 1
            for number, child in list(running.items()):
                ended = child.poll() is not None
                try:
                    if ended:
                        child.check()
                    elif look:
                        watch(child.log)
                except ToolError as error:
                    if not keep_going:
                        raise
                    errors[number], ended = error, True
                if ended:
                    child.kill()
                    del running[number]
            if look:
                looked = time.monotonic()
            if len(running) == before:
                time.sleep(0.02)
    finally:
        for child in running.values():
            child.kill()
    return errors


def run_yosys(script: str, log: Path, cwd: Path) -> str:
    """Run a Yosys script, and check that it wrote what its lines ``write_...`` name.

    Parameters
    ----------
    script : str
        Commands, one a line. It is kept beside the log, with the ending ``.ys``.
    log, cwd
        See `Child`; file names in the script are relative to ``cwd``.

    Returns
    -------
    str
        The log.

    Raises
    ------
    ToolError, EnvironmentError_
        See `run`.
    """
    path = Path(log).resolve().with_suffix(".ys")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    tool = find("yosys")
    try:
        text = run(tool, ["-s", str(path)], log, cwd)
        require_output(tool, log, *(Path(cwd) / line.split()[-1] for line in script.splitlines() if line.startswith("write_")))
    except ToolError as error:
        raise ToolError(f"{error}{_age(tool)}") from None
    return text


def _age(tool: Tool) -> str:
    """Say that a Yosys is older than what hwq is made with, if so."""
    version = re.match(r"(\d+)\.(\d+)", tool.version)
    if not version or (int(version[1]), int(version[2])) >= _YOSYS:
        return ""
    return (f"\nThis Yosys ({tool.origin}) is {tool.version}, older than the {_YOSYS[0]}.{_YOSYS[1]} that hwq is tested with: "
            f"pip install pyosys=={_YOSYS[0]}.{_YOSYS[1]}"
            + (f", and unset {tool.origin}" if tool.origin.startswith("HWQ_") else ""))


def require_output(tool: Tool, log: Path, *files: Path) -> None:
    """Raise `ToolError` where a tool that has ended well did not make a file."""
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ToolError(f"{tool.name} {tool.version} ({' '.join(tool.command[:1])}) ended without an error, but made no output: "
                        f"{', '.join(missing)} is missing. Is it {tool.name}? Its log is {log}")
