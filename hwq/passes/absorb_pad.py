"""Let the window operator behind a border make it, as it does its own."""

from dataclasses import replace

from ..ir.graph import Graph
from ..ir.nodes import AvgPool2d, Conv2d, Node, Pad
from .base import Pass

__all__ = ["AbsorbPad"]


class AbsorbPad(Pass):
    """A Pad that only a Conv2d reads, whose border is of the same code or empty, becomes part of it; so does a Pad of zeros before
    an AvgPool2d, and of the same code before a Pad."""

    name = "absorb_pad"
    description = "a Pad becomes the border of the Conv2d, AvgPool2d or Pad that reads it"

    def apply(self, graph: Graph) -> Graph:
        """See `Pass.apply`."""
        nodes: dict[str, Node] = {}
        for node in graph:
            source = nodes.get(node.inputs[0]) if node.inputs else None
            if isinstance(source, Pad) and len(graph.readers(source.name)) == 1 and self._same_border(node, source):
                top, left, bottom, right = (a + b for a, b in zip(source.pads, node.pads, strict=True))      # type: ignore[attr-defined]
                node = replace(node, inputs=source.inputs, pads=(top, left, bottom, right))                  # type: ignore[call-arg]
                if isinstance(node, Conv2d):
                    node = replace(node, pad_value=source.value)
                del nodes[source.name]
            nodes[node.name] = node
        return graph.with_nodes(nodes.values())

    @staticmethod
    def _same_border(node: Node, source: Pad) -> bool:
        if isinstance(node, Conv2d):
            return not any(node.pads) or node.pad_value == source.value
        return isinstance(node, AvgPool2d) and source.value == 0 or isinstance(node, Pad) and node.value == source.value
