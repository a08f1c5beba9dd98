"""Pictures of searches, experiments and plans (extra ``plot``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import EnvironmentError_
from .files import write_atomic

__all__ = ["pareto", "curves", "areas"]


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
        write_atomic(path, lambda stream: figure.savefig(stream, format=path.suffix[1:],
                                                         metadata={"Date": None} if path.suffix == ".svg" else None))


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


def areas(rows: Sequence[dict[str, Any]], cycles: int, path: Path, title: str = "") -> None:
    """Draw cycles a frame against logic cells of every layer of a plan: what lies right is slow, what lies high is large.

    Parameters
    ----------
    rows : sequence of dict
        ``layer``, ``cycles``, ``lc``, ``ebr`` of each; the marker grows with the block RAMs.
    cycles : int
        Of the whole plan: a vertical line.
    path : path
        ``.svg`` or ``.png``.
    """
    figure = _figure()
    axes = figure.add_subplot()
    places = [max(1, row["cycles"]) for row in rows]
    axes.set(xscale="log", xlim=(min(places) / 1.5, max(*places, cycles) * 1.5))          # one layer alone has no range
    axes.scatter(places, [row["lc"] for row in rows], s=[30 + 25 * row["ebr"] for row in rows], alpha=0.6)
    for place, row in zip(places, rows, strict=True):
        blocks = f", {row['ebr']} block RAMs" if row["ebr"] else ""
        axes.annotate(f"{row['layer']}{blocks}", (place, row["lc"]), xytext=(-8, 6), textcoords="offset points", ha="right",
                      fontsize="small")
    axes.axvline(cycles, linestyle="--", color="0.3", label=f"{cycles:,} cycles a frame")
    axes.set(title=title, xlabel="cycles a frame", ylabel="logic cells (estimate)")
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)
