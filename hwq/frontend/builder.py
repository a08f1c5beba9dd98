"""What every importer shares: makes the nodes, chooses the form of each requantization, and keeps what the user must know."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import ir
from ..arith import scale_shift
from ..errors import ModelError
from ..formats import MAX_WIDTH, FixedPoint
from ..ir.infer import channel_ranges, infer
from ..passes.exact_scale import exact_scales, threshold_table
from ..passes.fold_permute import FoldPermute

__all__ = ["Builder", "Imported", "MAX_ELEMENTS", "MAX_THRESHOLDS", "weight_format", "turn", "occurring"]

MAX_THRESHOLDS = 1 << 17
MAX_ELEMENTS = 1 << 26
"""Largest tensor that an importer takes: 67 million numbers, far beyond what a small FPGA can run."""


@dataclass(frozen=True, eq=False)
class Imported:
    """A network that an importer made.

    Attributes
    ----------
    graph : ir.Graph
        The integer network.
    source : str
        ``tflite`` or ``onnx``.
    notes : tuple of str
        What was left out or decided, for the user to read.
    tensors : dict of str to anything
        For edges that stand for a tensor of the source: how to find and read it there; the comparison knows.
    input_text, output_text : str
        What an input and an output integer mean.
    details : dict
        What the comparison needs besides.
    """

    graph: ir.Graph
    source: str
    notes: tuple[str, ...] = ()
    tensors: dict[str, Any] = field(default_factory=dict)
    input_text: str = ""
    output_text: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def weight_format(codes: np.ndarray, least: int = 2) -> FixedPoint | None:
    """Return the narrowest signed format of at least ``least`` bits that holds the codes, or None beyond 16 bits."""
    top = max(int(codes.max(initial=0)), -int(codes.min(initial=0)) - 1)
    width = max(least, top.bit_length() + 1)
    return FixedPoint(width, 0) if width <= MAX_WIDTH else None


def turn(pairs: tuple[int, ...], turned: bool) -> Any:
    """Return (vertical, horizontal) or (top, left, bottom, right) of a tensor as its edge needs them."""
    return tuple(pairs[i ^ 1] for i in range(len(pairs))) if turned else pairs


def _shared(values: np.ndarray) -> np.ndarray:
    """Return one value where all channels have the same."""
    return values[:1] if len(values) and (values == values[0]).all() else values


def occurring(thresholds: np.ndarray, lo: int, low: np.ndarray, high: np.ndarray) -> tuple[list[list[int]], int, int]:
    """Return the thresholds of the codes that occur, each in its row's range or one beyond, and the least and largest such code.

    A Relu in front of a quantizer would bend the line at a code that is not the lowest.

    Parameters
    ----------
    thresholds : int (rows, n)
        Ascending in each row; the first is where the code is ``lo + 1``.
    lo : int
        Code below all thresholds.
    low, high : int array (rows,)
        Range of each row's argument.
    """
    floor = min((sum(int(t) <= int(a) for t in row) for row, a in zip(thresholds, low, strict=True)), default=0)
    top = max((sum(int(t) <= int(b) for t in row) for row, b in zip(thresholds, high, strict=True)), default=0)
    top = max(top, floor)
    rows = [[min(max(int(t), int(a)), int(b) + 1) for t in row[floor:top]] for row, a, b in zip(thresholds, low, high, strict=True)]
    return rows, lo + floor, lo + top


class Builder:
    """Collects nodes and knows each edge as soon as its node is added.

    Parameters
    ----------
    name : str
        Name of the network.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: dict[str, ir.Node] = {}
        self.edges: dict[str, ir.Edge] = {}
        self.notes: list[str] = []
        self.tensors: dict[str, Any] = {}
        self.edge = dict[Hashable, str]()          # tensor of the source -> edge that stands for it
        self.left = Counter[Hashable]()            # tensors that are still to be read, and how often
        self.awaited = Counter[str]()              # the same of edges

    def expect(self, tensors: Iterable[Hashable]) -> None:
        """Say what will be read, each tensor of the source as often as it will; before any stands for an edge."""
        self.left.update(tensors)

    def stand(self, tensor: Hashable, edge: str | None) -> None:
        """Say what edge stands for a tensor of the source, or does from now on; None: none does."""
        if (old := self.edge.pop(tensor, None)) is not None:
            self.awaited[old] -= self.left[tensor]
        if edge is not None:
            self.edge[tensor] = edge
            self.awaited[edge] += self.left[tensor]

    def read(self, tensor: Hashable) -> None:
        """Say that a tensor of the source is being read."""
        self.left[tensor] -= 1
        if (edge := self.edge.get(tensor)) is not None:
            self.awaited[edge] -= 1

    def unique(self, base: str) -> str:
        """Return a safe name that no node has, made from a name of the source."""
        base = re.sub(r"[^A-Za-z0-9_.]+", "_", base).strip("_.")[:48] or "node"
        name, count = base, 2
        while name in self.nodes or name in ("input", "output"):
            name, count = f"{base}_{count}", count + 1
        return name

    def add(self, node: ir.Node) -> str:
        """Append a node, which is checked, and return its name."""
        self.edges[node.name] = edge = infer(node, [self.edges[source] for source in node.inputs])
        if int(np.prod(edge.shape, dtype=object)) > MAX_ELEMENTS:
            raise ModelError(f"{node.op} '{node.name}' makes a tensor of the shape {edge.shape}; the limit is "
                             f"{MAX_ELEMENTS:,} numbers")
        self.nodes[node.name] = node
        return node.name

    def note(self, text: str) -> None:
        """Tell the user something, once."""
        if text not in self.notes:
            self.notes.append(text)

    def replace_node(self, node: ir.Node) -> None:
        """Put a changed node in the place of the one with its name."""
        self.nodes[node.name] = node
        self.edges[node.name] = infer(node, [self.edges[source] for source in node.inputs])

    def private(self, name: str, kinds: type | tuple[type, ...]) -> bool:
        """Return whether a node is of these kinds, and nothing reads it or will, but what is being imported."""
        return isinstance(self.nodes[name], kinds) and not self.awaited[name] \
            and not any(name in node.inputs for node in self.nodes.values())

    def arrange(self, base: str, source: str, places: np.ndarray, shape: tuple[int, ...]) -> str:
        """Return an edge of another shape and order; nothing is added where it is the one that there is.

        Parameters
        ----------
        base : str
            Names the nodes.
        source : str
            The edge that there is.
        places : int array
            For each element of the edge wanted, in order, its place in ``source``.
        shape : tuple of int
            Of the edge wanted.
        """
        old, rows = self.edges[source].shape, places.reshape(-1, shape[-1])
        if old == shape and (rows == rows[0] + np.arange(len(rows))[:, None] * shape[-1]).all():
            places = rows[0]                       # channels change places, pixels do not
        elif len(old) > 1:
            source = self.add(ir.Flatten(self.unique(f"{base}.flat"), (source,)))
        if not (places == np.arange(len(places))).all():
            source = self.add(ir.Permute(self.unique(f"{base}.order"), (source,), order=places))
        if self.edges[source].shape != shape:
            source = self.add(ir.Unflatten(self.unique(f"{base}.image"), (source,), shape=shape))
        return source

    def real_mean(self, base: str, source: str, kernel: tuple[int, int], stride: tuple[int, int],
                  pads: tuple[int, int, int, int]) -> tuple[str, int]:
        """Append the means of windows over their pixels that lie in the image, times one number for all; return edge and number.

        It is the least common multiple of the windows' pixels. A factor a pixel is one a feature of the flat tensor.

        Raises
        ------
        ModelError
            A window lies in the border alone.
        """
        x, name = self.edges[source], self.unique(base)
        shape = self.edges[self.add(ir.AvgPool2d(name, (source,), kernel, stride, pads))].shape
        rows, cols = (np.minimum(starts + k, size) - np.maximum(starts, 0) for k, size, starts in zip(
            kernel, x.shape, (np.arange(count) * s - before for count, s, before in zip(shape, stride, pads, strict=False)),
            strict=False))
        counts = np.outer(rows, cols)
        if min(rows.min(), cols.min()) < 1:
            raise ModelError(f"'{name}': a window of {kernel} with pads {pads} has no pixel of the image, and so no mean")
        whole = int(np.lcm.reduce(counts.ravel()))
        if (counts != whole).any():
            flat = self.add(ir.Flatten(self.unique(f"{name}.flat"), (name,)))
            each = self.add(ir.Requantize(self.unique(f"{name}.each"), (flat,), np.repeat(whole // counts, shape[2]),
                                          lo=whole * x.lo, hi=whole * x.hi))
            name = self.add(ir.Unflatten(self.unique(f"{name}.image"), (each,), shape=shape))
        return name, whole

    def ranges(self, source: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the exact bounds of each channel of an edge, int64 (channels,)."""
        node, edge = self.nodes[source], self.edges[source]
        if isinstance(node, ir.Conv2d | ir.Linear):
            return channel_ranges(node, self.edges[node.inputs[0]])
        channels = edge.shape[-1]
        return np.full(channels, edge.lo, np.int64), np.full(channels, edge.hi, np.int64)

    def requantize(self, base: str, source: str, thresholds: np.ndarray, lo: int, hi: int, *, flip: np.ndarray | None = None,
                   frac_bits: int | None = None, half_even: tuple[np.ndarray, np.ndarray, int] | None = None) -> str:
        """Append the requantization with these thresholds, in the cheapest exact form, and return its name.

        Parameters
        ----------
        base : str
            Name wanted.
        source : str
            Edge to requantize.
        thresholds : int (1 or channels, hi - lo)
            ``min{a: result >= k}`` for ``k = lo + 1 .. hi``, of ``-a`` in the rows where ``flip``; one beyond the range where there
            is none.
        lo, hi : int
            Range of the result.
        flip : bool array (channels,), optional
            Channels whose result falls with the sum.
        frac_bits : int, optional
            Scale of the codes, if a power of two.
        half_even : (int64 array, int64 array, int), optional
            Multipliers, offsets and shift of a form with ties to even, to be taken where it is right and no plain line is.
        """
        low, high = self.ranges(source)
        thresholds = np.asarray(thresholds)
        flip = np.zeros(len(low), bool) if flip is None else np.broadcast_to(flip, low.shape)
        if len(thresholds) == 1 and not flip.any():
            low, high, flip = low.min(keepdims=True), high.max(keepdims=True), flip[:1]
        elif len(thresholds) == 1:
            thresholds = np.repeat(thresholds, len(low), axis=0)
        low, high = np.where(flip, -high, low), np.where(flip, -low, high)
        name = self.unique(base)
        clipped, lo, hi = occurring(thresholds, lo, low, high)
        try:
            form = exact_scales(clipped, lo, low, high, two_offsets=not flip.any())
        except ModelError:
            even = self._half_even(half_even, np.array(clipped, np.int64), lo, hi, low, high, flip)
            if even is not None:
                return self.add(ir.Requantize(name, (source,), *even, lo, hi, half_even=True, frac_bits=frac_bits))
            return self._thresholds(name, source, np.array(clipped, np.int64), lo, hi, flip, frac_bits)
        mult, offset, negative = _shared(form.mult * np.where(flip, -1, 1)), _shared(form.offset), _shared(form.offset_neg)
        return self.add(ir.Requantize(name, (source,), mult, offset, form.shift, lo, hi, negative, frac_bits=frac_bits))

    @staticmethod
    def _half_even(form: tuple[np.ndarray, np.ndarray, int] | None, rows: np.ndarray, lo: int, hi: int, low: np.ndarray,
                   high: np.ndarray, flip: np.ndarray) -> tuple[np.ndarray, np.ndarray, int] | None:
        """Return the form with ties to even if it has exactly these thresholds."""
        if form is None:
            return None
        mult, offset, shift = form
        reach = int(np.abs(mult).max()) * max(int(np.abs(low).max()), int(np.abs(high).max())) + int(np.abs(offset).max())
        if reach >= 1 << 61:
            return None
        sign = np.where(flip, -1, 1)[:, None]
        found = threshold_table(lambda a: scale_shift(sign * a, mult[:, None], offset[:, None], shift, lo, hi, half_even=True),
                                low, high, lo, hi)
        return (_shared(mult), _shared(offset), shift) if (found == rows).all() else None

    def _thresholds(self, name: str, source: str, rows: np.ndarray, lo: int, hi: int, flip: np.ndarray,
                    frac_bits: int | None) -> str:
        if rows.size > MAX_THRESHOLDS:
            raise ModelError(f"'{name}' would take {rows.size:,} thresholds, because no multiplier and shift gives its rounding "
                             f"exactly; the limit is {MAX_THRESHOLDS:,}")
        if flip.any():
            source = self.turned(source, flip)
        return self.add(ir.Requantize(name, (source,), lo=lo, hi=hi, thresholds=rows, frac_bits=frac_bits))

    def turned(self, source: str, channels: np.ndarray) -> str:
        """Return an edge with the channels' signs turned: by the layer's weights, or, where others read it, by a multiplier."""
        if self.private(source, (ir.Conv2d, ir.Linear)):
            self._negate(source, channels)
            return source
        edge = self.edges[source]
        sign = np.where(np.broadcast_to(channels, edge.shape[-1:]), -1, 1)
        return self.add(ir.Requantize(self.unique(f"{source}.sign"), (source,), sign, lo=min(edge.lo, -edge.hi),
                                      hi=max(edge.hi, -edge.lo)))

    def _negate(self, source: str, channels: np.ndarray) -> None:
        """Turn the sign of a layer's channels: of its weights and biases."""
        node = self.nodes[source]
        sign = np.where(np.broadcast_to(channels, node.bias.shape), -1, 1)         # type: ignore[attr-defined]
        weight = node.weight * sign.reshape(-1, *[1] * (node.weight.ndim - 1))     # type: ignore[attr-defined]
        fmt = node.weight_format                                                   # type: ignore[attr-defined]
        lo, hi = fmt.range
        if weight.min(initial=0) < lo or weight.max(initial=0) > hi:
            fmt = replace(fmt, width=fmt.width + 1, narrow=False)
        self.replace_node(replace(node, weight=weight, bias=node.bias * sign, weight_format=fmt))      # type: ignore[attr-defined,call-arg]

    def finish(self, last: str, preprocess: ir.Preprocess | None = None, classes: Sequence[str] = ()) -> ir.Graph:
        """Return the graph that ends in the edge ``last``; nodes that do not lead there are left out, with a note.

        Raises
        ------
        ModelError
            An order of channels that no weights can take up, see `FoldPermute`.
        """
        needed, stack = set(), [last]
        while stack:
            name = stack.pop()
            if name not in needed:
                needed.add(name)
                stack += self.nodes[name].inputs
        dead = [name for name in self.nodes if name not in needed]
        if dead:
            self.note(f"Left out, because the output does not depend on them: {', '.join(dead)}")
        nodes = [node for name, node in self.nodes.items() if name in needed]
        if not isinstance(nodes[0], ir.Input):
            raise ModelError(f"Network '{self.name}': the output does not depend on the input")
        graph = ir.Graph((*nodes, ir.Output("output", (last,))), preprocess, tuple(classes), self.name)
        FoldPermute().apply(graph)                 # refuses now what no hardware could do
        return graph

