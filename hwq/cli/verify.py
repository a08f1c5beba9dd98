"""``hwq verify``: is the hardware exactly the network?"""

import json
from pathlib import Path

import typer

__all__ = ["command"]


def command(folder: Path = typer.Argument(..., help="Folder of hwq build."),
            level: str = typer.Option("rtl",
                                      help="rtl: the emitted Verilog; netlist: after synthesis, with the vendor's cell models."),
            simulator: str = typer.Option(None, help="verilator (compiled, whole test sets; the default), cocotb-icarus "
                                          "(benches in a simulator that knows X), cocotb-verilator, or amaranth (needs no "
                                          "compiler, a few frames)."),
            images: str = typer.Option(None, help="How many images, or all. Default: all; a few where the simulator is slow."),
            data: str = typer.Option(None, help="Folder of IDX files, .npz, .npy, or fashion-mnist. Default: the build's vectors."),
            stalls: int = typer.Option(None, metavar="SEED", help="Stall both ends at random, from this seed."),
            faults: int = typer.Option(0, metavar="PERCENT", help="Throw in resets in the middle of frames, short and long frames "
                                       "before this share of the frames: each at least once."),
            negative_control: bool = typer.Option(False, "--negative-control",
                                                  help="Flip one weight bit in the reference: it must be noticed."),
            jobs: int = typer.Option(None, "--jobs", "-j", help="Processes of the compiled simulation. Default: one a processor."),
            as_json: bool = typer.Option(False, "--json", help="Print one JSON object.")) -> None:
    """Simulate a build and compare every result with the integer reference; exits 6 on any difference."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ..errors import ModelError
    from ..sim import verify

    if images not in (None, "all") and not images.isdecimal():
        raise ModelError(f"Images must be a number or 'all', not {images!r}")
    if jobs is not None and jobs < 1:
        raise ModelError(f"Jobs must be at least 1, not {jobs}")
    count = images if images in (None, "all") else int(images)
    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console,
                  transient=True, disable=not console.is_terminal) as bar:
        tasks = [bar.add_task("verify", total=None)]

        def say(step: str, done: int, total: int) -> None:
            if bar.tasks[-1].description != step:        # a bar cannot go back to an unknown end
                bar.remove_task(tasks.pop())
                tasks.append(bar.add_task(step, total=None))
            bar.update(tasks[0], completed=done, total=total or None)

        report = verify(folder, level=level, simulator=simulator, images=count, data=data, stalls=stalls, faults=faults,
                        negative_control=negative_control, processes=jobs, progress=say)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=1))
    else:
        typer.echo("\n".join(report.lines()))
