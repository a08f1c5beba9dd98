"""Rewrites of the IR, each exact: one a file, listed once in the order in which they run."""

from collections.abc import Sequence
from typing import Protocol

from ..ir.graph import Graph
from .ensure_requantize import EnsureRequantize
from .fuse_requantize import FuseRequantize

__all__ = ["Pass", "HARDWARE_PASSES", "apply_passes"]


class Pass(Protocol):
    """A rewrite with a name and a one-line description."""

    name: str
    description: str

    def apply(self, graph: Graph) -> Graph:
        """Return the rewritten graph; it computes the same output on every input."""


# Every operator with weights gets its Requantize first, so that its bias then has a place to go.
HARDWARE_PASSES: tuple[Pass, ...] = (EnsureRequantize(), FuseRequantize())


def apply_passes(graph: Graph, passes: Sequence[Pass] = HARDWARE_PASSES) -> Graph:
    """Run passes in order; each result is checked again by `Graph`."""
    for each in passes:
        graph = each.apply(graph)
    return graph
