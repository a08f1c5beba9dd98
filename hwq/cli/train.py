"""``hwq train``: from a network in Python to a quantized one, by a recipe."""

import json
from pathlib import Path
from typing import Any

import typer

__all__ = ["command"]


def command(factory: str = typer.Argument(..., help="Function that makes the float network: package.module:function."),
            folder: Path = typer.Option(..., "-o", "--output", help="Folder of the run; made if need be."),
            data: str = typer.Option(None, "--data", help="Data set's name, folder of its files, NAME=FOLDER, or labelled .npz; "
                                     "default fashion-mnist."),
            config: Path = typer.Option(None, "--config", help="Recipe (TOML); default: 4 bits everywhere."),
            seed: int = typer.Option(0, "--seed", help="Seed of everything random."),
            device: str = typer.Option("cpu", "--device", help="cpu or cuda."),
            resume: bool = typer.Option(False, "--resume", help="Go on with an interrupted run."),
            weights: Path = typer.Option(None, "--weights", help="Trained float weights (.pt or .safetensors): no float training."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Train a float network, then fine-tune it with quantized weights and activations.

    On several GPUs or machines: torchrun --nproc-per-node N -m hwq train ...
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..data import open_dataset
    from ..errors import FormatError
    from ..frontend import require_convertible
    from ..quant import parallel
    from ..quant.run import train_run

    try:
        text = config.read_text() if config is not None else ""
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"Cannot read the recipe {config}: {error}") from None
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeRemainingColumn())
    with parallel.team(device) as device, Progress(*columns,
                  console=console, transient=True, disable=not (console.is_terminal and parallel.lead())) as bar:
        task = bar.add_task("train", total=None)

        def report(phase: str, row: dict[str, Any]) -> None:
            console.print(f"{phase} epoch {row['epoch']}: loss {row['loss']:.4f}, validation {100 * row['accuracy']:.2f} %, "
                          f"{row['seconds']:.0f} s", highlight=False)
        result = train_run(factory, open_dataset(data, "train"), text, folder, seed=seed, device=device, resume=resume,
                           weights=weights, check=require_convertible, report=report,
                           progress=lambda phase, done, total: bar.update(task, description=phase, completed=done, total=total))
        if not parallel.lead():
            return
    if as_json:
        typer.echo(json.dumps({key: value for key, value in result.items() if key != "log"} | {"folder": str(folder)}))
    else:
        for note in result["notes"]:
            typer.echo(f"note: {note}")
        typer.echo(f"{folder}: float {100 * result['float']:.2f} %, quantized {100 * result['quantized']:.2f} % of "
                   f"{result['validation_images']} validation images; next: hwq lower {folder} -o MODEL.hwq")
