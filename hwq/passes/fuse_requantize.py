"""Move a layer's bias into the offset of the requantization behind it."""

from dataclasses import replace

import numpy as np

from ..ir.graph import Graph
from ..ir.infer import channel_ranges
from ..ir.nodes import Conv2d, Linear, Node, Requantize
from .base import Pass

__all__ = ["FuseRequantize"]

_LIMIT = 1 << 62


class FuseRequantize(Pass):
    """``((dot + bias) * m + b) >> s`` becomes ``(dot * m + (b + bias * m)) >> s``: one adder less, exact per channel.

    With thresholds, these move down by the bias. Left alone where the requantization picks its offset by the sign of
    the sum (the sign of ``dot`` is another), where something else reads the sum, and where 62 bits would not hold.
    """

    name = "fuse_requantize"
    description = "a layer's bias moves into the following Requantize's offset"

    def apply(self, graph: Graph) -> Graph:
        """See `Pass.apply`."""
        nodes: dict[str, Node] = {node.name: node for node in graph}
        for node in graph:
            if not isinstance(node, Conv2d | Linear) or not node.bias.any():
                continue
            readers = graph.readers(node.name)
            if len(readers) != 1 or not isinstance(readers[0], Requantize) or readers[0].offset_neg.size:
                continue
            after = readers[0]
            if after.thresholds.size:
                moved = replace(after, thresholds=after.thresholds - node.bias[:, None])
            else:
                offset = after.offset + node.bias * after.mult
                if not self._small(node, graph, after, offset):
                    continue
                moved = replace(after, offset=offset)
            nodes[node.name] = replace(node, bias=np.zeros_like(node.bias))
            nodes[after.name] = moved
        return graph.with_nodes(nodes.values())

    @staticmethod
    def _small(node: Conv2d | Linear, graph: Graph, after: Requantize, offset: np.ndarray) -> bool:
        bare = replace(node, bias=np.zeros_like(node.bias))
        lo, hi = channel_ranges(bare, graph.edges[node.inputs[0]])
        reach = max(abs(int(lo.min())), abs(int(hi.max()))) * int(np.abs(after.mult).max()) + int(np.abs(offset).max())
        return reach < _LIMIT >> max(0, -after.shift)
