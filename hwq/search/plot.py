"""Pictures of searches and experiments (extra ``plot``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import EnvironmentError_
from ..files import write_atomic

__all__ = ["pareto", "curves"]


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise EnvironmentError_("Pictures need matplotlib: pip install 'hwq[plot]'") from None
    return Figure(figsize=(7, 4.5), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    """Write the picture; the same figure gives the same bytes."""
    from matplotlib import rc_context
    with rc_context({"svg.hashsalt": "hwq"}):
        write_atomic(path, lambda stream: figure.savefig(stream, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None))


def pareto(rows: Sequence[dict[str, Any]], path: Path, title: str = "", label: str = "weight memory, kbit") -> None:
    """Draw accuracy against weight memory of every candidate in a log, the accepted path, and the reference.

    Parameters
    ----------
    rows : sequence of dict
        Lines of ``log.jsonl``.
    path : path
        ``.svg`` or ``.png``.
    """
    figure = _figure()
    axes = figure.add_subplot()
    tried = [row for row in rows if row["event"] == "candidate"]
    axes.plot([row["size"] / 1000 for row in tried], [100 * row["accuracy"] for row in tried], ".", color="0.6", label="candidates")
    front, best = [], -1.0
    for row in sorted(tried, key=lambda row: (row["size"], -row["accuracy"])):
        if row["accuracy"] > best:
            best = row["accuracy"]
            front.append(row)
    axes.step([row["size"] / 1000 for row in front], [100 * row["accuracy"] for row in front], where="post", label="Pareto front")
    for row in rows:
        if row["event"] == "reference":
            axes.axhline(100 * row["accuracy"], linestyle="--", color="0.3", label="float, same extra training")
    axes.set(xlabel=label, ylabel="accuracy on the search split, %", title=title)
    axes.legend()
    axes.grid(alpha=0.3)
    _save(figure, path)


def curves(lines: Mapping[str, Sequence[tuple[float, float, float]]], path: Path, *, title: str, xlabel: str, ylabel: str) -> None:
    """Draw lines of (x, y, half interval)."""
    figure = _figure()
    axes = figure.add_subplot()
    for name, points in lines.items():
        points = sorted(points)
        axes.errorbar([p[0] for p in points], [p[1] for p in points], [0.0 if p[2] != p[2] else p[2] for p in points], marker="o",
                      capsize=3, label=name)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    _save(figure, path)
