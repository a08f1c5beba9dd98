"""``hwq show``: what is in a ``.hwq`` file."""

import json
from pathlib import Path

import typer

__all__ = ["command"]

_LEFT = ("layer", "operator", "format")


def command(model: Path = typer.Argument(..., help="A .hwq file."),
            as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Print a network: every node's shape, range, width, weights' format, bits and multiplications; and every requantization."""
    from rich.console import Console
    from rich.table import Table

    from ..analysis import block_rams, layer_facts, requant_facts, totals
    from ..ir import content_hash, load

    graph = load(model)
    facts, digest, forms = layer_facts(graph), content_hash(graph), requant_facts(graph)
    total = totals(facts)
    if as_json:
        typer.echo(json.dumps({"name": graph.name, "hash": digest, "classes": list(graph.classes),
                               "nodes": [fact.as_dict() for fact in facts], "requantize": [form.as_dict() for form in forms],
                               **total, "blocks": block_rams(int(total["weight_bits"]))}, indent=1))
        return
    table = Table(title=f"{graph.name}  {digest[:16]}")
    for title in ("layer", "operator", "shape", "range", "bits", "weights", "format", "weight bits", "blocks", "MACs"):
        table.add_column(title, justify="left" if title in _LEFT else "right", no_wrap=True)
    for fact in facts:
        weights = [f"{fact.weights:,}", fact.weight_format, f"{fact.weight_bits:,}", str(block_rams(fact.weight_bits)),
                   f"{fact.macs:,}"] if fact.weights else [""] * 5
        table.add_row(fact.name, fact.op, "x".join(map(str, fact.shape)), f"{fact.lo}..{fact.hi}",
                      f"{fact.width}{'s' if fact.signed else 'u'}", *weights)
    table.add_section()
    bits = int(total["weight_bits"])
    table.add_row("total", "", "", "", "", f"{total['weights']:,}", f"{total['bits_per_weight']:.2f} bits each", f"{bits:,}",
                  str(block_rams(bits)), f"{total['macs']:,}")
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    console.print(table)
    if forms:
        second = Table(title="requantization")
        for title in ("layer", "form", "computes", "multiplier", "constant bits"):
            second.add_column(title, justify="left" if title in ("layer", "form", "computes") else "right", no_wrap=True)
        for form in forms:
            second.add_row(form.name, form.form, form.detail, "x".join(map(str, form.multiplier)), f"{form.constant_bits:,}")
        console.print(second)
    typer.echo("Blocks: 4 kbit block RAMs of an iCE40 if every bit were used; hwq build says what the folding takes.\n"
               "MACs: of all windows; hwq plan and build count no window whose result pooling drops, for it is not computed.")
