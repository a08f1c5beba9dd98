"""Compares every tensor with TensorFlow Lite Micro's reference kernels."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from .. import interp
from ..errors import EnvironmentError_
from .builder import Imported
from .check import Report, Tally
from .tflite_worker import run_micro

__all__ = ["compare_tflite"]

_BATCH = 4


def _laid_out(details: dict[str, Any], values: np.ndarray) -> np.ndarray:
    """Return inputs in the file's own shape; a TRANSPOSE behind its input is undone."""
    if details["order"] is not None:
        shape, order = details["order"]
        values = np.ascontiguousarray(values.reshape(-1, *(shape[p] for p in order[1:])).transpose(np.argsort(order)))
    return values.reshape(-1, *details["shape"][1:])


def compare_tflite(imported: Imported, codes: np.ndarray, say: Callable[[str], None] = lambda text: None) -> Report:
    """Return the comparison of every tensor on some inputs.

    Parameters
    ----------
    imported : Imported
        What `import_tflite` gave.
    codes : int array (n, *input shape)
        Input codes.
    say : function of str
        Told how many inputs are done.

    Raises
    ------
    EnvironmentError_
        The package ``tflite-micro`` is not installed.
    ToolError
        It refuses the file.
    """
    try:
        oracle = f"tflite-micro {version('tflite-micro')}"
    except PackageNotFoundError:
        raise EnvironmentError_("Comparing with TensorFlow Lite's reference kernels needs the package 'tflite-micro' (Linux); "
                                "install it with: pip install 'hwq[check]', or import without comparing: --no-check") from None
    graph, details = imported.graph, imported.details
    edges = {edge: tensor for edge, tensor in imported.tensors.items() if edge in graph.edges and edge != graph.input.name}
    tallies = {edge: Tally(edge, details["names"][tensor]) for edge, tensor in edges.items()}
    for start in range(0, len(codes), _BATCH):
        batch = codes[start:start + _BATCH]
        if details["dtype"] == "FLOAT32":
            scale, zero = details["grid"]
            values = ((batch - zero).astype(np.float32) * np.float32(scale)).astype(np.float32)
        else:
            values = batch.astype(np.dtype(details["dtype"].lower()))
        found = run_micro(details["content"], _laid_out(details, values), list(edges.values()), details["batch"])
        ours = interp.run(graph, batch)
        for edge, tensor in edges.items():
            tallies[edge].add(ours[edge], found[tensor].astype(np.int64).reshape(ours[edge].shape))
        say(f"{start + len(batch)} of {len(codes)} inputs")
    return Report(oracle, len(codes), tuple(tally.row for tally in tallies.values()))
