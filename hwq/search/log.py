"""An append-only log, one JSON object a line. It survives interruptions: a torn last line is cut off, known ones not repeated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import EnvironmentError_, FormatError
from ..files import write_atomic

__all__ = ["Log", "read_log"]


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a log; a torn last line is left out.

    Raises
    ------
    FormatError
        A line before the last is no JSON object.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError:
            if number < len(lines):
                raise FormatError(f"{path}, line {number} is no JSON: {line[:60]!r}; restore it or delete the line") from None
    return rows


class Log:
    """Appends rows; one that is there already (same event, parent, bits and key) is only reported.

    Parameters
    ----------
    path : path
        The file; made with its first row.
    report : row -> None
        Called with every row, repeated ones too.
    """

    def __init__(self, path: Path, report: Callable[[dict[str, Any]], None] = lambda row: None) -> None:
        self.path, self.report = path, report
        rows = read_log(path)
        self._known = {self._name(row) for row in rows}
        if path.exists():                              # without the torn end
            whole = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
            if path.read_bytes() != whole:
                write_atomic(path, whole)

    @staticmethod
    def _name(row: dict[str, Any]) -> str:
        return json.dumps([row.get(key) for key in ("event", "parent", "key", "bits", "cell")], sort_keys=True)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, on disk when this returns."""
        if self._name(row) not in self._known:
            self._known.add(self._name(row))
            try:
                with self.path.open("ab") as stream:
                    stream.write(json.dumps(row).encode() + b"\n")
            except OSError as error:
                raise EnvironmentError_(f"Cannot write {self.path}: {error.strerror}") from None
        self.report(row)
