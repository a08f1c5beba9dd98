"""Place, route and pack, with one seed or several."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwq.boards import link_script as link
from hwq.boards.registry import Device

from ..errors import ToolError
from ..plan import Plan
from ..toolchain import Tool, find, require_output, run, run_many
from .diagnose import ClockError, diagnose

__all__ = ["Placed", "place", "run_nextpnr"]


@dataclass(frozen=True)
class Placed:
    """What place and route gave.

    Attributes
    ----------
    used : dict of str to (used, available)
        By nextpnr's cell class.
    hz : int
        Clock asked for.
    fmax_mhz : float
        Clock that is reached.
    seed : int
        The seed that was kept.
    seeds : dict of int to float
        Clock in MHz that each seed reached; 0: it failed.
    router : str
        nextpnr's router that ended with that seed.
    bitstream : bool
        Whether there is one.
    """

    used: dict[str, tuple[int, int]]
    hz: int
    fmax_mhz: float
    seed: int
    seeds: dict[int, float]
    router: str
    bitstream: bool


class _CirclingError(ToolError):
    """The router does not end."""


# So many lines of nextpnr's log, of a thousand steps of its router each, with as many connections left: it will not end.
_CIRCLES = 200


def _watch(log: Path) -> None:
    """Raise `_CirclingError` where nextpnr's default router ("router1") takes the same connections up again and again."""
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 128 * _CIRCLES))
        left = re.findall(rb"^Info: +\d+ \|[^|]*\|[^|]*\| +(\d+)\|[^|]*\|$", file.read(), re.MULTILINE)[-_CIRCLES:]
    if len(left) == _CIRCLES and len(set(left)) == 1:
        raise _CirclingError(f"nextpnr's router goes in circles with {int(left[0]):,} connections left")


def _fmax(report: dict[str, Any]) -> float:
    return min((float(entry["achieved"]) for entry in report.get("fmax", {}).values()), default=0.0)


def run_nextpnr(nextpnr: Tool, jobs: Sequence[tuple[Sequence[str], Path]], work: Path,
                say: Callable[[str], None]) -> tuple[list[ToolError | None], list[str]]:
    """Run nextpnr once for each (arguments, log); another router takes over where the default one does not end.

    Each job's error, or None, is returned, and its router. The other router is no default: its clocks are an eighth lower.
    """
    routers = ["router1"] * len(jobs)
    errors = run_many(nextpnr, jobs, work, keep_going=True, watch=_watch)
    if circling := [k for k, error in enumerate(errors) if isinstance(error, _CirclingError)]:
        say("the router goes in circles; place and route with another one")
        again = [([*jobs[k][0], "--router", "router2"], jobs[k][1]) for k in circling]
        for k, error in zip(circling, run_many(nextpnr, again, work, keep_going=True), strict=True):
            errors[k], routers[k] = error, "router2"
    return errors, routers


def place(part: Device, plan: Plan, work: Path, *, hz: int, seeds: tuple[int, ...], pins: bool,
          say: Callable[[str], None]) -> Placed:
    """Place and route ``top.json`` in ``work`` with every seed, keep the fastest, pack it if it has ``pins``.

    Of equally fast ones the first seed is kept, so the result does not depend on which ends first.

    Raises
    ------
    FitError
        It does not fit, or no seed reaches the clock.
    FormatError
        The package has no such pin.
    ToolError
        Another failure of a tool.
    """
    say("place and route" + (f" with {len(seeds)} seeds" if len(seeds) > 1 else ""))
    logs, family = work / "logs", part.family

    def names(seed: int) -> tuple[str, str, Path]:
        suffix = f".{seed}" if len(seeds) > 1 else ""
        return f"top{suffix}.{family.config}", f"pnr{suffix}.json", logs / f"nextpnr{suffix}.log"

    jobs = []
    for seed in seeds:
        asc, report, log = names(seed)
        jobs.append((link.nextpnr_arguments(part, hz, pins=pins, config=asc, report=report, seed=seed), log))
    nextpnr, pack = find(family.nextpnr), find(family.pack) if pins else None
    errors, routers = run_nextpnr(nextpnr, jobs, work, say)
    reports: dict[int, dict[str, Any]] = {}
    for seed, error in zip(seeds, errors, strict=True):
        if error is None:
            asc, report, log = names(seed)
            require_output(nextpnr, log, work / report, *([work / asc] if pins else []))
            reports[seed] = json.loads((work / names(seed)[1]).read_text())
    if not reports:
        said = [diagnose(names(seed)[2].read_text(errors="replace"), plan, hz, len(seeds), error)
                for seed, error in zip(seeds, errors, strict=True) if error]
        # One that was placed says more than others that were not.
        raise max(said, key=lambda error: error.reached_hz if isinstance(error, ClockError) else -1.0) from None
    kept = max(reports, key=lambda seed: (_fmax(reports[seed]), -seed))
    asc, report, _ = names(kept)
    for seed in seeds:
        for name in names(seed)[:2]:
            if seed != kept:
                (work / name).unlink(missing_ok=True)
    if len(seeds) > 1:
        (work / report).rename(work / "pnr.json")
        if pins:
            (work / asc).rename(work / f"top.{family.config}")
    if pack:
        say("pack")
        log = logs / f"{family.pack}.log"
        run(pack, link.pack_arguments(part), log, work)
        require_output(pack, log, work / "top.bin")
    used = {name: (int(row["used"]), int(row["available"])) for name, row in reports[kept]["utilization"].items()}
    # Paths of this machine stand in it: no part of what is the same everywhere.
    (work / "pnr.json").rename(logs / "pnr.json")
    return Placed(used, hz, _fmax(reports[kept]), kept, {seed: round(_fmax(reports[seed]), 2) if seed in reports else 0.0
                                                         for seed in seeds}, routers[seeds.index(kept)], pins)
