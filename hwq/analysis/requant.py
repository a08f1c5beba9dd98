"""Which form each requantization has, and what it takes in hardware."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..arith import width_of
from ..ir.graph import Graph
from ..ir.nodes import Requantize

__all__ = ["RequantFacts", "requant_facts"]


@dataclass(frozen=True)
class RequantFacts:
    """One requantization.

    Attributes
    ----------
    name : str
        Of the node.
    form : str
        ``identity``, ``clamp``, ``shift``, ``scale`` or ``thresholds``.
    detail : str
        For people.
    channels : int
        Sets of constants: 1 where all channels share them.
    multiplier : tuple of int
        Bits of the two factors; empty without a multiplier.
    constant_bits : int
        Bits of all multipliers, offsets and thresholds.
    """

    name: str
    form: str
    detail: str
    channels: int
    multiplier: tuple[int, ...]
    constant_bits: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "multiplier": list(self.multiplier)}


def _width(values: np.ndarray) -> int:
    return width_of(int(values.min()), int(values.max()))[0]


def _facts(node: Requantize, graph: Graph) -> RequantFacts:
    edge = graph.edges[node.inputs[0]]
    if node.thresholds.size:
        rows, count = node.thresholds.shape
        return RequantFacts(node.name, "thresholds", f"{count} thresholds{f' for each of {rows} channels' if rows > 1 else ''}",
                            rows, (), node.thresholds.size * _width(node.thresholds))
    scaled = bool((node.mult != 1).any())
    parts = [values for values in (node.mult if scaled else node.mult[:0], node.offset, node.offset_neg)
             if values.size and values.any()]
    channels = max((len(p) for p in parts), default=1)
    multiplier: tuple[int, ...] = (width_of(edge.lo, edge.hi)[0], _width(node.mult)) if scaled else ()
    extras = [f"{channels} channels" if channels > 1 else "", "offset by sign" if node.offset_neg.size else "",
              "ties to even" if node.half_even else ""]
    if scaled:
        form, text = "scale", f"(x*m + b) >> {node.shift}, m of {multiplier[1]} bits"
    elif node.shift:
        form, text = "shift", f"(x + b) >> {node.shift}"
    elif node.offset.any():
        form, text = "shift", "x + b"
    else:
        clamps = node.lo > edge.lo or node.hi < edge.hi
        form, text = ("clamp", f"clamp to {node.lo}..{node.hi}") if clamps else ("identity", "nothing")
    return RequantFacts(node.name, form, ", ".join(filter(None, [text, *extras])), channels, multiplier,
                        sum(len(p) * _width(p) for p in parts))


def requant_facts(graph: Graph) -> list[RequantFacts]:
    """Return the facts of every Requantize, in order."""
    return [_facts(node, graph) for node in graph if isinstance(node, Requantize)]
