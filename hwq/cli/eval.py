"""``hwq eval``: accuracy of the integer network, without torch and without hardware."""

import csv
import json
from pathlib import Path

import typer

__all__ = ["command"]


def command(model: Path = typer.Argument(..., help="A .hwq file."),
            data: str = typer.Option("fashion-mnist", help="Folder of IDX files, .npz with images and labels, or fashion-mnist."),
            table: Path = typer.Option(None, "--csv", help="Write one line an image: label, class, logits."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Score a network on labelled images with the integer reference."""
    from .. import interp
    from ..data import load_images
    from ..errors import FormatError
    from ..ir import load
    from . import progress

    graph = load(model)
    images, labels = load_images(data)
    if labels is None:
        raise FormatError(f"{data} holds no labels")
    codes = interp.encode_images(graph, images)
    parts = []
    with progress("eval") as say:
        for start in range(0, len(codes), 250):
            parts.append(interp.run_batches(graph, codes[start:start + 250]))
            say(f"{min(start + 250, len(codes))} of {len(codes)} images")
    import numpy as np
    output = np.concatenate(parts)
    classes = interp.predict(graph, output)
    right = int((classes == labels).sum())
    if table:
        import io

        from ..ir import write_atomic
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows([int(label), int(found), *map(int, row.ravel())] for label, found, row in zip(labels, classes, output, strict=True))
        write_atomic(table, text.getvalue().encode())
    if as_json:
        typer.echo(json.dumps({"model": graph.name, "images": len(labels), "right": right, "accuracy": right / len(labels)}))
    else:
        typer.echo(f"{graph.name}: {right} of {len(labels)} right, {100 * right / len(labels):.2f} %")
