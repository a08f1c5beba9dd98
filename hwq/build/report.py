"""The report of a build as plain data."""

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import TypedDict

from hwq.boards.families import ICE40, Family
from hwq.boards.protocol import Command, Response, encode_request, encode_response
from hwq.boards.registry import find_device
from hwq.rtl.stage import ConvStage, Folding

from .. import __version__
from ..emit import Manifest
from ..ir.graph import Graph
from ..ir.nodes import Conv2d, Linear
from ..plan import Plan
from .place import Placed

__all__ = ["LayerRow", "Report", "make_report", "netlist_cells", "link_rate"]

_HASHED = {"core": "accel.il", "verilog": "accel.v", "netlist": "netlist.v", "bitstream": "top.bin"}


class LayerRow(TypedDict, total=False):
    """One layer. From ``pe`` on: layers with weights; ``rom_block_weights``: their bits in block RAM.

    ``cells``: of the synthesised core, by cell name; builds for a device.
    """

    name: str
    op: str
    shape: list[int]
    macs: int
    cycles: int
    pe: int
    simd: int
    source: str
    format: str
    weight_bits: int
    rom: list[int]
    rom_blocks: int
    rom_block_weights: int
    accumulator_bits: int
    cells: dict[str, int]


class Report(TypedDict, total=False):
    """A build. From ``clock_mhz`` on: builds for a device; rates are in frames a second, clocks in MHz.

    ``weight_bits`` counts all weights, ``rom_bits`` those in block RAM, ``rom_block_bits`` what those blocks hold.
    """

    name: str
    version: str
    target: str
    device: str
    board: str | None
    layers: list[LayerRow]
    macs: int
    cycles: int
    bottleneck: str
    weight_bits: int
    rom_bits: int
    rom_blocks: int
    rom_block_bits: int
    estimate: dict[str, int]
    hashes: dict[str, str]
    tools: dict[str, str]
    clock_mhz: float
    fmax_mhz: float
    seed: int
    seeds: dict[str, float]
    router: str
    used: dict[str, list[int]]
    core_cells: dict[str, int]
    frames_per_s: float
    frames_per_s_at_fmax: float
    baud: int
    frames_per_s_link: float
    bitstream: bool


def netlist_cells(netlist: str, layers: list[str], family: Family = ICE40) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Count the cells of the core's synthesised RTLIL: by layer, and all.

    Yosys names a cell after a wire at its output, which carries the path of the block; so a layer's share is near, but a
    cell at the border of two may be counted to its neighbour.
    """
    by_layer = {name: Counter[str]() for name in layers}
    total: Counter[str] = Counter()
    for kind, name in re.findall(r"^  cell \\(\w+) \\(\S+)", netlist, re.M):
        what = family.cells.get(kind)
        if what is None:
            continue
        total[what] += 1
        path = name.split(".")
        if path[0] == "core" and len(path) > 2 and path[1] in by_layer:
            by_layer[path[1]][what] += 1
    return {name: dict(sorted(cells.items())) for name, cells in by_layer.items()}, dict(sorted(total.items()))


def link_rate(in_bytes: int, out_bytes: int, baud: int) -> float:
    """Return the frames a second that the link carries at most: request and answer in turn, ten bits a byte."""
    wire = len(encode_request(Command.INFER, bytes(in_bytes))) \
        + len(encode_response(Response(Command.INFER, 0, bytes(out_bytes), 0)))
    return baud / (10 * wire)


def _layer_rows(plan: Plan) -> list[LayerRow]:
    rows = []
    technology = plan.device.technology
    for planned in plan.layers:
        layer, fold = planned.layer, planned.fold
        row: LayerRow = {"name": layer.name, "op": layer.main.op, "macs": layer.macs, "cycles": planned.cycles,
                         "shape": list(layer.y.shape)}
        stage = planned.stage(technology)
        main = layer.main
        if isinstance(stage, ConvStage) and isinstance(fold, Folding) and isinstance(main, Conv2d | Linear) and main.weight_format:
            depth, width = stage.matvec.rom
            row.update({"pe": fold.pe, "simd": fold.simd, "source": fold.window, "format": main.weight_format.text,
                        "weight_bits": layer.weight.size * main.weight_format.width, "rom": [depth, width],
                        "rom_blocks": stage.matvec.rom_blocks, "rom_block_weights": (width - fold.logic_bits) * depth
                        if fold.block_rom else 0, "accumulator_bits": stage.matvec.acc_shape.width})
        rows.append(row)
    return rows


def make_report(graph: Graph, plan: Plan, manifest: Manifest, placed: Placed | None, work: Path, tools: dict[str, str], *,
                board: str | None, baud: int) -> Report:
    """Return the report of a build whose files are in ``work``; ``placed`` is None for Verilog."""
    rows = _layer_rows(plan)
    blocks = sum(row.get("rom_blocks", 0) for row in rows)
    stored = sum(row.get("rom_block_weights", 0) for row in rows)
    hashes = {"model": manifest["model_hash"]}
    hashes |= {name: hashlib.sha256((work / file).read_bytes()).hexdigest()
               for name, file in _HASHED.items() if (work / file).exists()}
    report: Report = {
        "name": graph.name, "version": __version__, "target": manifest["target"], "device": plan.device.name, "board": board,
        "layers": rows, "macs": sum(row["macs"] for row in rows), "cycles": plan.cycles, "bottleneck": plan.bottleneck,
        "weight_bits": sum(row.get("weight_bits", 0) for row in rows), "rom_bits": stored, "rom_blocks": blocks,
        "rom_block_bits": plan.device.technology.block_bits * blocks, "hashes": hashes, "tools": tools,
    }
    if placed is None:
        return report
    family = find_device(plan.device.name).family
    cells, total = netlist_cells((work / "accel.syn.il").read_text(), [row["name"] for row in rows], family)
    for row in rows:
        row["cells"] = cells[row["name"]]
    i, o = manifest["input"], manifest["output"]
    extra: Report = {
        "estimate": plan.cost.rounded(),
        "used": {name: list(placed.used.get(cell, (0, 0))) for name, cell in family.used.items()}, "core_cells": total,
        "clock_mhz": placed.hz / 1e6, "fmax_mhz": round(placed.fmax_mhz, 2), "seed": placed.seed,
        "seeds": {str(seed): mhz for seed, mhz in placed.seeds.items()}, "router": placed.router,
        "frames_per_s": round(placed.hz / plan.cycles, 1), "frames_per_s_at_fmax": round(placed.fmax_mhz * 1e6 / plan.cycles, 1),
        "baud": baud, "frames_per_s_link": round(link_rate(i["bytes"] * i["beats"], o["bytes"] * o["beats"], baud), 1),
        "bitstream": placed.bitstream,
    }
    report.update(extra)
    return report

