"""Put an identity `Requantize` behind sums whose reader is none."""

from dataclasses import replace

import numpy as np

from ..ir.graph import Graph
from ..ir.nodes import Conv2d, GlobalAvgPool2d, Linear, Requantize

__all__ = ["EnsureRequantize"]


class EnsureRequantize:
    """See the description."""

    name = "ensure-requantize"
    description = "give every Conv2d, Linear and GlobalAvgPool2d a Requantize, an identity over the exact range if need be"

    def apply(self, graph: Graph) -> Graph:
        """Return the rewritten graph."""
        renamed: dict[str, str] = {}
        nodes = []
        for node in graph:
            node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
            nodes.append(node)
            if isinstance(node, Conv2d | Linear | GlobalAvgPool2d) and not all(
                    isinstance(reader, Requantize) for reader in graph.readers(node.name)):
                edge = graph.edges[node.name]
                nodes.append(Requantize(f"{node.name}.identity", (node.name,), mult=np.ones(1), offset=np.zeros(1),
                                        lo=edge.lo, hi=edge.hi, frac_bits=edge.frac_bits))
                renamed[node.name] = nodes[-1].name
        return graph.with_nodes(nodes)
