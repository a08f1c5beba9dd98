"""The four networks beside the peers: ``python -m bench.peers [N1 N2 ...] [--json FILE]``; ``python -m bench`` joins it with all.

Every design goes through the public API: `make_plan`, `lower`, Yosys, nextpnr. ``core`` is the whole core with its input
guard, frame logic and start-up timer; ``stage`` the layer's stage alone, which is what a peer's parts amount to. With
``--check`` each core's Verilog is simulated on random frames against the integer reference.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwq.emit import emit_core, write_vectors
from hwq.errors import FitError
from hwq.ir import Graph
from hwq.lower import lower
from hwq.passes import apply_passes
from hwq.plan import Wish, device, make_plan
from hwq.rtl.common import Cost
from hwq.rtl.stage import Folding
from hwq.sim import verify

from .measure import measure
from .networks import networks

__all__ = ["DESIGNS", "PEERS", "design", "check", "rows", "table"]

# network, part, foldings, what is measured; part generic: synthesised for iCE40 and packed, however large. Without DSP: as if the
# part had no multiplier blocks.
DESIGNS: list[tuple[str, str, dict[str, Wish], str]] = [
    ("N1", "up5k", {}, "core"),
    ("N2", "up5k", {"conv": (4, 4)}, "stage"), ("N2", "up5k", {"conv": (4, 4)}, "stage without DSP"),
    ("N2", "up5k", {"conv": (2, 8)}, "stage"), ("N2", "up5k", {"conv": (4, 4)}, "core"), ("N2", "up5k", {"conv": (2, 8)}, "core"),
    ("N2", "hx8k", {"conv": (4, 4)}, "stage"), ("N2", "hx8k", {"conv": (16, 16)}, "stage"), ("N2", "hx8k", {}, "core"),
    ("N2", "generic", {"conv": "wired"}, "stage"),
    ("N3", "hx8k", {}, "core"), ("N3", "up5k", {}, "core"),
    ("N4", "up5k", {"conv": (4, 4)}, "stage"),
]

# Measured by others' tools on the same networks, synthesised with Yosys 0.70 (iCE40: SB_LUT4, SB_DFF, EBR, SB_MAC16), packed
# and placed with nextpnr-ice40; cycles are those between frames. None: not measured. Simulated against the same reference.
PEERS: list[dict[str, Any]] = [
    {"net": "N1", "who": "NNgen 1.3.4 (weights outside)", "cycles": 37841, "part": "xc7", "lut": 22490,
     "ff": 21823, "ram": 115, "dsp": 22},
    {"net": "N1", "who": "da4ml 0.6.0, unrolled", "cycles": 784, "part": "ice40", "lut": 36611, "ff": 16974, "ram": 12, "dsp": 0},
    {"net": "N2", "who": "FINN RTL parts, 4x4", "cycles": 28224, "part": "up5k", "lut": 1842, "ff": 1578, "ram": 6, "dsp": 8,
     "lc": 2820, "fmax": 29.05},
    {"net": "N2", "who": "FINN RTL parts, 4x4", "cycles": 28224, "part": "hx8k", "lut": None, "ff": None, "ram": None, "dsp": 0,
     "lc": 3424, "fmax": 82.3},
    {"net": "N2", "who": "FINN RTL parts, 16x16", "cycles": 1792, "part": "ice40", "lut": 17796, "ff": 10942, "ram": 4, "dsp": 128},
    {"net": "N2", "who": "NNgen, 8-bit storage", "cycles": 51681, "part": "ice40", "lut": 17632,
     "ff": 11969, "ram": 126, "dsp": 11},
    {"net": "N2", "who": "da4ml 0.6.0, unrolled", "cycles": 256, "part": "ice40", "lut": 16369, "ff": 6301, "ram": 8, "dsp": 0},
    {"net": "N3", "who": "FINN RTL parts", "cycles": 196, "part": "ice40", "lut": 31364, "ff": 17702, "ram": 75, "dsp": 168},
    {"net": "N3", "who": "NNgen", "cycles": 87929, "part": "xc7", "lut": 9630, "ff": 11547, "ram": 35, "dsp": 6},
    {"net": "N4", "who": "FINN RTL parts, 16x16", "cycles": 1792, "part": "xc7", "lut": 8639, "ff": 5355, "ram": 0, "dsp": 128},
    {"net": "N4", "who": "da4ml 0.6.0, unrolled", "cycles": 256, "part": "ice40", "lut": 13747, "ff": 4910, "ram": 8, "dsp": 0},
]


def design(graph: Graph, part: str, folds: dict[str, Wish], what: str, place: bool = True) -> dict[str, Any]:
    """Plan, lower, synthesise, pack and place; return figures and plan."""
    ready = apply_passes(graph)
    on = device(part)
    if what.startswith("stage"):                         # alone on its part, it may fill it
        on = replace(on, usable=1.0)
    plan = make_plan(ready, replace(on, dsp=0) if what.endswith("without DSP") else on, folds=folds, reserve=Cost())
    block, cycles = lower(ready, plan), plan.cycles
    if what.startswith("stage"):
        (planned,) = plan.layers
        fold, cycles = planned.fold, planned.cycles
        assert isinstance(fold, Folding)
        lanes = fold.simd if fold.source == "memory" else planned.layer.x.shape[-1]
        block = planned.layer.stage(fold, (lanes,), plan.device.technology)                        # type: ignore[assignment]
    large = part == "generic"
    got = measure(block, "hx8k" if large else part, place=place and not large)
    shown = ", ".join(f"{p.layer.name} {'wired' if p.fold.style == 'wired' else f'{p.fold.pe}x{p.fold.simd}'}" for p in plan.layers
                      if isinstance(p.fold, Folding) and p.layer.folds)
    return {"net": graph.name, "who": f"**hwq {what}**: {shown}", "cycles": cycles, "part": "ice40" if large else part,
            "lut": got["lut"], "ff": got["ff"], "ram": got["ebr"], "dsp": got["dsp"], "lc": got["lc"], "fmax": got["fmax"],
            "estimate": round(block.cost.lc)}


def check(graph: Graph, part: str, folds: dict[str, Wish], frames: int = 6) -> None:
    """Simulate the core as it is planned for the part, and print what was compared; `VerifyError` if anything differs."""
    ready = apply_passes(graph)
    try:
        plan = make_plan(ready, device(part), folds=folds, reserve=Cost())
    except FitError:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = emit_core(graph, plan, lower(ready, plan), folder, target="ice40")
        (folder / "manifest.json").write_text(json.dumps(manifest | {"files": {}}))
        x = np.random.default_rng(2).integers(graph.input.lo, graph.input.hi + 1, (frames, *graph.input.shape))
        write_vectors(graph, folder / "vectors", x, manifest)
        report = verify(folder)
    print(f"{graph.name} on {part}: {report.identical} of {report.images} frames identical to the reference, "
          f"{report.cycles_per_frame:,.0f} cycles a frame ({plan.cycles:,} planned)", flush=True)


def rows(nets: Iterable[str], place: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the rows of the networks, peers first; of what does not fit only why (``note``)."""
    graphs = networks()
    for net in nets:
        yield from (row for row in PEERS if row["net"] == net)
        for name, part, folds, what in DESIGNS:
            if name == net:
                try:
                    yield design(graphs[net], part, folds, what, place)
                except FitError as error:
                    yield {"net": net, "who": f"**hwq {what}**", "part": part, "note": f"does not fit: {str(error).split('. ')[0]}"}


def table(found: Iterable[dict[str, Any]], head: bool = True) -> str:
    """Return the table, or its lines alone."""
    return "\n".join([*_HEAD[:2 * head], *map(_line, found)])


def _line(row: dict[str, Any]) -> str:
    if "note" in row:
        return f"| {row['net']} | {row['who']} | {row['part']} | {row['note']} |" + " |" * 8
    cells = [row["net"], row["who"], row["part"], *(row.get(key) for key in ("cycles", "lut", "ff", "ram", "dsp", "lc", "fmax"))]
    rate = row["fmax"] * 1e6 / row["cycles"] if row.get("fmax") else None
    cells += [rate and f"{rate:,.0f}", rate and row.get("lc") and f"{rate / row['lc']:.2f}"]
    return "| " + " | ".join("-" if c is None else f"{c:,}" if isinstance(c, int) else str(c) for c in cells) + " |"


_HEAD = ("| network | design | part | cycles | LUT4 | FF | RAM | DSP | LC | MHz | frames/s | frames/s a LC |",
         "|---|---|---|---|---|---|---|---|---|---|---|---|")


def main() -> None:
    """Print the table, peers first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", default=["N1", "N2", "N3", "N4"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pack-only", action="store_true", help="do not place: quick, but without a clock")
    parser.add_argument("--check", action="store_true", help="simulate each core's Verilog on random frames")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for row in rows(arguments.nets, not arguments.pack_only):
        found.append(row)
        print(table([row], head=len(found) == 1), flush=True)
    if arguments.check:
        graphs = networks()
        for net, part, folds in {(net, part, tuple(folds.items())) for net, part, folds, what in DESIGNS if what == "core"}:
            if net in arguments.nets:
                check(graphs[net], part, dict(folds))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
