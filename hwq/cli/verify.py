"""``hwq verify``: is the hardware exactly the network?"""

import json
from pathlib import Path

import typer

__all__ = ["command"]


def command(folder: Path = typer.Argument(..., help="Folder of hwq build."),
            level: str = typer.Option("rtl", help="rtl or netlist."),
            images: str = typer.Option("all", help="How many images, or all."),
            data: str = typer.Option(None, help="Folder of IDX files, .npz, .npy, or fashion-mnist; default: the build's vectors."),
            stalls: int = typer.Option(None, help="Seed of random stalls at both ends."),
            fault: str = typer.Option("none", help="none, reset, short or long: what is done to the stream."),
            negative_control: bool = typer.Option(False, help="Flip one weight bit in the reference: a difference must be found."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Simulate a build and compare every result with the integer reference; exits 6 on any difference."""
    from hwq.sim import verify

    from ..errors import ModelError
    from . import progress

    if images != "all" and not images.isdigit():
        raise ModelError(f"Images must be a number or 'all', not {images!r}")
    with progress("verify") as say:
        report = verify(folder, level=level, images=images, data=data, stalls=stalls, negative_control=negative_control, fault=fault,
                        progress=lambda done, total: say(f"{done} of {total} images"))
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=1))
    elif negative_control:
        typer.echo(f"{level}: the flipped weight bit was noticed on {report.images} images, as it must be")
    else:
        right = "" if report.accuracy is None else f", accuracy {100 * report.accuracy:.2f} %"
        typer.echo(f"{level}: {report.identical} of {report.images} images identical to the reference{right}, {report.cycles:,.1f} cycles a frame")
