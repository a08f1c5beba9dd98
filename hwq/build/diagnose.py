"""What a failure of place and route means, and what to type next."""

import re

from hwq.rtl.stage import ConvStage, Folding

from ..errors import FitError, HwqError, ToolError
from ..plan import Plan, PlannedLayer
from .pins import unknown_pin

__all__ = ["ClockError", "diagnose", "utilization"]


class ClockError(FitError):
    """Place and route succeed, but no seed reaches the clock; ``reached_hz`` is what was reached."""

    def __init__(self, message: str, reached_hz: float = 0.0) -> None:
        super().__init__(message)
        self.reached_hz = reached_hz


_NAMES = {"ICESTORM_LC": "logic cells", "ICESTORM_RAM": "block RAMs", "ICESTORM_DSP": "DSP", "ICESTORM_SPRAM": "SPRAM",
          "ICESTORM_PLL": "PLL", "SB_IO": "pins", "SB_GB": "global buffers",
          "TRELLIS_COMB": "look-up tables", "TRELLIS_FF": "flip-flops", "DP16KD": "block RAMs", "MULT18X18D": "multipliers",
          "EHXPLLL": "PLL", "TRELLIS_IO": "pins"}
_BLOCKS = ({"ICESTORM_RAM"}, {"DP16KD"})
_LARGER = {"up5k": "--board hx8k", "hx8k": "--board ulx3s", "ecp5-12f": "--board ulx3s-25f", "ecp5-25f": "--board ulx3s-45f",
           "ecp5-45f": "--board ulx3s-85f"}
_ROW = re.compile(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%", re.M)


def utilization(log: str) -> dict[str, tuple[int, int]]:
    """Return nextpnr's table: used and available, by cell class."""
    return {name: (int(used), int(there)) for name, used, there in _ROW.findall(log)}


def diagnose(log: str, plan: Plan, hz: int, seeds: int, error: ToolError) -> HwqError:
    """Return the error to raise for a failed place and route; ``error`` itself if its log says nothing that we know.

    Parameters
    ----------
    log : str
        Of nextpnr.
    plan : Plan
        What was built.
    hz, seeds : int
        Clock asked for; seeds that were tried.
    error : ToolError
        Of the run.
    """
    if pin := unknown_pin(log, plan.device.name):
        return pin
    table = utilization(log)
    over = {name: row for name, row in table.items() if row[0] > row[1]}
    # Placement fails before every cell is taken: carry chains and control sets want their own tiles.
    if not over and re.search(r"Unable to|Failed to expand region|failed to place|[Nn]o BELs remaining", log):
        over = {name: row for name, row in table.items() if row[1] >= 8 and row[0] >= 0.85 * row[1]}
    if over:
        found = ", ".join(f"{used} of {there} {_NAMES.get(name, name)}" for name, (used, there) in over.items())
        return FitError(f"The design does not fit {plan.device.name} after synthesis: it takes {found}. {_advice(plan, set(over))}")
    # The placer's estimate comes first, what routing reached last.
    reached = {clock: (float(value), verdict) for clock, value, verdict in
               re.findall(r"Max frequency for clock\s+'([^']*)':\s+([\d.]+) MHz \((PASS|FAIL)", log)}
    failed = [value for value, verdict in reached.values() if verdict == "FAIL"]
    if failed:
        slowest = min(failed)
        return ClockError(f"The clock of {hz / 1e6:g} MHz is not reached: {slowest:g} MHz. Type --freq {int(slowest)}"
                          + ("" if seeds > 1 else ", or --seeds 8 to try several placements") + ".", slowest * 1e6)
    return error


def _advice(plan: Plan, over: set[str]) -> str:
    """Say what to type: a smaller folding of the layer that takes most, or what else helps."""
    folded = [planned for planned in plan.layers if planned.layer.folds and isinstance(planned.fold, Folding)]
    larger = _LARGER.get(plan.device.name)
    other = f" Or take a larger device: {larger}." if larger else ""
    if over in _BLOCKS or not folded:
        if not folded:
            return "Fewer channels or a smaller input help." + other
        worst = max(folded, key=lambda planned: (_blocks(plan, planned), planned.layer.weight.size))
        return (f"Most weights are in '{worst.layer.name}' ({_blocks(plan, worst)} block RAMs): give it fewer bits or channels, "
                f"or another word, such as --fold {_smaller(worst) or worst.layer.name + '=1,1'}." + other)
    for planned in sorted(folded, key=lambda planned: -planned.cost.lc):
        smaller = _smaller(planned)
        if smaller:
            return f"Type --fold {smaller}: '{planned.layer.name}' takes most (about {planned.cost.lc:.0f} logic cells)." + other
    return "Every layer has its smallest folding; fewer bits or channels help." + other


def _blocks(plan: Plan, planned: PlannedLayer) -> int:
    stage = planned.stage(plan.device.technology)
    return stage.matvec.rom_blocks if isinstance(stage, ConvStage) else 0


def _smaller(planned: PlannedLayer) -> str | None:
    """Return the next smaller folding as the text of ``--fold``; None where there is none."""
    fold, name = planned.fold, planned.layer.name
    if not isinstance(fold, Folding):
        return None
    if fold.pe > 1:
        return f"{name}={_less(fold.pe)},{fold.simd}"
    if fold.source == "memory" and fold.simd > 1:
        return f"{name}={fold.pe},{_less(fold.simd)}"
    return None


def _less(value: int) -> int:
    """Return the greatest proper divisor."""
    return next(value // d for d in range(2, value + 1) if value % d == 0)
