"""What a pass is: a rewrite of the IR that keeps every result."""

from collections.abc import Container

from ..ir.graph import Graph

__all__ = ["Pass", "free_name"]


def free_name(name: str, taken: Container[str]) -> str:
    """Return the name, with underscores behind it if it is taken."""
    while name in taken:
        name += "_"
    return name


class Pass:
    """Base. A pass has a ``name``, a ``description`` of one line, and ``apply``, which returns a new, checked graph."""

    name = ""
    description = ""

    def apply(self, graph: Graph) -> Graph:
        """Return a graph with the same output for every input; the given one is not changed."""
        raise NotImplementedError
