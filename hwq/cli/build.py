"""``hwq build``: from a ``.hwq`` file to a bitstream."""

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["command"]


def command(model: Annotated[Path, typer.Argument(help="A .hwq file.")],
            output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path("build"),
            target: Annotated[str | None, typer.Option(help="ice40 (the iCEBreaker), ecp5 (the ULX3S-85F) or verilog "
                                                       "(vendor-neutral).")] = None,
            board: Annotated[str | None, typer.Option(help="icebreaker, upduino, hx8k, ulx3s-12f, -25f, -45f or -85f.")] = None,
            device: Annotated[str | None, typer.Option(help="up5k, hx8k, ecp5-12f, -25f, -45f or -85f: a report without a "
                                                       "board's pins.")] = None,
            pcf: Annotated[Path | None, typer.Option(help="Pins of clk, rx, tx for --device (iCE40).")] = None,
            fold: Annotated[list[str] | None, typer.Option(help="layer=pe,simd, or layer=wired; may be repeated.")] = None,
            cycles: Annotated[int | None, typer.Option(help="Cycles a frame that are fast enough: the smallest design that keeps "
                                                       "to them; not given: the fastest that fits.")] = None,
            fps: Annotated[float | None, typer.Option(help="Frames a second that are enough, instead of --cycles; at --freq, or at "
                                                      "the clock that place and route start from (12 or 24 MHz).")] = None,
            tight: Annotated[bool, typer.Option("--tight", help="Look for the least depth of every FIFO however large the network "
                                                "(without a C++ compiler minutes).")] = False,
            freq: Annotated[float | None, typer.Option(help="Clock of the core in MHz; not given: as fast as it gets.")] = None,
            baud: Annotated[int | None, typer.Option(help="Of the board's serial link (1000000).")] = None,
            seed: Annotated[int | None, typer.Option(help="First seed of place and route (1).")] = None,
            seeds: Annotated[int | None, typer.Option(help="How many seeds to try; the fastest result is kept.")] = None,
            as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False) -> None:
    """Build a network into a bitstream (or Verilog), with a report."""
    from rich.console import Console

    from ..ir import load
    from . import progress

    graph = load(model)
    from ..build import build, summary
    with progress("build") as say:
        report = build(graph, output, target=target, board=board, device_name=device, pcf=pcf, folds=fold or [], max_cycles=cycles,
                       fps=fps, tight=tight, freq_mhz=freq, baud=baud, seed=seed, seeds=seeds, say=say)
    if as_json:
        typer.echo(json.dumps(report, indent=1))
        return
    Console(width=150 if not Console().is_terminal else None).print(summary(report))
    made = ["report.html", "accel.v", *(["top.bin (bitstream)"] if report.get("bitstream") else [])]
    typer.echo(f"Results are in {output}/: {', '.join(made)}, ...")
