"""``hwq lower``: from a training run to the integer network, one ``.hwq`` file."""

import json
from pathlib import Path

import typer

__all__ = ["command"]


def command(folder: Path = typer.Argument(..., help="Folder of hwq train."),
            output: Path = typer.Option(..., "-o", "--output", help="The .hwq file to write."),
            name: str = typer.Option(None, "--name", help="Name of the network; default: the file's."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Write the integer network that equals the trained one exactly."""
    from ..analysis import layer_facts, totals
    from ..frontend import convert
    from ..ir import content_hash, save
    from ..quant.run import load_run

    model, run = load_run(folder)
    graph = convert(model, name=name or output.stem, classes=run.classes)
    save(graph, output)
    facts = totals(layer_facts(graph))
    if as_json:
        typer.echo(json.dumps({"file": str(output), "hash": content_hash(graph), **facts}))
    else:
        typer.echo(f"{output}: {facts['weights']:,.0f} weights in {facts['weight_bits']:,.0f} bits, {facts['macs']:,.0f} "
                   f"multiplications an image; next: hwq eval {output}")
