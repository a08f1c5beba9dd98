"""Move biases into the offsets of the requantizers."""

from dataclasses import replace

import numpy as np

from ..ir.graph import Graph
from ..ir.nodes import Conv2d, Linear, Node, Requantize

__all__ = ["FuseRequantize"]


class FuseRequantize:
    """``(acc + bias) * mult + offset = acc * mult + (bias * mult + offset)``; thresholds move down by the bias.

    A requantizer whose offset depends on the accumulator's sign keeps its bias: the sign would be another one.
    """

    name = "fuse-requantize"
    description = "move the bias of Conv2d and Linear into the following Requantize"

    def apply(self, graph: Graph) -> Graph:
        """Return the rewritten graph."""
        nodes: dict[str, Node] = {node.name: node for node in graph}
        for node in graph:
            readers = graph.readers(node.name)
            if not isinstance(node, Conv2d | Linear) or not node.bias.any() or len(readers) != 1:
                continue
            reader = readers[0]
            if not isinstance(reader, Requantize) or reader.offset_neg.size:
                continue
            if reader.thresholds.size:
                changed = replace(reader, thresholds=reader.thresholds - node.bias[:, None])
            else:
                changed = replace(reader, offset=reader.offset + node.bias * reader.mult)
            nodes[node.name] = replace(node, bias=np.zeros_like(node.bias))
            nodes[reader.name] = changed
        return graph.with_nodes(nodes[node.name] for node in graph)
