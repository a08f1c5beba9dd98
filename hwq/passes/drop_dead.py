"""Take out nodes that change nothing."""

from dataclasses import replace

from ..ir.graph import Graph
from ..ir.nodes import Flatten, MaxPool2d, Node, Pad, Requantize, Select, Upsample
from .base import Pass

__all__ = ["DropDead"]


class DropDead(Pass):
    """Drops what changes nothing.

    Flatten of a flat edge, 1x1 pooling, empty padding, Upsample by 1, Select of all channels, and a Requantize that neither scales
    nor saturates a reachable value and stands behind no layer with weights.

    (Nodes that nothing reads cannot exist: the graph refuses them.)
    """

    name = "drop_dead"
    description = "nodes that change nothing are taken out"

    def apply(self, graph: Graph) -> Graph:
        """See `Pass.apply`."""
        nodes: list[Node] = []
        renamed: dict[str, str] = {}
        for node in graph:
            if self._identity(node, graph):
                renamed[node.name] = renamed.get(node.inputs[0], node.inputs[0])
            else:
                nodes.append(replace(node, inputs=tuple(renamed.get(source, source) for source in node.inputs)))
        return graph.with_nodes(nodes)

    @staticmethod
    def _identity(node: Node, graph: Graph) -> bool:
        if not node.inputs:
            return False
        edge = graph.edges[node.inputs[0]]
        if isinstance(node, Flatten):
            return len(edge.shape) == 1
        if isinstance(node, MaxPool2d):
            return node.kernel == (1, 1) and node.stride == (1, 1) and not any(node.pads)
        if isinstance(node, Pad):
            return not any(node.pads)
        if isinstance(node, Upsample):
            return node.factor == (1, 1)
        if isinstance(node, Select):
            return len(node.channels) == edge.shape[-1]
        if isinstance(node, Requantize):
            plain = not node.thresholds.size and not node.offset_neg.size and node.shift == 0 and not node.offset.any()
            return (plain and bool((node.mult == 1).all()) and node.lo <= edge.lo and edge.hi <= node.hi
                    and node.frac_bits == edge.frac_bits and graph.by_name[node.inputs[0]].op not in ("Conv2d", "Linear"))
        return False
