"""The command line: one command a file, each a thin call of the Python API. The only place that prints or exits.

Exit codes: 0 done, 1 wrong model or input, 2 usage, 3 does not fit, 4 a tool failed, 5 something is missing on this
machine, 6 a check found a difference, 130 interrupted.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["app", "main", "progress"]        # `app` is made on first use


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .commands import app
    return app


@contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done on a terminal's last line (standard error); silent elsewhere."""
    from rich.console import Console
    with Console(stderr=True).status(title) as status:
        yield lambda text: status.update(f"{title}: {text}")


def _stop_once() -> list[int]:
    """Let the first signal that ends us be an exception, so that tools are ended and files removed; later ones wait for that.

    Returns a list that will hold the signal's number.
    """
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    stopped: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        stopped.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:   # nohup
            signal.signal(number, stop)
    return stopped


def main() -> None:
    """Run the command line and exit."""
    stopped = _stop_once()
    from ..errors import HwqError
    try:
        from .commands import app  # takes its time, in which Ctrl-C must work too
        app()
    except HwqError as error:
        print(f"hwq: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit):
        if not stopped:
            raise
        print("hwq: interrupted", file=sys.stderr)
        sys.exit(128 + stopped[0])
