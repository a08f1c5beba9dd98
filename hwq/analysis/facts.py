"""Facts of every layer: weights, bits, multiplications, ranges and widths of its edge."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..arith import width_of
from ..ir.graph import Graph
from ..ir.nodes import Conv2d, Linear, Node

__all__ = ["LayerFacts", "layer_facts", "block_rams", "totals"]

_BLOCK_BITS = {"ice40": 4096, "ecp5": 18432, "gowin": 18432}


@dataclass(frozen=True)
class LayerFacts:
    """Facts of one node and the edge that it makes.

    Attributes
    ----------
    name, op : str
        Of the node.
    shape : tuple of int
        Of its edge.
    lo, hi, width, signed : int, int, int, bool
        Range of its edge, and the width that holds it.
    frac_bits : int or None
        Scale of its edge.
    weight_format : str
        Spec text, empty without weights.
    weights, weight_bits, macs : int
        Number of weights, bits they take in ROM, multiplications an image.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    lo: int
    hi: int
    width: int
    signed: bool
    frac_bits: int | None
    weight_format: str = ""
    weights: int = 0
    weight_bits: int = 0
    macs: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "shape": list(self.shape)}


def _facts(node: Node, graph: Graph) -> LayerFacts:
    edge = graph.edges[node.name]
    width, signed = width_of(edge.lo, edge.hi)
    common = (node.name, node.op, edge.shape, edge.lo, edge.hi, width, signed, edge.frac_bits)
    if not isinstance(node, Conv2d | Linear) or node.weight_format is None:
        return LayerFacts(*common)
    count = int(node.weight.size)
    pixels = int(np.prod(edge.shape[:-1]))
    return LayerFacts(*common, node.weight_format.text, count, count * node.weight_format.width, count * pixels)


def layer_facts(graph: Graph) -> list[LayerFacts]:
    """Return the facts of every node but the output, in order."""
    return [_facts(node, graph) for node in graph if node.op != "Output"]


def totals(facts: Iterable[LayerFacts]) -> dict[str, float]:
    """Return the sums: ``weights``, ``weight_bits``, ``macs``, and ``bits_per_weight`` (0 without weights)."""
    facts = list(facts)
    weights, bits = sum(f.weights for f in facts), sum(f.weight_bits for f in facts)
    return {"weights": weights, "weight_bits": bits, "macs": sum(f.macs for f in facts),
            "bits_per_weight": bits / weights if weights else 0.0}


def block_rams(bits: int, family: str = "ice40") -> int:
    """Return the least number of block RAMs that hold ``bits``: a lower bound, the planner knows the real shapes.

    Parameters
    ----------
    family : str
        ``ice40`` (4,096 bits a block), ``ecp5`` or ``gowin`` (18,432).
    """
    return -(-bits // _BLOCK_BITS[family])
