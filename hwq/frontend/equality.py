"""Is the integer network exactly the torch network? Every edge of every image."""

from collections.abc import Callable, Iterator

import numpy as np

from .. import interp, ir
from ..errors import VerifyError
from ..quant.model import QuantizedModel
from .check import first_difference
from .torch_fx import trace_codes

__all__ = ["compare"]

_BATCH = 250


def _batches(images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(images), _BATCH):
        yield start, images[start:start + _BATCH]


def compare(model: QuantizedModel, graph: ir.Graph, images: np.ndarray,
            progress: Callable[[int], None] = lambda done: None) -> dict[str, int]:
    """Run torch in eval mode and the interpreter side by side; return how many numbers of each edge were compared.

    Parameters
    ----------
    model : QuantizedModel
        What `convert` was given.
    graph : Graph
        What `convert` made of it, perhaps saved and loaded since.
    images : uint8 array (n, h, w[, c])
        Any number; worked on in batches.
    progress : function of int
        Told the number of images done.

    Raises
    ------
    VerifyError
        An edge that one side lacks, or the first number that differs: edge, image, place, both values.
    """
    compared: dict[str, int] = {}
    for start, batch in _batches(images):
        torch_edges = trace_codes(model, batch)
        edges = interp.run(graph, interp.encode_images(graph, batch))
        if set(edges) != set(torch_edges):
            raise VerifyError(f"The networks have different edges: only torch {sorted(set(torch_edges) - set(edges))}, "
                              f"only the integer network {sorted(set(edges) - set(torch_edges))}")
        for name, values in edges.items():
            found = torch_edges[name]
            place = first_difference(values, found)
            if place is not None:
                raise VerifyError(f"Edge '{name}' differs at image {start + place[0]}, place {place[1:]}: integer network "
                                  f"{values[place]} of shape {values.shape}, torch {found[place]} of shape {found.shape}")
            compared[name] = compared.get(name, 0) + values.size
        progress(start + len(batch))
    return compared
