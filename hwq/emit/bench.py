"""Golden vectors, the plain-Verilog test bench that uses them, and the folder's README; text only, by jinja2."""

from importlib.resources import files
from pathlib import Path

import jinja2
import numpy as np

from .. import interp
from ..ir.graph import Graph
from .beats import pack_codes
from .manifest import Manifest

__all__ = ["vector_codes", "write_vectors", "write_bench", "template"]


def template(package: str, name: str) -> jinja2.Template:
    """Return a template of a package's folder ``templates``; an unknown name in it is an error."""
    text = (files(package) / "templates" / name).read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
                                     autoescape=name.endswith(".html.j2"))
    return environment.from_string(text)


def vector_codes(graph: Graph, count: int, seed: int = 0) -> np.ndarray:
    """Return ``count`` input frames: all codes least, all greatest, the rest random."""
    lo, hi = graph.input.lo, graph.input.hi
    codes = np.random.default_rng(seed).integers(lo, hi + 1, (count, *graph.input.shape))
    codes[:1], codes[1:2] = lo, hi
    return codes


def write_vectors(graph: Graph, folder: Path, codes: np.ndarray, manifest: Manifest) -> None:
    """Write golden vectors: input codes and the interpreter's results, as ``.npy`` and as ``.hex`` for ``$readmemh``.

    Parameters
    ----------
    graph : Graph
        The user's network.
    folder : Path
        Made if it is not there.
    codes : ndarray of int (n, ...)
    manifest : Manifest
        Of the core; a line of a ``.hex`` file is a beat on its bus.
    """
    folder.mkdir(exist_ok=True)
    results = interp.run_batches(graph, codes)
    np.save(folder / "input.npy", codes.astype(np.int64), allow_pickle=False)
    np.save(folder / "output.npy", results, allow_pickle=False)
    i, o = manifest["input"], manifest["output"]
    for name, size, data in (("input", i["bytes"], pack_codes(codes, lanes=i["lanes"], width=i["width"])),
                             ("output", o["bytes"], pack_codes(results, lanes=1, width=8 * o["bytes"]))):
        beats = data.reshape(-1, size)[:, ::-1]          # the first byte is the low one
        (folder / f"{name}.hex").write_text("".join(f"{bytes(beat).hex()}\n" for beat in beats))


def write_bench(manifest: Manifest, folder: Path, *, frames: int, patience: int) -> None:
    """Write ``accel_tb.v`` and ``README.txt`` beside ``accel.v``.

    Parameters
    ----------
    manifest : dict
        Of the core.
    folder : Path
    frames : int
        Frames in the vectors.
    patience : int
        Cycles without a transfer after which the bench gives up.
    """
    title = f"{manifest['name']} ({manifest['model_hash'][:16]}), for {manifest['device']}"
    common = dict(title=title, i=manifest["input"], o=manifest["output"])
    (folder / "accel_tb.v").write_text(template(__package__, "accel_tb.v.j2").render(**common, frames=frames, patience=patience))
    (folder / "README.txt").write_text(template(__package__, "README.txt.j2").render(
        **common, ports=manifest["ports"], classes=manifest["classes"], cycles=manifest["cycles"],
        startup=manifest["startup_cycles"], verilog=manifest["target"] == "verilog",
        cells="SB_MAC16" in (folder / "accel.v").read_text()))
