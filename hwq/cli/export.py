"""``hwq export``: a ``.hwq`` file as QONNX, for other tools."""

import json
from pathlib import Path

import typer

__all__ = ["command"]


def command(model: Path = typer.Argument(..., help="A .hwq file."),
            output: Path = typer.Option(..., "-o", "--output", help="The .onnx file to write (QONNX)."),
            check: bool = typer.Option(True, "--check/--no-check", help="Compare every tensor with the qonnx executor before "
                                       "writing; exit 6 on a difference."),
            inputs: int = typer.Option(4, "--inputs", min=1, help="How many random inputs to compare on."),
            seed: int = typer.Option(0, "--seed", help="Seed of the random inputs."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Write a network as QONNX that computes the same integers exactly in float32, or say which node cannot be written so."""
    from ..files import write_atomic
    from ..frontend.export_check import compare_export, random_codes
    from ..frontend.onnx_export import export_onnx
    from ..ir import content_hash, load
    from . import progress

    graph = load(model)
    exported = export_onnx(graph)
    oracle, compared = "", dict[str, int]()
    if check:                                            # before anything is written
        with progress("compare with the qonnx executor"):
            oracle, compared = compare_export(graph, exported, random_codes(graph, inputs, seed))
    write_atomic(output, exported.model.SerializeToString(deterministic=True))
    operators = len(exported.model.graph.node)
    if as_json:
        typer.echo(json.dumps({"file": str(output), "hash": content_hash(graph), "operators": operators, "oracle": oracle,
                               "checked_numbers": compared}))
        return
    if compared:
        typer.echo(f"{oracle} = integer network: {sum(compared.values()):,} numbers on {len(compared)} edges of {inputs} "
                   "random inputs, none differs")
    typer.echo(f"{output}: {operators} operators; input '{exported.input}' = integer * "
               f"{float(exported.units[graph.input.name]):.9g}, "
               f"output '{graph.output.inputs[0]}' = integer * {float(exported.units[graph.output.name]):.9g}")
