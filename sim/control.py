"""The negative control: a comparison that cannot fail proves nothing."""

from dataclasses import dataclass, replace

import numpy as np

from .. import interp
from ..errors import HwqError, VerifyError
from ..ir import Conv2d, Graph, Linear

__all__ = ["Control", "flip_one_bit", "first_difference"]

_IMAGES = 64                                             # enough to choose a bit that matters


@dataclass(frozen=True)
class Control:
    """A weight bit that was flipped in the reference, and what the comparison then said.

    Attributes
    ----------
    layer : str
    weight : tuple of int
        Place in the layer's weights.
    bit : int
    images, different : int
        Images compared, and on how many the flipped network's results differ.
    bench : str
        The cocotb bench that failed with the flipped reference, as it must; empty where results were compared outside.
    """

    layer: str
    weight: tuple[int, ...]
    bit: int
    images: int
    different: int
    bench: str = ""


def first_difference(found: np.ndarray, expected: np.ndarray) -> tuple[int, int, int] | None:
    """Return (images that differ, first such image, place of its first wrong result), or None; (n, results) each."""
    places = np.argwhere(found != expected)
    if not len(places):
        return None
    return len(np.unique(places[:, 0])), int(places[0, 0]), int(places[0, 1])


def flip_one_bit(graph: Graph, codes: np.ndarray, found: np.ndarray, seed: int) -> tuple[Control, np.ndarray]:
    """Flip a weight bit in the reference and compare the hardware's results with that; return also its results (images, results).

    Parameters
    ----------
    graph : Graph
    codes : int array (n, *input shape)
    found : int array (n, results)
        The hardware's results, which equal those of ``graph``.
    seed : int
        Of the choice.

    Raises
    ------
    VerifyError
        No single bit of 50 tried changes any result of these images: the control says nothing.
    """
    rng = np.random.default_rng(seed)
    codes, found = codes[:_IMAGES], found[:_IMAGES]
    layers = [node for node in graph if isinstance(node, Conv2d | Linear)]
    for _ in range(50 if layers else 0):
        node = layers[rng.integers(len(layers))]
        assert node.weight_format is not None
        words = node.weight_format.encode(node.weight.copy())
        place = tuple(int(rng.integers(size)) for size in words.shape)
        bit = int(rng.integers(node.weight_format.width))
        words[place] ^= 1 << bit
        changed = replace(node, weight=node.weight_format.decode(words))
        try:
            other = graph.with_nodes(changed if n.name == node.name else n for n in graph)
        except HwqError:                                 # no level of a narrow format
            continue
        other_results = interp.run_batches(other, codes).reshape(found.shape)
        difference = first_difference(found, other_results)
        if difference:
            return Control(node.name, place, bit, len(codes), difference[0]), other_results
    raise VerifyError(f"Negative control: no single weight bit of 50 changes a result of these {len(codes)} images; give more "
                      "images, or others, with --images and --data")
