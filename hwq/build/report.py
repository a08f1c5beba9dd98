"""The report of a build: data first, table second."""

from typing import Any

from hwq.rtl.stage import ConvStage, Folding

from ..ir.graph import Graph
from ..ir.storage import content_hash
from ..plan import Plan

__all__ = ["make_report", "summary"]

_CELLS = {"lc": "ICESTORM_LC", "ebr": "ICESTORM_RAM", "dsp": "ICESTORM_DSP", "spram": "ICESTORM_SPRAM"}


def make_report(graph: Graph, plan: Plan, pnr: dict, hz: int, tools: dict[str, str], *, board: str | None) -> dict[str, Any]:
    """Return the report as plain data."""
    layers = []
    bits = rom_bits = 0
    for planned in plan.layers:
        layer = planned.layer
        row: dict[str, Any] = {"name": layer.name, "op": layer.main.op, "macs": layer.macs, "cycles": planned.cycles,
                               "shape": list(layer.y.shape)}
        stage = layer.stage(planned.fold or Folding(), planned.in_lanes, plan.device.technology)
        if isinstance(stage, ConvStage) and planned.fold:
            depth, width = stage.matvec.rom
            blocks = plan.device.technology.blocks(width, depth) if planned.fold.block_rom else 0
            row |= {"pe": planned.fold.pe, "simd": planned.fold.simd, "source": planned.fold.source,
                    "format": layer.main.weight_format.text, "weight_bits": depth * width,         # type: ignore[attr-defined]
                    "rom": [depth, width], "rom_blocks": blocks, "accumulator_bits": stage.matvec.acc_shape.width}
            bits += depth * width
            rom_bits += 4096 * blocks
        layers.append(row)
    report: dict[str, Any] = {
        "name": graph.name, "model_hash": content_hash(graph), "device": plan.device.name, "board": board, "layers": layers,
        "cycles": plan.cycles, "bottleneck": plan.bottleneck, "weight_bits": bits, "rom_block_bits": rom_bits,
        "estimate": {"lc": round(plan.cost.lc), "ebr": plan.cost.ebr, "dsp": plan.cost.dsp}, "tools": tools,
    }
    if pnr:
        used = pnr["utilization"]
        report["used"] = {name: [used.get(cell, {}).get("used", 0), used.get(cell, {}).get("available", 0)]
                          for name, cell in _CELLS.items()}
        reached = min(entry["achieved"] for entry in pnr["fmax"].values()) if pnr.get("fmax") else 0.0
        report |= {"clock_mhz": hz / 1e6, "fmax_mhz": round(reached, 2), "frames_per_s": round(hz / plan.cycles, 1),
                   "frames_per_s_at_fmax": round(reached * 1e6 / plan.cycles, 1)}
    return report


def summary(report: dict[str, Any]):
    """Return the report as a rich table and its closing lines."""
    from rich.console import Group
    from rich.table import Table

    table = Table(title=f"{report['name']} on {report['board'] or report['device']}")
    for title in ("layer", "MACs", "cycles", "pe", "simd", "window", "weights", "bits", "ROM", "blocks", "acc"):
        table.add_column(title, justify="left" if title in ("layer", "window", "weights") else "right")
    for row in report["layers"]:
        folded = "pe" in row
        table.add_row(row["name"], f"{row['macs']:,}", f"{row['cycles']:,}", *(
            [str(row["pe"]), str(row["simd"]), row["source"], row["format"], f"{row['weight_bits']:,}",
             f"{row['rom'][0]}x{row['rom'][1]}", str(row["rom_blocks"]), str(row["accumulator_bits"])] if folded else [""] * 8))
    lines = [f"Cycles a frame: {report['cycles']:,} (slowest: {report['bottleneck']})"]
    if "used" in report:
        used = ", ".join(f"{name.upper()} {a}/{b}" for name, (a, b) in report["used"].items())
        lines += [f"Used: {used}", f"Clock {report['clock_mhz']:g} MHz (reaches {report['fmax_mhz']} MHz): "
                  f"{report['frames_per_s']:,} frames/s in the core by the plan, {report['frames_per_s_at_fmax']:,} at the clock it reaches"]
        if report["rom_block_bits"]:
            lines.append(f"Weight bits stored in blocks' bits: {report['weight_bits']:,} / {report['rom_block_bits']:,}")
    return Group(table, *lines)
