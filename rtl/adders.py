"""Adder graphs: a constant matrix times a vector as two-input adders that share what the sums have in common.

An item is an input or a node; a node is ``a + (b << shift)`` or ``a - (b << shift)``, one carry chain above the ``shift``
lowest bits, which are wires. Every item has its exact range and so its least width. A value and its complement are told
apart by *polarity*: an iCE40 carry sees its operands as they are, so ``a - b`` wants ``b`` complemented, while the sum's own
complement is free in the look-up table behind the carry. ``phase`` says for each node whether it adds the complements of
what it should (and gives the complement): with good phases hardly any item is needed in both polarities, which costs it
an inverter a bit.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwq.arith import width_of

from .common import check

__all__ = ["Node", "AdderGraph", "check_vector", "digits", "registers", "segments"]


def digits(value: int, rng: random.Random | None = None) -> list[tuple[int, int]]:
    """Return signed digits of an integer as (shift, +-1), the fewest there are: the canonical ones, no two of them neighbours.

    With ``rng`` chance decides where others are as few.
    """
    result, shift = [], 0
    while value:
        if value & 1:
            sign = 2 - (value & 3)
            if rng and abs(value) > 1 and len(digits(value + sign)) + 1 == len(digits(value)) and rng.random() < 0.5:
                sign = -sign
            result.append((shift, sign))
            value -= sign
        value >>= 1
        shift += 1
    return result


def segments(level: int, every: int) -> int:
    """Return the register stage in which an adder of that level (1, 2, ...) works; registers after ``every`` levels (0: none)."""
    return (level - 1) // every if every else 0


def registers(depth: int, every: int) -> int:
    """Return the registers from inputs to outputs of a graph of that depth, one behind each ``every`` levels (0: none)."""
    return max(1, -(-depth // every)) if every else 0


@dataclass(frozen=True)
class Node:
    """One adder: ``a + (b << shift)``, or with ``minus`` ``a - (b << shift)``, or with ``swap`` too ``(b << shift) - a``.

    Attributes
    ----------
    a, b : int
        Items: inputs first, then nodes in order.
    shift : int
    minus, swap : bool
    drop : int
        Lowest bits that are always 0 and left out of the item.
    level : int
        Adders from the inputs to its sum, its own included, and any for which it waits.
    phase : bool
        It adds complements and gives the complement.
    """

    a: int
    b: int
    shift: int
    minus: bool
    swap: bool
    drop: int
    level: int
    phase: bool


@dataclass(frozen=True, eq=False)
class AdderGraph:
    """A matrix as adders.

    Attributes
    ----------
    ranges : tuple of (int, int)
        Inclusive ranges of the inputs.
    nodes : tuple of Node
    outputs : tuple of (item, shift, sign) or None
        ``sign * (item << shift)``; None is 0.
    """

    ranges: tuple[tuple[int, int], ...]
    nodes: tuple[Node, ...]
    outputs: tuple[tuple[int, int, int] | None, ...]

    @cached_property
    def coefficients(self) -> np.ndarray:
        """Every item as integers (items, inputs)."""
        return np.array(self._items(np.eye(len(self.ranges), dtype=np.int64)))

    def _items(self, inputs: np.ndarray) -> list[np.ndarray]:
        """Return all items (n,) of inputs (inputs, n), adder by adder."""
        items = [*inputs]
        for node in self.nodes:
            b = items[node.b] << node.shift
            total = items[node.a] - b if node.minus else items[node.a] + b
            total = -total if node.swap else total
            check(not (total & ((1 << node.drop) - 1)).any(), "Bits left out of an adder's sum must be 0")
            items.append(total >> node.drop)
        return items

    def _outputs(self, items: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the outputs (outputs, n) of items (n,)."""
        zero = np.zeros_like(items[0])
        return np.array([zero if o is None else o[2] * (items[o[0]] << o[1]) for o in self.outputs])

    @cached_property
    def matrix(self) -> np.ndarray:
        """The matrix (outputs, inputs)."""
        return self._outputs(self.coefficients)

    @cached_property
    def bounds(self) -> np.ndarray:
        """Exact range of every item (items, 2)."""
        low, high = np.array(self.ranges, np.int64).T
        c = self.coefficients
        up, down = np.maximum(c, 0), np.minimum(c, 0)
        return np.stack([up @ low + down @ high, up @ high + down @ low], axis=1)

    @cached_property
    def widths(self) -> list[tuple[int, bool]]:
        """Width and sign of every item."""
        return [width_of(int(low), int(high)) for low, high in self.bounds]

    @property
    def depth(self) -> int:
        """Adders one after another."""
        return max((node.level for node in self.nodes), default=0)

    def stages(self, every: int) -> int:
        """Return the registers from inputs to outputs, if one follows each ``every`` levels (0: none at all)."""
        return registers(self.depth, every)

    def model(self, x: np.ndarray) -> np.ndarray:
        """Return vectors (n, inputs) times the matrix, adder by adder: (n, outputs)."""
        return self._outputs(self._items(x.astype(np.int64).T)).T

    def wants(self, every: int) -> dict[int, dict[int, set[bool]]]:
        """Return for each item, for each register stage that reads it, in which polarities (True: complemented).

        Outputs are read behind the last stage; a negative one is its item's complement, one too small.
        """
        wanted: dict[int, dict[int, set[bool]]] = {}
        for node in self.nodes:
            at = segments(node.level, every)
            for item, polarity in ((node.a, node.phase ^ node.swap), (node.b, node.phase ^ node.minus ^ node.swap)):
                wanted.setdefault(item, {}).setdefault(at, set()).add(polarity)
        for out in self.outputs:
            if out is not None:
                wanted.setdefault(out[0], {}).setdefault(self.stages(every), set()).add(out[2] < 0)
        return wanted

    def chain(self, number: int) -> int:
        """Return the bits of the carry chain of ``nodes[number]``; 0 where its operands stand side by side."""
        node, k = self.nodes[number], number + len(self.ranges)
        low, high = self.bounds[node.a]
        if not node.minus and low >= 0 and high < 1 << node.shift:
            return 0
        return self.widths[k][0] + node.drop - (0 if node.swap else node.shift)

    def cells(self, every: int) -> int:
        """Return the logic cells: carry chains, inverters, registers that share no cell with an adder."""
        total, wanted = 0, self.wants(every)
        n = len(self.ranges)
        for item, (width, _) in enumerate(self.widths):
            reads = wanted.get(item, {})
            node = self.nodes[item - n] if item >= n else None
            chain = self.chain(item - n) if node else 0
            born = segments(node.level, every) if node else 0
            last = max(reads, default=born)
            total += chain + width * (last - born)
            if last > born and born not in reads:
                total -= chain                           # the adder's cells hold the first register
            for stage, polarities in reads.items():
                total += width * (len(polarities) == 2 or (item < n and stage == 0 and True in polarities))
        return total


def check_vector(ranges: Sequence[tuple[int, int]], matrix: np.ndarray) -> None:
    """Refuse what is no matrix for these inputs."""
    check(matrix.ndim == 2 and matrix.shape[1] == len(ranges) and matrix.size > 0,
          f"The matrix must have the axes (outputs, inputs) and a column for each of the {len(ranges)} ranges, not {matrix.shape}")
    for low, high in ranges:
        check(low <= high, f"Input range must not be empty, not {(low, high)!r}")
