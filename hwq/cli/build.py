"""``hwq build``: from a ``.hwq`` file to a bitstream."""

import json
from pathlib import Path

import typer

__all__ = ["command"]


def command(model: Path = typer.Argument(..., help="A .hwq file."),
            output: Path = typer.Option(Path("build"), "-o", "--output", help="Folder for the results."),
            target: str = typer.Option("ice40", help="ice40 (the iCEBreaker) or verilog (vendor-neutral)."),
            board: str = typer.Option(None, help="icebreaker, upduino or hx8k."),
            device: str = typer.Option(None, help="up5k or hx8k: a report without a board's pins."),
            pcf: Path = typer.Option(None, help="Pins of clk, rx, tx for --device."),
            fold: list[str] = typer.Option([], help="layer=pe,simd; may be repeated."),
            freq: float = typer.Option(None, help="Clock of the core in MHz."),
            seed: int = typer.Option(1, help="Seed of place and route."),
            as_json: bool = typer.Option(False, "--json", help="Print the report as JSON.")) -> None:
    """Build a network into a bitstream (or Verilog), with a report."""
    from rich.console import Console

    from ..ir import load
    from . import progress

    graph = load(model)
    from ..build import build, summary
    with progress("build") as say:
        report = build(graph, output, target=target, board=board, device_name=device, pcf=pcf, folds=fold, freq_mhz=freq,
                       seed=seed, say=say)
    if as_json:
        typer.echo(json.dumps(report, indent=1))
    else:
        Console(width=130 if not Console().is_terminal else None).print(summary(report))
        typer.echo(f"Results are in {output}/" + (" (bitstream: top.bin)" if (output / "top.bin").exists() else ""))
