"""Let the window operator behind a border make it, as it does its own."""

from dataclasses import replace

from ..ir.graph import Graph
from ..ir.nodes import AvgPool2d, Conv2d, Edge, Node, Pad
from .base import Pass

__all__ = ["AbsorbPad"]


class AbsorbPad(Pass):
    """A Pad that only a Conv2d reads, whose border is of the same code or empty, becomes part of it; so does a Pad of zeros before
    an AvgPool2d, and one before a Pad, if they are one in all. A crop stays in front of what takes up the border."""

    name = "absorb_pad"
    description = "a Pad becomes the border of the Conv2d, AvgPool2d or Pad that reads it"

    def apply(self, graph: Graph) -> Graph:
        """See `Pass.apply`."""
        nodes: dict[str, Node] = {}
        for node in graph:
            source = nodes.get(node.inputs[0]) if node.inputs else None
            if isinstance(source, Pad) and len(graph.readers(source.name)) == 1:
                if isinstance(node, Pad):
                    together = self._together(source, node, graph.edges[source.inputs[0]])
                else:
                    together = self._border(source, node)
                if together:
                    del nodes[source.name]
                    nodes |= {each.name: each for each in together[:-1]}
                    node = together[-1]
            nodes[node.name] = node
        return graph.with_nodes(nodes.values())

    @staticmethod
    def _together(first: Pad, then: Pad, x: Edge) -> tuple[Node, ...]:
        """Return the two in one, nothing where none does the same: its crop comes before its border."""
        borders = [each.value for each in (first, then) if max(each.pads) > 0]
        top, left, bottom, right = (a + b for a, b in zip(first.pads, then.pads, strict=True))
        whole = x.shape[0] + min(top, 0) + min(bottom, 0) >= 1 and x.shape[1] + min(left, 0) + min(right, 0) >= 1
        if len(set(borders)) > 1 or not whole or any(a < 0 < b for a, b in zip(first.pads, then.pads, strict=True)):
            return ()
        return (replace(then, inputs=first.inputs, pads=(top, left, bottom, right), value=(borders or [0])[0]),)

    @staticmethod
    def _border(source: Pad, node: Node) -> tuple[Node, ...]:
        """Return the node with the border, and the crop that is left in front of it; nothing where it does not take the border."""
        if isinstance(node, Conv2d):
            same = not any(node.pads) or node.pad_value == source.value
        else:
            same = isinstance(node, AvgPool2d) and source.value == 0
        if not same or max(source.pads) <= 0:
            return ()
        assert isinstance(node, Conv2d | AvgPool2d)
        top, left, bottom, right = (a + max(b, 0) for a, b in zip(node.pads, source.pads, strict=True))
        node = replace(node, pads=(top, left, bottom, right))
        if isinstance(node, Conv2d):
            node = replace(node, pad_value=source.value)
        if min(source.pads) >= 0:
            return (replace(node, inputs=source.inputs),)
        top, left, bottom, right = (min(pad, 0) for pad in source.pads)
        return replace(source, pads=(top, left, bottom, right)), node
