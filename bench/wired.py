"""Constant matrix-vector products beside da4ml: ``python -m bench.wired [--starts N] [--steps N] [--json FILE] [NAME ...]``.

Five fixed random matrices, unsigned 8-bit inputs. *peer* is da4ml's own Verilog, made here if it is installed (extra
``bench``), else the figure measured once; *study* the best figures of an earlier study of ours. All with Yosys'
``synth_ice40 -abc9 -device hx``: SB_LUT4 without registers, and packed logic cells with a register after every adder.
Every netlist of ours is run against the matrix.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path

import numpy as np

from hwq.rtl.adders import AdderGraph
from hwq.rtl.sharing import Effort, share
from hwq.rtl.wired import AdderNetwork

from .measure import measure
from .netlist import Netlist

__all__ = ["KNOWN", "matrices", "mean", "ours", "peer", "row", "table"]

# da4ml 0.6.0 with Yosys 0.70: SB_LUT4; study: SB_LUT4, packed cells of the better of two pipelined graphs.
KNOWN = {"16x16 int4": (3375, 2190, 3035), "27x8 int4": (2957, 1990, 2833), "27x8 pot4": (2252, 1594, 2192),
         "27x8 pot3": (1574, 1083, 1407), "27x8 tern": (1224, 767, 1029)}


def matrices() -> dict[str, np.ndarray]:
    """Return the matrices (outputs, inputs) by name, each the first draw of its own generator with seed 1."""
    def powers(count: int) -> np.ndarray:
        rng = np.random.default_rng(1)
        exponent, sign = rng.integers(0, count + 1, (27, 8)), rng.choice([-1, 1], (27, 8))
        return np.where(exponent == count, 0, sign << np.minimum(exponent, count - 1))

    drawn = {"16x16 int4": np.random.default_rng(1).integers(-7, 8, (16, 16)),
             "27x8 int4": np.random.default_rng(1).integers(-7, 8, (27, 8)),
             "27x8 pot4": powers(7), "27x8 pot3": powers(3), "27x8 tern": np.random.default_rng(1).integers(-1, 2, (27, 8))}
    return {name: np.ascontiguousarray(matrix.T) for name, matrix in drawn.items()}


def ours(matrix: np.ndarray, every: int, effort: Effort) -> tuple[AdderGraph, dict]:
    """Return the graph found and what its hardware takes, its netlist run on 300 vectors."""
    outputs, inputs = matrix.shape
    graph = share(matrix, [(0, 255)] * inputs, every=every, effort=effort)
    network = AdderNetwork(graph, every=every, exact=True)
    x = np.random.default_rng(0).integers(0, 256, (300, inputs))
    x[0], x[1:outputs + 1], x[outputs + 1:2 * outputs + 1] = 255, (matrix > 0) * 255, (matrix < 0) * 255

    def check(netlist: Netlist) -> None:
        cycle = {f"x{i}": x[:, i] for i in range(inputs)} | ({"en": np.ones(len(x), np.int64)} if every else {})
        got = netlist.run([cycle] * (network.latency + 1), [f"y{j}" for j in range(outputs)])[-1]
        for j, want in enumerate((x @ matrix.T).T):
            if not (got[f"y{j}"] == want & (1 << network.y_shapes[j].width) - 1).all():
                raise AssertionError(f"Output {j} of the netlist differs from the matrix")

    return graph, measure(network, "hx8k", place=False, options="-abc9", check=check)


def peer(matrix: np.ndarray) -> dict:
    """Return what da4ml's own Verilog takes, combinational, at its defaults."""
    from da4ml.codegen import VerilogModel
    from da4ml.trace import FixedVariableArrayInput, comb_trace
    x = FixedVariableArrayInput(matrix.shape[1]).quantize(0, 8, 0)
    with tempfile.TemporaryDirectory() as name:
        VerilogModel(comb_trace(x, x @ np.ascontiguousarray(matrix.T).astype(np.float32)), "accel", Path(name)).write()
        files = {f.name: f.read_text()
                 for f in sorted(Path(name).rglob("*.v")) if f.name not in ("lookup_table.v", "accel_wrapper.v")}
    return measure(files, "hx8k", place=False, options="-abc9")


def row(name: str, effort: Effort) -> dict:
    """Measure a matrix, without registers and with one after every adder, and the peer if it is installed."""
    matrix, (known, study, study_lc) = matrices()[name], KNOWN[name]
    live = find_spec("da4ml") is not None
    theirs = peer(matrix)["lut"] if live else known
    begin = time.monotonic()
    plain, got = ours(matrix, 0, effort)
    piped, registered = ours(matrix, 1, effort)
    return {"name": name, "peer": theirs, "live": live, "study": study, "lut": got["lut"], "ratio": round(got["lut"] / theirs, 3),
            "adders": len(plain.nodes), "study_lc": study_lc, "lc": registered["lc"], "stages": piped.stages(1),
            "seconds": round(time.monotonic() - begin)}


def table(found: Sequence[dict], head: bool = True) -> str:
    """Return the table, or its lines alone."""
    lines = ["| matrix | da4ml LUT4 | study LUT4 | hwq LUT4 | of da4ml | adders | study LC, pipelined | hwq LC, pipelined | "
             "stages | search s |",
             "|---|---|---|---|---|---|---|---|---|---|"][:2 * head]
    for r in found:
        lines.append(f"| {r['name']} | {r['peer']:,}{'' if r['live'] else ' (as measured once)'} | {r['study']:,} | {r['lut']:,} | "
                     f"{r['ratio']:.3f} | {r['adders']} | {r['study_lc']:,} | {r['lc']:,} | {r['stages']} | {r['seconds']} |")
    return "\n".join(lines)


def mean(found: Sequence[dict]) -> str:
    """Return the geometric mean of the ratios, in words."""
    return f"Geometric mean of LUT4: {prod(r['lut'] / r['peer'] for r in found) ** (1 / len(found)):.3f} of da4ml."


def main() -> None:
    """Print a line a matrix, and the geometric mean of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(KNOWN), metavar="NAME", help=", ".join(KNOWN))
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    effort, found = Effort(arguments.starts, arguments.steps, arguments.seed), []
    for name in arguments.names:
        found.append(row(name, effort))
        print(table(found[-1:], head=len(found) == 1), flush=True)
    print(mean(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
