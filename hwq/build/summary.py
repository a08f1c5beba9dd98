"""The report for a terminal."""

from rich.console import Group
from rich.table import Table

from .report import LayerRow, Report

__all__ = ["summary"]


def _row(row: LayerRow, placed: bool) -> list[str]:
    cells = row.get("cells", {})
    weights = [str(row["pe"]), str(row["simd"]), row["source"], row["format"], f"{row['weight_bits']:,}",
               f"{row['rom'][0]}x{row['rom'][1]}", str(row["rom_blocks"] or "-"), str(row["accumulator_bits"])] \
        if "pe" in row else [""] * 8
    taken = [f"{cells.get(name, 0):,}" for name in ("lut", "ff", "ebr", "dsp")] if placed else []
    return [row["name"], f"{row['macs']:,}", f"{row['cycles']:,}", *weights, *taken]


def summary(report: Report) -> Group:
    """Return the report as a rich table and its closing lines."""
    placed = "used" in report
    table = Table(title=f"{report['name']} on {report['board'] or report['device']}")
    for title in ("layer", "MACs", "cycles", "pe", "simd", "window", "weights", "bits", "ROM", "blocks", "acc",
                  *(("LUT", "FF", "EBR", "DSP") if placed else ())):
        table.add_column(title, justify="left" if title in ("layer", "window", "weights") else "right", no_wrap=True)
    for row in report["layers"]:
        table.add_row(*_row(row, placed))
    lines = [f"Cycles a frame: {report['cycles']:,} by the plan (slowest: {report['bottleneck']}); {report['macs']:,} MACs "
             "(without windows that pooling drops; hwq show counts them)"]
    if placed:
        used = ", ".join(f"{name.upper()} {a:,}/{b:,}" for name, (a, b) in report["used"].items())
        seeds = f", best of {len(report['seeds'])} seeds: {report['seed']}" if len(report["seeds"]) > 1 else ""
        lines += [f"Used, shell included: {used}",
                  f"Clock: {report['clock_mhz']:g} MHz (reaches {report['fmax_mhz']} MHz{seeds})",
                  f"Frames/s by the plan: {report['frames_per_s']:,} at this clock, {report['frames_per_s_at_fmax']:,} at the "
                  f"clock it reaches; the link carries at most {report['frames_per_s_link']:,} at {report['baud']:,} baud"]
    if report["rom_block_bits"]:
        lines.append(f"Weights in block RAM: {report['rom_bits']:,} bits in {report['rom_blocks']} blocks of "
                     f"{report['rom_block_bits']:,} bits ({100 * report['rom_bits'] / report['rom_block_bits']:.0f} %)")
    if placed and not report["bitstream"]:
        lines.append("No bitstream: a bare device has no pins, and pins that the router chooses can damage a board. "
                     "Give them with --pcf FILE, or a board with --board.")
    return Group(table, *lines)
