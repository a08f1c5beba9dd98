"""Give every layer that sums a requantization behind it, so that the hardware has one kind of stage."""

from dataclasses import replace

import numpy as np

from ..ir.graph import Graph
from ..ir.nodes import Conv2d, GlobalAvgPool2d, Linear, Node, Requantize
from .base import Pass, free_name

__all__ = ["EnsureRequantize"]


class EnsureRequantize(Pass):
    """A Conv2d, Linear or GlobalAvgPool2d that something other than one Requantize reads gets an identity behind it.

    Multiplier 1, shift 0, the bias as offset, and the exact range of the sums as limits, so that nothing saturates.
    The new node is called like the layer with ``.identity`` appended.
    """

    name = "ensure_requantize"
    description = "Conv2d, Linear and GlobalAvgPool2d without a Requantize get an identity, which adds the bias"

    def apply(self, graph: Graph) -> Graph:
        """See `Pass.apply`."""
        nodes: list[Node] = []
        renamed: dict[str, str] = {}
        taken = {node.name for node in graph}
        for node in graph:
            node = replace(node, inputs=tuple(renamed.get(source, source) for source in node.inputs))
            readers = graph.readers(node.name)
            if not isinstance(node, Conv2d | Linear | GlobalAvgPool2d) \
                    or (len(readers) == 1 and isinstance(readers[0], Requantize)):
                nodes.append(node)
                continue
            edge = graph.edges[node.name]
            name = free_name(f"{node.name}.identity", taken)
            taken.add(name)
            renamed[node.name] = name
            offset = np.zeros(1, np.int64)
            if isinstance(node, Conv2d | Linear):
                node, offset = replace(node, bias=np.zeros_like(node.bias)), node.bias
            nodes.append(node)
            nodes.append(Requantize(name, (node.name,), offset=offset, lo=edge.lo, hi=edge.hi, frac_bits=edge.frac_bits))
        return graph.with_nodes(nodes)
