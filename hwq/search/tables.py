"""Tables of the paper's experiment: JSON, CSV, Markdown, and pictures where matplotlib is installed."""

import csv
import io
import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import EnvironmentError_, FormatError
from ..files import write_atomic
from ..plot import curves, pareto
from .log import read_log
from .paper import Experiment
from .stats import mean_interval

__all__ = ["read_rows", "write_tables"]


def _pm(pair: tuple[float, float], digits: int = 2) -> str:
    mean, half = pair
    return f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


def _plain(value: Any) -> Any:
    """Return JSON values: NaN (the interval of a single seed) becomes null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def read_rows(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of cells and of scaling that `write_tables` wrote to a folder, none where it did not.

    Raises
    ------
    FormatError
        ``table.json`` is damaged.
    """
    path = folder / "table.json"
    if not path.exists():
        return [], []

    def number(value: Any) -> Any:
        return [math.nan if item is None else item for item in value] if isinstance(value, list) else value
    try:
        table = json.loads(path.read_text())
        return tuple([{key: number(value) for key, value in row.items()} for row in table[part]] for part in ("cells", "scaling"))   # type: ignore[return-value]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise FormatError(f"{path} is damaged ({error}); delete it, what it says is then read from the trainings again") from None


def _scaled(experiment: Experiment) -> list[dict[str, Any]]:
    """One row a kind of format and rule, and a set of given widths: means over the seeds."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in experiment.scaling:
        groups.setdefault((row["format"], row["rule"], str(row["bits"]) if row["rule"] == "given" else ""), []).append(row)
    rows = []
    for (kind, rule, _), group in groups.items():
        rows.append({"format": kind, "rule": rule, "seeds": len(group), "met": all(row["met"] for row in group),
                     "mean_bits": mean_interval([row["mean_bits"] for row in group]),
                     "ratio": mean_interval([row["ratio"] for row in group]),
                     "ratio_everything": mean_interval([row["ratio_everything"] for row in group]),
                     "confirm_drop": mean_interval([row["confirm_drop"][0] for row in group]),
                     "test_drop": mean_interval([row["test_drop"][0] for row in group]),
                     "test_drop_float_activations": mean_interval([100 * (row["reference"]["test"] - row["float_activations"])
                                                                   for row in group]),
                     "bits": [row["bits"] for row in group]})
    return rows


def _markdown(experiment: Experiment, title: str, scaled: list[dict[str, Any]]) -> str:
    lines = [f"# {title}", "",
             f"Float network with the same extra training: {_pm(experiment.reference)} % on the test set. Drops are paired, in "
             f"percentage points, mean of {len(experiment.seeds)} seeds ± 95 % interval; 8-bit activations unless said otherwise. "
             "Negative: better than float.", "",
             "| format | scale rule | bits | fine-tuning | choice | accuracy, % | drop | drop, float activations "
             "| ratio, weights | ratio, all |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for row in experiment.rows:
        lines.append(f"| {row['format']} | {row['rule']} | {row['bits']} | {row['tuning']} | "
                     f"{'' if row['choice'] is None else format(row['choice'], 'g')} | {_pm(row['accuracy'])} | {_pm(row['drop'])} "
                     f"| {_pm(row['drop_float_activations'])} | {row['ratio']:.2f} | {row['ratio_everything']:.2f} |")
    if scaled:
        lines += ["", "## Layer-wise scaling", "",
                  "| format | rule | seeds | mean bits | ratio, weights | ratio, all | drop, confirmation | drop, test | "
                  "drop, test, float activations | bits |",
                  "|---|---|---|---|---|---|---|---|---|---|"]
        for row in scaled:
            bits = "; ".join(" ".join(map(str, found.values())) for found in row["bits"])
            lines.append(f"| {row['format']} | {row['rule']} | {row['seeds']} | {_pm(row['mean_bits'])} | {_pm(row['ratio'])} | "
                         f"{_pm(row['ratio_everything'])} | {_pm(row['confirm_drop'])} | {_pm(row['test_drop'])} | "
                         f"{_pm(row['test_drop_float_activations'])} | {bits}{'' if row['met'] else ' (allowed drop not met)'} |")
    return "\n".join(lines) + "\n"


def _csv(experiment: Experiment) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    pairs = ("accuracy", "drop", "drop_float_activations")
    plain = ("format", "rule", "bits", "tuning", "choice", "seeds", "ratio", "ratio_everything")
    writer.writerow([*plain, *(f"{name}{end}" for name in pairs for end in ("", "_half_interval"))])
    for row in experiment.rows:
        writer.writerow([*(row[name] for name in plain), *(value for name in pairs for value in row[name])])
    return text.getvalue()


def write_tables(experiment: Experiment, folder: Path, title: str) -> None:
    """Write ``table.json``, ``table.csv``, ``table.md``, ``drop-<rule>.svg`` and ``pareto-<format>-<seed>.svg`` of what was run."""
    scaled = _scaled(experiment)
    write_atomic(folder / "table.json", json.dumps(_plain({"title": title, **experiment.facts(), "reference": experiment.reference,
                                                           "cells": experiment.rows, "scaling": experiment.scaling,
                                                           "scaled": scaled}), indent=1).encode())
    write_atomic(folder / "table.csv", _csv(experiment).encode())
    write_atomic(folder / "table.md", _markdown(experiment, title, scaled).encode())
    with suppress(EnvironmentError_):                    # without matplotlib the tables are all there is
        _pictures(experiment, folder, title)


def _pictures(experiment: Experiment, folder: Path, title: str) -> None:
    for rule in ("mse", "range"):
        lines: dict[str, list[tuple[float, float, float]]] = {}
        for row in experiment.rows:
            if row["rule"] == rule:
                lines.setdefault(f"{row['format']} {row['tuning']}", []).append((row["bits"], *row["drop"]))
        if lines:
            curves(lines, folder / f"drop-{rule}.svg", title=f"{title}, scale rule {rule}", xlabel="bits",
                   ylabel="paired drop, points")
    for row in (row for row in experiment.scaling if row["rule"] != "given"):
        name = f"{row['format']}-{row['seed']}"
        pareto(read_log(folder / "scaling" / name / "log.jsonl"), folder / f"pareto-{name}.svg", f"{title}, {name}")
