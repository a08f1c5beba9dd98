"""``hwq eval``: accuracy of the integer network, without torch and without hardware."""

import csv
import io
import json
from pathlib import Path

import typer

__all__ = ["command"]

_BATCH = 250


def command(model: Path = typer.Argument(..., help="A .hwq file."),
            data: str = typer.Option(None, "--data", help="Data set's name, folder of its files, NAME=FOLDER, or labelled .npz; "
                                     "default fashion-mnist."),
            table: Path = typer.Option(None, "--csv", help="Write one line an image: index, label, class, logits."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Score a network on labelled images with the integer reference."""
    import time

    import numpy as np

    from .. import interp
    from ..data import open_dataset
    from ..files import write_atomic
    from ..ir import load
    from . import progress

    graph = load(model)
    samples = open_dataset(data, "test")
    interp.check_labels(graph, samples.labels, samples.name)
    codes = interp.encode_images(graph, samples.images)
    started = time.monotonic()
    parts = []
    with progress("eval") as say:
        for start in range(0, len(codes), _BATCH):
            parts.append(interp.run_batches(graph, codes[start:start + _BATCH]))
            say(f"{min(start + _BATCH, len(codes))} of {len(codes)} images")
    output = np.concatenate(parts) if parts else interp.run_batches(graph, codes)
    seconds = time.monotonic() - started
    classes = interp.predict(graph, output)
    right, count = int((classes == samples.labels).sum()), len(samples)
    if table is not None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        width = output.reshape(count, -1).shape[1] if count else 0
        writer.writerow(["index", "label", "class", *(f"logit{i}" for i in range(width))])
        for index, (label, found, row) in enumerate(zip(samples.labels, classes, output, strict=True)):
            writer.writerow([index, int(label), int(found), *map(int, row.ravel())])
        write_atomic(table, text.getvalue().encode())
    if as_json:
        typer.echo(json.dumps({"model": graph.name, "images": count, "right": right, "accuracy": right / max(count, 1),
                               "seconds": round(seconds, 3)}))
    else:
        typer.echo(f"{graph.name}: {right} of {count} right, {100 * right / max(count, 1):.2f} %, {seconds:.1f} s")
