"""The graph as text: one line a node, for people, diffs and golden tests."""

import numpy as np

from .graph import Graph

__all__ = ["to_text"]


def _value(value: object) -> str:
    if isinstance(value, np.ndarray):
        if value.size <= 4:
            return str(value.tolist())
        return f"int{list(value.shape)}[{value.min()}..{value.max()}]"
    return getattr(value, "text", None) or str(value)


def to_text(graph: Graph) -> str:
    """Return one line a node: name, operator, inputs, attributes, and the edge it makes."""
    lines = []
    for node in graph:
        edge = graph.edges[node.name]
        attributes = ", ".join(f"{key}={_value(value)}" for key, value in node.attributes().items()
                               if not (isinstance(value, np.ndarray) and not value.size))
        frac = "" if edge.frac_bits is None else f" fl={edge.frac_bits}"
        shape = "x".join(map(str, edge.shape))
        lines.append(f"{node.name} = {node.op}({', '.join(node.inputs)}) {{{attributes}}} : {shape} {edge.lo}..{edge.hi}{frac}")
    return "\n".join(lines) + "\n"
