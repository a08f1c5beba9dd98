"""``hwq lower``: from a training run to the integer network, one ``.hwq`` file."""

import json
from dataclasses import replace
from pathlib import Path

import typer

__all__ = ["command"]


def command(folder: Path = typer.Argument(..., help="Folder of hwq train."),
            output: Path = typer.Option(..., "-o", "--output", help="The .hwq file to write."),
            name: str = typer.Option(None, "--name", help="Name of the network; default: the file's."),
            check: str = typer.Option(None, "--check", help="Compare every edge with torch on the test images of this folder, .npz "
                                      "file or data set; exit 6 on a difference."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Write the integer network that equals the trained one exactly."""
    from ..analysis import layer_facts, totals
    from ..data import load_images
    from ..frontend import compare, convert
    from ..ir import content_hash, save
    from ..quant.run import load_run
    from . import progress

    model, run = load_run(folder)
    graph = replace(convert(model, name=name or output.stem, classes=run.classes), factory=run.factory)
    images, compared = load_images(check)[0] if check is not None else [], {}
    if check is not None:                                # before anything is written
        with progress("compare with torch") as say:
            compared = compare(model, graph, images, lambda done: say(f"{done} of {len(images)} images"))
    save(graph, output)
    facts = totals(layer_facts(graph))
    if as_json:
        typer.echo(json.dumps({"file": str(output), "hash": content_hash(graph), "checked_images": len(images),
                               "checked_numbers": compared, "notes": list(model.notes), **facts}))
    else:
        for note in model.notes:
            typer.echo(f"note: {note}")
        if compared:
            typer.echo(f"torch in eval mode = integer network: {sum(compared.values()):,} numbers on {len(compared)} edges of "
                       f"{len(images):,} images, none differs")
        typer.echo(f"{output}: {facts['weights']:,.0f} weights in {facts['weight_bits']:,.0f} bits, {facts['macs']:,.0f} "
                   f"multiplications an image; next: hwq eval {output}")
