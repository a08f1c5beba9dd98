"""Compute no pixel that a crop takes away."""

from dataclasses import replace

from ..ir.graph import Graph
from ..ir.nodes import AvgPool2d, Conv2d, MaxPool2d, Node, Pad, Requantize
from .base import Pass

__all__ = ["PullCrop"]


class PullCrop(Pass):
    """A crop (a Pad without a border) goes in front of the window operator or Pad that makes its image, if nothing else reads it.

    The operator's border gives way first: a convolution whose last columns are cut off has less border on the right, and where that
    is all, the crop is gone. What is left is a crop of more pixels, by the stride, in front of less work.
    """

    name = "pull_crop"
    description = "crops take back borders and go in front of windows, of which fewer are computed"

    def apply(self, graph: Graph) -> Graph:
        """See `Pass.apply`."""
        for name in [node.name for node in graph if isinstance(node, Pad) and max(node.pads) <= 0 and any(node.pads)]:
            while (pulled := self._pulled(graph, name)) is not None:
                graph = pulled
        return graph

    @staticmethod
    def _pulled(graph: Graph, name: str) -> Graph | None:
        """Return the graph with the crop one operator further up; None if it is gone, or stays."""
        crop = graph.by_name.get(name)
        if not isinstance(crop, Pad):
            return None
        maker = graph.by_name[crop.inputs[0]]
        while isinstance(maker, Requantize) and len(graph.readers(maker.name)) == 1:     # treats every pixel alike
            maker = graph.by_name[maker.inputs[0]]
        if not isinstance(maker, Conv2d | MaxPool2d | AvgPool2d | Pad) or len(graph.readers(maker.name)) > 1:
            return None
        down, right = (1, 1) if isinstance(maker, Pad) else maker.stride
        top, left, bottom, end = (p + c * step for p, c, step in zip(maker.pads, crop.pads, (down, right) * 2, strict=True))
        inner = min(top, 0), min(left, 0), min(bottom, 0), min(end, 0)
        height, width, _ = graph.edges[maker.inputs[0]].shape
        if height + inner[0] + inner[2] < 1 or width + inner[1] + inner[3] < 1:
            return None                                  # windows in the border alone
        made: list[Node] = [replace(crop, inputs=maker.inputs, pads=inner)] if any(inner) else []
        source = name if made else maker.inputs[0]
        lean = replace(maker, inputs=(source,), pads=(max(top, 0), max(left, 0), max(bottom, 0), max(end, 0)))
        renamed = {name: crop.inputs[0]}
        if isinstance(lean, Pad) and not any(lean.pads):
            renamed = {maker.name: source, name: source if crop.inputs == (maker.name,) else crop.inputs[0]}
        else:
            made.append(lean)
        nodes: list[Node] = []
        for node in graph:
            if node is maker:
                nodes += made
            elif node is not crop:
                nodes.append(replace(node, inputs=tuple(renamed.get(each, each) for each in node.inputs)))
        return graph.with_nodes(nodes)
