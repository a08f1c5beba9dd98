"""The graph: a topologically ordered tuple of nodes, checked when it is made."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..errors import HwqError, ModelError
from .checks import plain_text
from .infer import infer
from .nodes import Edge, Input, Node, Output

__all__ = ["Graph", "Preprocess"]


@dataclass(frozen=True)
class Preprocess:
    """How an unsigned 8-bit image becomes input codes: ``code = pixel >> (8 - bits)``; real value ``code * 2**-bits``.

    Shared by torch, interpreter and host tool, so that nobody can feed a network anything else.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 1 <= self.bits <= 8:
            raise ModelError(f"Preprocess bits must be an integer of 1..8, not {self.bits!r}")


@dataclass(frozen=True)
class Graph:
    """A network on integers: one `Input`, one `Output`.

    Parameters
    ----------
    nodes : tuple of Node
        Each node after the nodes it reads.
    preprocess : Preprocess or None
        None where the input is no image.
    classes : tuple of str
        Names of the outputs, or empty; each one line of 1 to 200 printable characters.
    name : str
        Name of the network; the same.
    factory : str
        What made the float network, ``package.module:function``, or empty; the same. Only messages use it.

    Raises
    ------
    ModelError
        All faults found, one a line: duplicate or unsafe names, unknown inputs, wrong arity, shapes that do not
        match, missing or several inputs and outputs, edges that nothing reads.
    """

    nodes: tuple[Node, ...]
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] = ()
    name: str = "network"
    factory: str = ""
    edges: dict[str, Edge] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(self.nodes))
        for what, text in (("The name of the network", self.name), *(("A class name", text) for text in self.classes),
                           *((("The factory", self.factory),) if self.factory else ())):
            if not plain_text(text):
                raise ModelError(f"{what} must be one line of 1 to 200 printable characters, not {text!r}")
        object.__setattr__(self, "edges", self._check())

    def _check(self) -> dict[str, Edge]:
        edges: dict[str, Edge] = {}
        faults: list[HwqError] = []
        names: set[str] = set()
        for node in self.nodes:
            try:
                fresh, known = node.name not in names, set(names)
                names.add(node.name)
                if not fresh or not re.fullmatch(r"(?=[_.]*[A-Za-z0-9])[A-Za-z0-9_.]{1,200}", node.name):
                    raise ModelError(f"{node.op}: name {node.name!r} must be unique, of at most 200 letters (A-Z, "
                                     "a-z), digits, '_' and '.'")
                if node.arity is not None and len(node.inputs) != node.arity:
                    raise ModelError(f"{node.op} '{node.name}' must read {node.arity} edges, not {len(node.inputs)}")
                for source in node.inputs:
                    if source not in known:
                        raise ModelError(f"{node.op} '{node.name}' reads {source!r}, which no earlier node makes")
                if all(source in edges for source in node.inputs):
                    edges[node.name] = infer(node, [edges[source] for source in node.inputs])
            except HwqError as error:
                faults.append(error)
        read = {source for node in self.nodes for source in node.inputs}
        for kind in (Input, Output):
            count = sum(isinstance(node, kind) for node in self.nodes)
            if count != 1:
                faults.append(ModelError(f"A network must have one {kind.__name__}, not {count}"))
        faults += [ModelError(f"{node.op} '{node.name}': nothing reads its result") for node in self.nodes
                   if node.name not in read and not isinstance(node, Output)]
        if faults:
            raise type(faults[0])("\n".join(str(fault) for fault in faults))
        if self.classes and len(self.classes) != edges[self.output.inputs[0]].shape[-1] and not self.ranks:
            raise ModelError(f"{len(self.classes)} class names do not match the output {edges[self.output.name].shape}")
        return edges

    @property
    def ranks(self) -> bool:
        """Whether the results are indices of the largest, from ArgMax or TopK."""
        return any(node.op in ("ArgMax", "TopK") for node in self.nodes)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @property
    def input(self) -> Input:
        """The input node."""
        return next(node for node in self.nodes if isinstance(node, Input))

    @property
    def output(self) -> Output:
        """The output node."""
        return next(node for node in self.nodes if isinstance(node, Output))

    def readers(self, name: str) -> list[Node]:
        """Return the nodes that read the edge ``name``."""
        return [node for node in self.nodes if name in node.inputs]

    def with_nodes(self, nodes: Iterable[Node]) -> "Graph":
        """Return the same network with other nodes, checked again."""
        return replace(self, nodes=tuple(nodes))

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)
