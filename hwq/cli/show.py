"""``hwq show``: what is in a ``.hwq`` file."""

import json
from pathlib import Path

import typer

__all__ = ["command"]


def command(model: Path = typer.Argument(..., help="A .hwq file."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Print a network: every node with its shape and range, its weights' format, bits and multiplications."""
    from rich.console import Console
    from rich.table import Table

    from ..ir import content_hash, load
    from ..ir.nodes import Conv2d, Linear

    graph = load(model)
    rows = []
    for node in graph:
        edge = graph.edges[node.name]
        row = {"name": node.name, "op": node.op, "shape": list(edge.shape), "lo": edge.lo, "hi": edge.hi,
               "frac_bits": edge.frac_bits, "format": None, "weights": 0, "bits": 0, "macs": 0}
        if isinstance(node, Conv2d | Linear) and node.weight_format:
            positions = edge.shape[0] * edge.shape[1] if len(edge.shape) == 3 else 1
            row |= {"format": node.weight_format.text, "weights": node.weight.size,
                    "bits": node.weight.size * node.weight_format.width, "macs": node.weight.size * positions}
        rows.append(row)
    bits = sum(row["bits"] for row in rows)
    if as_json:
        typer.echo(json.dumps({"name": graph.name, "hash": content_hash(graph), "classes": graph.classes, "nodes": rows,
                               "weight_bits": bits}, indent=1))
        return
    table = Table(title=f"{graph.name}  {content_hash(graph)[:16]}")
    for title in ("layer", "operator", "shape", "range", "weights", "format", "bits", "blocks", "MACs"):
        table.add_column(title, justify="left" if title in ("layer", "operator", "format") else "right")
    for row in rows:
        has = row["weights"] > 0
        table.add_row(row["name"], row["op"], "x".join(map(str, row["shape"])), f"{row['lo']}..{row['hi']}",
                      *([f"{row['weights']:,}", row["format"], f"{row['bits']:,}", f"{-(-row['bits'] // 4096)}",
                         f"{row['macs']:,}"] if has else [""] * 5))
    table.add_section()
    table.add_row("total", "", "", "", f"{sum(r['weights'] for r in rows):,}", "", f"{bits:,}", f"{-(-bits // 4096)}",
                  f"{sum(r['macs'] for r in rows):,}")
    Console(width=140 if not Console().is_terminal else None).print(table)
    typer.echo("Blocks: 4 kbit block RAMs of an iCE40 if every bit were used; `hwq build` says what the folding takes.")
