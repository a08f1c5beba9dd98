"""``hwq plan``: what a network will take on a device, before anything is synthesised."""

import json
import math
from pathlib import Path
from typing import Any

import typer

__all__ = ["command", "step_text"]


def _row(planned: Any, technology: Any) -> dict[str, Any]:
    from hwq.rtl.joins import Joining
    from hwq.rtl.stage import ConvStage, Folding

    cost = planned.cost
    row: dict[str, Any] = {"layer": planned.layer.name, "op": planned.layer.main.op, "cycles": planned.cycles,
                           **cost.rounded()}
    fold = planned.fold
    if isinstance(fold, Folding) and planned.layer.folds:
        stage = planned.stage(technology)
        assert isinstance(stage, ConvStage)
        depth, width = stage.matvec.rom
        row |= {"pe": fold.pe, "simd": fold.simd, "window": fold.window, "style": fold.style,
                "rom": [depth, width],
                "rom_in": ("both" if fold.logic_bits else "blocks") if fold.block_rom else "logic" if depth else "adders",
                "rom_bits": depth * (width - fold.logic_bits), "rom_block_bits": technology.block_bits * stage.matvec.rom_blocks,
                "scales_in": "blocks" if fold.block_scales else "logic",
                "ring": getattr(stage.window, "depth", None), "macs": planned.layer.macs}
    if fold and fold.scale_bits:
        row["scale_bits"] = fold.scale_bits
    if isinstance(fold, Joining):
        row |= {"lanes": fold.lanes, "fifos": list(fold.depths)}
    elif planned.fifo:
        row["fifos"] = [planned.fifo]
    return row


def _total(plan: Any) -> dict[str, Any]:
    return {"cycles": plan.cycles, "bottleneck": plan.bottleneck, **plan.cost.rounded()}


def command(model: Path = typer.Argument(..., help="A .hwq file."),
            board: str = typer.Option(None, help="icebreaker (the default), upduino, hx8k, ulx3s-12f, -25f, -45f or -85f."),
            device: str = typer.Option(None, help="up5k, hx8k, ecp5-12f, -25f, -45f, -85f or generic (no limits)."),
            fps: float = typer.Option(None, help="Frames a second that are enough: plan the smallest design that reaches them."),
            mhz: float = typer.Option(24.0, help="Clock of the core for frames a second."),
            fold: list[str] = typer.Option([], help="layer=pe,simd, or layer=wired; may be repeated."),
            tight: bool = typer.Option(False, help="Look for the least depth of every FIFO however large the network (without a "
                                       "C++ compiler minutes)."),
            picture: Path = typer.Option(None, help="Draw cycles against area of every layer into a .svg or .png file."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Plan a network: foldings, cycles, logic, memories, what limits it and what one step more would cost."""
    from hwq.boards.registry import find_board
    from hwq.rtl.common import Cost

    from ..errors import FormatError, ModelError
    from ..ir import load
    from ..passes import apply_passes
    from ..plan import SHELL, Planner, cycles_for, fewer_bits, hinting, joined, least_depths, parse_fold
    from ..plan import device as find_device
    from . import progress

    if board and device:
        raise ModelError("Give a board or a device, not both")
    if not (math.isfinite(mhz) and mhz > 0):
        raise FormatError(f"--mhz must be a positive number of MHz, not {mhz:g}")
    if picture and picture.suffix not in (".svg", ".png"):
        raise FormatError(f"--picture must end in .svg or .png, not {picture.name!r}")
    max_cycles = None if fps is None else cycles_for(fps, mhz * 1e6)
    graph = apply_passes(load(model))
    chosen = find_device(device or find_board(board or "icebreaker").device.name)
    reserve = SHELL if chosen.lc else Cost()
    with progress("plan"):
        with hinting(graph, chosen):
            planner = Planner(graph, chosen, folds=parse_fold(fold), reserve=reserve)
            plan = planner.plan(max_cycles, tight=tight)
        faster = planner.next_step(plan) if chosen.lc and not fold else None
    rows = [_row(planned, chosen.technology) for planned in plan.layers]
    for name, least in least_depths(plan).items():       # what keeps a join from standing still; its buffers keep its pace
        next(row for row in rows if row["layer"] == name)["least_fifos"] = list(least)
    limits = {"lc": chosen.lc, "ebr": chosen.ebr, "dsp": chosen.dsp, "spram": chosen.spram}
    fits = not chosen.lc or all(_total(plan)[k] <= v for k, v in limits.items())
    result = {"name": graph.name, "device": chosen.name, "layers": rows, "total": _total(plan), "limits": limits, "fits": fits,
              "mhz": mhz, "frames_per_s": round(mhz * 1e6 / plan.cycles, 1), "next_step": _total(faster) if faster else None,
              **({"fifos_tight": plan.tight} if joined(plan) else {})}
    if picture:
        from ..plot import areas
        areas(rows, plan.cycles, picture, f"{graph.name} on {chosen.name}")
    if as_json:
        typer.echo(json.dumps(result, indent=1))
        return
    _print(result)
    if not fits:
        typer.echo(fewer_bits(graph, chosen))


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    total, limits, faster = result["total"], result["limits"], result["next_step"]
    table = Table(title=f"{result['name']} on {result['device']}")
    for title in ("layer", "cycles", "", "LC", "EBR", "DSP", "pe", "simd", "window", "style", "ROM", "in",
                  "filled", "ring+FIFO (least)"):
        table.add_column(title, justify="left" if title in ("layer", "", "window", "style", "in") else "right", no_wrap=True)
    for row in result["layers"]:
        bar = "#" * max(1, round(12 * row["cycles"] / total["cycles"]))
        shown = [row["layer"], f"{row['cycles']:,}", bar, f"{row['lc']:,}", str(row["ebr"]), str(row["dsp"])]
        if "pe" in row:
            filled = f"{100 * row['rom_bits'] / row['rom_block_bits']:.0f} %" if row["rom_block_bits"] else ""
            shown += [str(row["pe"]), str(row["simd"]), row["window"], row["style"],
                      f"{row['rom'][0]}x{row['rom'][1]}" if row["rom"][0] else "", row["rom_in"], filled]
        held = [depth for depth in (row.get("ring"), *row.get("fifos", ())) if depth]
        least = f" ({'+'.join(map(str, row['least_fifos']))})" if "least_fifos" in row else ""
        table.add_row(*shown, *[""] * (13 - len(shown)), "+".join(map(str, held)) + least)
    table.add_section()
    of = {k: f"{total[k]:,}" + (f"/{limits[k]:,}" if limits["lc"] else "") for k in ("lc", "ebr", "dsp")}
    table.add_row("with shell", f"{total['cycles']:,}", "", of["lc"], of["ebr"], of["dsp"], *[""] * 8)
    console = Console()
    (console if console.is_terminal else Console(width=150)).print(table)
    typer.echo(f"{total['cycles']:,} cycles a frame ({total['bottleneck']}): {result['frames_per_s']:,} frames/s at "
               f"{result['mhz']:g} MHz" + ("" if result["fits"] else "; DOES NOT FIT"))
    if "fifos_tight" in result:
        typer.echo("FIFOs: one beat less costs cycles; of the least, it stands still." if result["fifos_tight"]
                   else "FIFOs: deep enough, perhaps too deep; the network is large, and only --tight looks for less (without a "
                   "C++ compiler for minutes).")
    if faster:
        typer.echo(step_text(faster, total, limits))
    elif limits["lc"]:
        typer.echo("Next step: none, this is the fastest folding.")


def step_text(faster: dict[str, int], now: dict[str, int], limits: dict[str, int]) -> str:
    """Say what the next faster folding costs, and whether it fits."""
    names = [name for name in ("lc", "ebr", "dsp", "spram") if name in limits]
    costs = [f"{abs(faster[k] - now[k]):,} {k.upper()} {'more' if faster[k] > now[k] else 'less'}"
             for k in names if faster[k] != now[k]]
    over = [f"{faster[k] - limits[k]:,} {k.upper()} too many" for k in names if faster[k] > limits[k]]
    return (f"Next step: {faster['cycles']:,} cycles a frame, with {', '.join(costs) or 'the same resources'}"
            + (f"; it does not fit: {', '.join(over)}" if over else "") + ".")
