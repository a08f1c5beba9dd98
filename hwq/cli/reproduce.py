"""``hwq reproduce``: the experiment of the paper behind hwq, as tables and pictures."""

import json
from pathlib import Path

import typer

__all__ = ["command"]


def _synthetic(path: Path, seed: int) -> None:
    """Write four classes of noisy 28x28 bars: enough to see the whole experiment run, no measure of anything."""
    import numpy as np

    from ..data import Dataset, write_npz
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 420)
    images = rng.integers(0, 160, (420, 28, 28)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        at = int(rng.integers(2, 20))
        rows, columns = (slice(at, at + 5), slice(None)) if label < 2 else (slice(None), slice(at, at + 5))
        image[rows, columns] += np.uint8(50 + 45 * int(label % 2))
    write_npz(path, Dataset(images, labels, ("dim row", "bright row", "dim column", "bright column")))


def _claim(folder: Path, facts: dict, resume: bool) -> None:
    from ..errors import ModelError
    from ..files import write_atomic
    path = folder / "experiment.json"
    facts = json.loads(json.dumps(facts))
    if path.exists():
        if not resume:
            raise ModelError(f"{folder} holds an experiment; go on with --resume, or name another folder")
        if json.loads(path.read_text()) != facts:
            raise ModelError(f"{folder} holds another experiment (scale, data set, or version); name another folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise ModelError(f"{folder} holds something that is no experiment; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(facts, indent=1, sort_keys=True).encode())


def command(paper: str = typer.Argument(..., help="wess2018"),
            folder: Path = typer.Option(..., "-o", "--output", help="Folder of the experiment; made if need be."),
            scale: str = typer.Option("tiny", "--scale",
                                      help="tiny (a minute, synthetic data), small (hours on two cores), full (a GPU)."),
            dataset: str = typer.Option("", "--dataset", help="fashion-mnist, mnist, cifar-10, cifar-100, svhn; tiny: synthetic."),
            width: float = typer.Option(0, "--width",
                                        help="Factor on All-CNN's channels; small: 0.125 (CIFAR-100: 0.25), full: 1."),
            data: str = typer.Option("", "--data", help="Folder of the data set's files, where the usual places do not have it."),
            seeds: int = typer.Option(3, "--seeds", help="Number of seeds."),
            processes: int = typer.Option(1, "--jobs", help="Trainings side by side."),
            scheduler: str = typer.Option("", "--cluster",
                                          help="Dask scheduler whose workers train instead of this machine: tcp://host:8786."),
            threads: int = typer.Option(1, "--threads", help="Threads of each training."),
            device: str = typer.Option("cpu", "--device", help="cpu or cuda."),
            parts: str = typer.Option("table,scaling", "--parts", help="What to run: table, scaling, given, separated by commas."),
            bits: str = typer.Option("", "--bits",
                                     help="For the part given: the widths of a network to judge over all seeds, as 8,3,4,3,3."),
            resume: bool = typer.Option(False, "--resume", help="Go on with an interrupted experiment, also with more seeds."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Run {DFP, Po2} x bits x {no tuning, plain, QR, weighted QR} and layer-wise scaling against a float network, trained alike."""
    from dataclasses import asdict

    from rich.console import Console

    from ..errors import ModelError
    from ..quant.parallel import refuse_team
    from ..search.cluster import workers
    from ..search.paper import Experiment, plan_of
    from ..search.tables import read_rows, write_tables
    from . import progress

    refuse_team("An experiment", "its trainings run side by side with --jobs N")
    if paper != "wess2018":
        raise ModelError(f"Unknown paper {paper!r}; known: wess2018")
    wanted = set(parts.split(","))
    if seeds < 1 or not wanted or wanted - {"table", "scaling", "given"}:
        raise ModelError(f"Needs at least one seed and parts out of table, scaling, given; found {seeds} and {parts!r}")
    if ("given" in wanted) != bool(bits) or not all(width.strip().isdecimal() for width in bits.split(",") if bits):
        raise ModelError("The part given takes one --bits with widths as 8,3,4,3,3, and no other part takes it; found "
                         f"{parts!r} and {bits!r}")
    widths = [int(width) for width in bits.split(",") if bits]
    dataset = dataset or ("synthetic" if scale == "tiny" else "fashion-mnist")
    plan = plan_of(scale, dataset, width)
    _claim(folder, {"scale": scale, "dataset": dataset, "plan": asdict(plan)}, resume)
    where, test = f"{dataset}={data}" if data else dataset, ""
    if dataset == "synthetic":
        where, test = str(folder / "train.npz"), str(folder / "test.npz")
        for path, seed in ((where, 2018), (test, 2019)):
            if not Path(path).exists():
                _synthetic(Path(path), seed)
    console, title = Console(stderr=True), f"wess2018, {scale}, {dataset}" + (f", width {width:g}" if width else "")
    with progress("reproduce") as say, workers(processes, scheduler, folder) as run_by:
        def report(row: dict) -> None:
            line = f"{row.get('cell', row['event'])} {' '.join(map(str, row.get('bits', {}).values()))} seed {row.get('seed', '')}"
            if "accuracy" in row:
                line += f": {100 * row['accuracy']:.2f} %"
            say(line)
            console.print(line, highlight=False)
        experiment = Experiment(plan, where, range(seeds), folder, test=test, processes=run_by, threads=threads,
                                device=device, report=report)
        experiment.rows, experiment.scaling = read_rows(folder)
        experiment.floats()
        cells = list(experiment.cells()) if "table" in wanted else []
        for cell in (cell for cell in cells if cell[3] == "none"):
            experiment.cell(*cell)
        write_tables(experiment, folder, title)
        for kind in plan.scaled if "scaling" in wanted else ():
            for seed in experiment.seeds:
                experiment.scale(kind, seed)
                write_tables(experiment, folder, title)
        for kind in plan.scaled if widths else ():
            for seed in experiment.seeds:
                experiment.given(kind, widths, seed)
                write_tables(experiment, folder, title)
        for cell in (cell for cell in cells if cell[3] != "none"):
            experiment.cell(*cell)
            write_tables(experiment, folder, title)
    if as_json:
        typer.echo((folder / "table.json").read_text())
    else:
        typer.echo((folder / "table.md").read_text())
