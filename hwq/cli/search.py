"""``hwq search``: fewer bits layer by layer, as long as the accuracy holds."""

import json
from pathlib import Path

import typer

__all__ = ["command"]


def command(factory: str = typer.Argument(..., help="Function that makes the float network: package.module:function or "
                                          "...:function(key=value)."),
            folder: Path = typer.Option(..., "-o", "--output", help="Folder of the search; made if need be."),
            data: str = typer.Option("", "--data", help="Data set's name, folder of its files, NAME=FOLDER, or labelled .npz; "
                                     "default fashion-mnist."),
            test: str = typer.Option("", "--test", help="Test images where --data is one file; else the data set's own."),
            config: Path = typer.Option(None, "--config",
                                        help="Recipe (TOML): formats (their widths are searched), [float], [tune], [penalty]."),
            rule: str = typer.Option("greedy", "--rule", help="greedy, fast (a tenth of the trainings), path (about five, as long "
                                     "as the reference's) or product (a third party's)."),
            cost: str = typer.Option("bits", "--cost", help="What to save: bits, or block RAMs of a device (up5k, hx8k)."),
            drop: float = typer.Option(0.10, "--drop", help="Allowed drop of accuracy, percentage points."),
            start: int = typer.Option(8, "--start", help="Bits of every layer to start with (Po2: 5 at most)."),
            least: int = typer.Option(2, "--least", help="Fewest bits."),
            epochs: int = typer.Option(1, "--epochs", help="Passes over the data for every candidate."),
            rate: float = typer.Option(1.0, "--rate", help="Their learning rate, as a factor on the recipe's."),
            slack: float = typer.Option(0.0, "--slack",
                                        help="Standard errors by which they may exceed the drop; the confirmation decides."),
            search_images: int = typer.Option(10_000, "--search-images", help="Training images set aside to choose by."),
            confirm_images: int = typer.Option(5_000, "--confirm-images", help="Training images set aside to confirm with."),
            weights: Path = typer.Option(None, "--weights", help="Trained float weights (.pt or .safetensors): no float training."),
            seed: int = typer.Option(0, "--seed", help="Seed of everything random."),
            processes: int = typer.Option(1, "--jobs", help="Candidates trained side by side."),
            scheduler: str = typer.Option("", "--cluster",
                                          help="Dask scheduler whose workers train instead of this machine: tcp://host:8786."),
            device: str = typer.Option("cpu", "--device", help="cpu or cuda."),
            resume: bool = typer.Option(False, "--resume", help="Go on with an interrupted search."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Find the weight width of every layer, and train the network with them."""
    from rich.console import Console

    from ..errors import EnvironmentError_, FormatError
    from ..plan import device as find_device
    from ..plot import pareto
    from ..quant import read_recipe
    from ..quant.parallel import refuse_team
    from ..search import Options, search, setting_of
    from ..search.cluster import workers
    from ..search.log import read_log
    from . import progress

    refuse_team("A search", "its trainings run side by side with --jobs N")
    try:
        text = config.read_text() if config is not None else ""
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"Cannot read the recipe {config}: {error}") from None
    recipe = read_recipe(text, config or "config")
    if cost != "bits":
        find_device(cost)
    setting = setting_of(recipe, factory, data, test=test, search=search_images, confirm=confirm_images, device=device,
                         block_ram_device="" if cost == "bits" else cost, weights=str(weights or ""))
    console = Console(stderr=True)
    with progress("search") as say, workers(processes, scheduler, folder) as run_by:
        def report(row: dict) -> None:
            bits = " ".join(f"{layer}={width}" for layer, width in row.get("bits", {}).items())
            numbers = f" {100 * row['accuracy']:.2f} %, cross-entropy {row['cross_entropy']:.4f}" if "accuracy" in row else ""
            say(f"{row['event']} {bits}")
            console.print(f"{row['event']} {bits}{numbers}", highlight=False)
        result = search(setting, recipe, Options(rule, drop, start, least, epochs, seed, rate, slack), folder, processes=run_by,
                        resume=resume, report=report)
    try:
        pareto(read_log(folder / "log.jsonl"), folder / "pareto.svg", f"{rule}, seed {seed}")
    except EnvironmentError_ as error:
        console.print(f"no picture: {error}", highlight=False)
    if as_json:
        typer.echo(json.dumps({**result, "folder": str(folder)}))
        return
    bits = " ".join(f"{layer}={width}" for layer, width in result["bits"].items())
    (confirm, confirm_error), (test, test_error) = result["confirm_drop"], result["test_drop"]
    if not result["met"]:
        typer.echo(f"No network met the allowed drop of {drop} points, not even with {start} bits: this is the best found")
    tried = len(result["confirmations"])
    if result["confirmed"] and tried > 1:
        typer.echo("Fewer bits met the drop on the search images alone; the confirmation images confirmed network "
                   f"{tried} of those tried")
    elif not result["confirmed"]:
        typer.echo(f"The confirmation images confirmed none of {tried} networks: this is the one with the least drop there")
    typer.echo(f"{bits}: {result['mean_bits']:.2f} bits a weight, ratio {result['ratio']:.2f}\n"
               f"drop against the float network with the same extra training: confirmation {confirm:+.2f} +- {confirm_error:.2f}, "
               f"test {test:+.2f} +- {test_error:.2f} points (standard error)\n"
               f"test accuracy {100 * result['accuracy']['test']:.2f} %; next: hwq lower {folder / 'result'} -o MODEL.hwq")
