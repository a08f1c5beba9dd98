"""Compare the hardware with the interpreter: every result of every image, tolerance zero."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hwq import interp
from hwq.data import load_images
from hwq.emit import pack_codes
from hwq.errors import ModelError, VerifyError
from hwq.ir.graph import Graph
from hwq.ir.nodes import Conv2d, Linear
from hwq.ir.storage import load
from hwq.toolchain import versions

from .compiled import Simulator

__all__ = ["verify", "VerifyReport"]


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found; it is only made when nothing differed.

    Attributes
    ----------
    level : str
    images, identical : int
    accuracy : float or None
        Share of right classes, if there are labels.
    cycles : float
        Cycles a frame in steady state.
    stalls : int or None
        Seed of the random stalls.
    tools : dict
    """

    level: str
    images: int
    identical: int
    accuracy: float | None
    cycles: float
    stalls: int | None
    tools: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def _flipped(graph: Graph, codes: np.ndarray, want: np.ndarray, seed: int) -> np.ndarray:
    """Return the results of the network with one weight bit flipped, chosen so that some result changes."""
    rng = np.random.default_rng(seed)
    layers = [node for node in graph if isinstance(node, Conv2d | Linear)]
    for _ in range(50):
        node = layers[rng.integers(len(layers))]
        assert node.weight_format is not None
        words = node.weight_format.encode(node.weight.copy())
        place = tuple(rng.integers(size) for size in words.shape)
        words[place] ^= 1 << int(rng.integers(node.weight_format.width))
        changed = replace(node, weight=node.weight_format.decode(words))
        try:
            other = graph.with_nodes(changed if n.name == node.name else n for n in graph)
        except Exception:                                # a code that is no level (narrow formats): try another
            continue
        got = interp.run_batches(other, codes)
        if (got != want).any():
            return got
    raise VerifyError("Negative control: no single weight bit changes these results; give more images")


def verify(folder: str | Path, *, level: str = "rtl", images: int | str = "all", data: str | Path | None = None,
           stalls: int | None = None, negative_control: bool = False, fault: str = "none",
           progress: Callable[[int, int], None] | None = None) -> VerifyReport:
    """Run a build's core on images and compare every result with the interpreter's.

    Parameters
    ----------
    folder : path
        Of `hwq.build.build`.
    level : str
        ``rtl`` (``accel.v``) or ``netlist`` (``netlist.v`` with the vendor's cell models).
    images : int or "all"
        How many.
    data : path, optional
        See `hwq.data.load_images`; without it, the vectors of the build.
    stalls : int, optional
        Seed of random stalls at both ends; none without it.
    negative_control : bool
        Flip one weight bit in the reference: the comparison must then fail, and does not raise if it does.
    fault : str
        ``none``, ``reset``, ``short``, ``long``: what is done to the stream.
    progress : function of (done, total), optional

    Raises
    ------
    VerifyError
        A difference: image, place, expected, found. Or a protocol error, or no progress.
    """
    folder = Path(folder)
    if level not in ("rtl", "netlist"):
        raise ModelError(f"Level must be rtl or netlist, not {level!r}")
    source = folder / ("accel.v" if level == "rtl" else "netlist.v")
    if not (folder / "manifest.json").exists() or not source.exists():
        raise ModelError(f"{folder} is no build with {source.name}; make it with hwq build")
    graph = load(folder / "model.hwq")
    labels = None
    if data is not None:
        pictures, labels = load_images(data)
        codes = interp.encode_images(graph, pictures)
    else:
        codes = np.load(folder / "vectors" / "input.npy", allow_pickle=False)
    if images != "all":
        codes, labels = codes[:int(images)], labels[:int(images)] if labels is not None else None
    if not len(codes):
        raise ModelError("There are no images to verify")
    want = interp.run_batches(graph, codes).reshape(len(codes), -1)
    reference = _flipped(graph, codes, want, stalls or 0).reshape(want.shape) if negative_control else want
    simulator = Simulator.compile(folder, level)
    done = 0

    def count(some: int) -> None:
        nonlocal done
        done += some
        if progress:
            progress(done, len(codes))

    manifest = simulator.manifest["input"]
    pause = 0 if stalls is None else 77
    got, user, stats = simulator.run(pack_codes(codes, manifest["lanes"], manifest["width"]), stall_in=pause, stall_out=pause,
                                     seed=stalls or 0, fault=fault, progress=count)
    good = got[user == 0]
    if fault in ("short", "long") and int(user.sum()) != len(codes):
        raise VerifyError(f"{len(codes)} bad frames were sent, {int(user.sum())} results carry tuser = 1")
    if fault in ("none", "reset") and user.any():
        raise VerifyError(f"{int(user.sum())} results of whole frames carry tuser = 1")
    different = np.argwhere(good != reference) if good.shape == reference.shape else np.zeros((1, 2), int)
    if negative_control:
        if not len(different):
            raise VerifyError("Negative control: a flipped weight bit went unnoticed")
    elif len(different):
        image, place = different[0]
        wrong = len({int(row[0]) for row in different})
        raise VerifyError(f"{wrong} of {len(codes)} images differ at level {level}; first: image {image}, result {place}, "
                          f"expected {reference[image, place]}, found {good[image, place]}")
    accuracy = float((interp.predict(graph, good) == labels).mean()) if labels is not None else None
    return VerifyReport(level, len(codes), len(codes), accuracy, stats["steady"], stalls, versions(("verilator", "c++")))
