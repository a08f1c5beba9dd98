"""``hwq import``: another framework's network to a ``.hwq`` file."""

import json
from pathlib import Path

import typer

__all__ = ["command"]


def command(file: Path = typer.Argument(...,
                                        help="A .tflite (int8) or .onnx file (QONNX, QDQ or QOperator)."),
            output: Path = typer.Option(..., "-o", "--output", help="The .hwq file to write."),
            name: str = typer.Option(None, "--name", help="Name of the network; default: the output's."),
            input_format: str = typer.Option(None, "--input-format",
                                             help="Integers at the input of an ONNX network, such as dfp:b=8,fl=6 or udfp:b=8."),
            input_scale: str = typer.Option(None, "--input-scale",
                                            help="What one input integer is worth where --input-format has no fl: 0.05 or 1/255."),
            output_bits: int = typer.Option(None, "--output-bits", min=8, max=60,
                                            help="Allow outputs with scales of their own to be rounded to about so many bits."),
            check: bool = typer.Option(True, "--check/--no-check",
                                       help="Compare with the source framework before writing; exit 6 on a difference."),
            data: Path = typer.Option(None, "--data",
                                      help="Inputs to compare on, .npy: integers for .tflite, floats for .onnx; default: random."),
            inputs: int = typer.Option(8, "--inputs", min=1, help="How many random inputs to compare on."),
            seed: int = typer.Option(0, "--seed", help="Seed of the random inputs."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Import a quantized network exactly, or say what in it is not supported."""
    from ..analysis import layer_facts, requant_facts, totals
    from ..frontend.importer import compare_source, import_file, input_grid
    from ..ir import content_hash, save
    from . import progress

    grid = input_grid(input_format, input_scale)
    values = _read(data)
    with progress("import") as say:
        imported = import_file(file, name or output.stem, grid=grid, output_bits=output_bits, say=say)
    report = None
    if check:
        with progress("compare with the source") as say:
            report = compare_source(imported, values, inputs, seed, say)
    graph = imported.graph
    facts = totals(layer_facts(graph))
    if as_json:
        typer.echo(json.dumps({
            "file": str(output), "hash": content_hash(graph), "source": imported.source, "notes": list(imported.notes),
            "input": imported.input_text, "output": imported.output_text, "check": report.as_dict() if report else None, **facts,
            "requantize": [form.as_dict() for form in requant_facts(graph)]}))
    else:
        if report is not None:
            _print(report)
        for note in imported.notes:
            typer.echo(f"note: {note}")
        typer.echo(f"input: {imported.input_text}\noutput: {imported.output_text}")
    if report is not None:
        report.require_equal()                     # before anything is written
    save(graph, output)
    if not as_json:
        typer.echo(f"{output}: {facts['weights']:,.0f} weights in {facts['weight_bits']:,.0f} bits, {facts['macs']:,.0f} "
                   f"multiplications an input; next: hwq show {output}")


def _read(path: Path | None):
    import numpy as np

    from ..errors import FormatError
    if path is None:
        return None
    try:
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror or error}") from None
    except (ValueError, EOFError) as error:
        raise FormatError(f"Cannot read {path}: {error}") from None
    if not isinstance(values, np.ndarray) or values.ndim < 1 or values.dtype.kind not in "iuf" or not len(values):
        raise FormatError(f"{path} must be a .npy file with an array of inputs")
    return values


def _print(report) -> None:
    from rich.console import Console
    from rich.table import Table
    table = Table(title=f"compared with {report.oracle} on {report.inputs} inputs")
    floats = any(row.bound for row in report.rows)
    titles = ["edge", "tensor of the source", "numbers", "differ"] + (["inside the bound", "bound"] if floats else []) + ["wrong"]
    for title in titles:
        table.add_column(title, justify="left" if title in titles[:2] else "right", no_wrap=True)
    for row in report.rows:
        extra = [f"{row.allowed:,}", f"{row.bound:.2g}"] if floats else []
        table.add_row(row.edge, row.tensor[:60], f"{row.numbers:,}", f"{row.different:,}", *extra, f"{row.wrong:,}")
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
    if floats:
        typer.echo("bound: how far the source's float32 arithmetic may be off, in steps of the quantizer (of the "
                   "output: in its integers)")
    if report.classes_differ:
        typer.echo(f"The largest output is another one for {report.classes_differ} of {report.inputs} inputs")
