"""Let weights take up an order of channels, or take the channels apart and join them again in it."""

from dataclasses import replace

import numpy as np

from ..errors import ModelError
from ..ir.graph import Graph
from ..ir.nodes import (
    Add,
    AvgPool2d,
    Concat,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    Node,
    Pad,
    Permute,
    Requantize,
    Select,
    Unflatten,
    Upsample,
)
from .base import Pass, free_name

__all__ = ["FoldPermute"]

# Into so many a tensor is taken apart at most: each takes a counter, a buffer and its part of a fork.
_PARTS = 16
_CHANNELWISE = (MaxPool2d, AvgPool2d, GlobalAvgPool2d, Pad, Upsample)
Orders = list[np.ndarray]


class _Stop(Exception):
    """A node cannot take up an order or hand it on."""

    def __init__(self, node: Node, why: str) -> None:
        super().__init__(f"{node.op} '{node.name}' {why}")


def _blocks(order: np.ndarray, size: int) -> np.ndarray | None:
    """Return which block of ``size`` places each block comes from, or None where blocks mix."""
    origin = (order // size).reshape(-1, size)
    return origin[:, 0] if (origin == origin[:, :1]).all() else None


def _spread(blocks: np.ndarray, size: int) -> np.ndarray:
    """Return the order of places that moves whole blocks of ``size``."""
    return (blocks[:, None] * size + np.arange(size)).ravel()


def _pixelwise(order: np.ndarray, channels: int) -> np.ndarray | None:
    """Return the order of channels that a flat order is in every pixel, or None."""
    return order[:channels] if np.array_equal(order, _tiled(order[:channels], len(order) // channels)) else None


def _tiled(order: np.ndarray, pixels: int) -> np.ndarray:
    """Return the flat order that is ``order`` in each pixel."""
    return (np.arange(pixels)[:, None] * len(order) + order).ravel()


def _rows(node: Requantize, rows: np.ndarray) -> Requantize:
    return replace(node, **{name: each[rows] for name in ("mult", "offset", "offset_neg", "thresholds")
                            if len(each := getattr(node, name)) > 1})


def _before(node: Node, graph: Graph, order: np.ndarray) -> tuple[Node, Orders]:
    """Return the node that makes its channels in another order, and the order in which it wants each operand's."""
    rank = [graph.edges[source].shape for source in node.inputs]
    if isinstance(node, Linear | Conv2d):
        groups = node.groups if isinstance(node, Conv2d) else 1
        moved = _blocks(order, len(order) // groups)
        if moved is None:
            raise _Stop(node, f"has {groups} groups, across which its outputs would move")
        return replace(node, weight=node.weight[order], bias=node.bias[order]), [_spread(moved, rank[0][-1] // groups)]
    if isinstance(node, Requantize):
        return _rows(node, order), [order]
    if isinstance(node, (*_CHANNELWISE, Add)):
        return node, [order] * len(node.inputs)
    if isinstance(node, Permute):
        return replace(node, order=node.order[order]), [np.arange(len(order))]
    if isinstance(node, Select):                         # what it leaves out stays where it is
        whole = np.arange(rank[0][-1])
        whole[node.channels] = node.channels[order]
        return node, [whole]
    if isinstance(node, Unflatten):
        return node, [_tiled(order, rank[0][0] // len(order))]
    if isinstance(node, Flatten):
        channels = _pixelwise(order, rank[0][-1])
        if channels is None:
            raise _Stop(node, "is of an image whose pixels would move")
        return node, [channels]
    if isinstance(node, Concat):
        ends = np.cumsum([0, *(shape[-1] for shape in rank)])
        parts = [order[a:b] - a for a, b in zip(ends, ends[1:], strict=False)]
        if any(part.min() < 0 or part.max() >= len(part) for part in parts):
            raise _Stop(node, "joins tensors between which channels would move")
        return node, parts
    raise _Stop(node, "has channels in the order that they come in")


def _behind(node: Node, graph: Graph, orders: Orders) -> tuple[Node, np.ndarray]:
    """Return the node that reads operands without their ``orders`` in front, and the order that its result then lacks."""
    order = orders[0]
    inverse, shape = np.argsort(order), graph.edges[node.inputs[0]].shape
    if isinstance(node, Linear | Conv2d):
        groups = node.groups if isinstance(node, Conv2d) else 1
        moved = _blocks(order, len(order) // groups)
        if moved is None:
            raise _Stop(node, f"has {groups} groups, between which its inputs would move")
        each, outputs = len(order) // groups, len(node.weight) // groups
        weight = np.concatenate([node.weight[g * outputs:(g + 1) * outputs][..., np.argsort(order[g * each:(g + 1) * each] % each)]
                                 for g in np.argsort(moved)])
        rows = _spread(moved, outputs)
        return replace(node, weight=weight, bias=node.bias[np.argsort(rows)]), rows
    if isinstance(node, Requantize):
        return _rows(node, inverse), order
    if isinstance(node, _CHANNELWISE):
        return node, order
    if isinstance(node, Permute):
        return replace(node, order=order[node.order]), np.arange(len(order))
    if isinstance(node, Select):                         # others, in the order that they come in
        wanted = order[node.channels]
        return replace(node, channels=np.sort(wanted)), np.argsort(np.argsort(wanted))
    if isinstance(node, Flatten):
        return node, _tiled(order, int(np.prod(shape[:-1])))
    if isinstance(node, Unflatten):
        channels = _pixelwise(order, node.shape[-1])
        if channels is None:
            raise _Stop(node, "makes an image whose pixels would move")
        return node, channels
    if isinstance(node, Add):
        if not np.array_equal(orders[0], orders[1]):
            raise _Stop(node, "adds what is in another order")
        return node, order
    if isinstance(node, Concat):
        starts = np.cumsum([0, *(len(each) for each in orders[:-1])])
        return node, np.concatenate([each + start for each, start in zip(orders, starts, strict=True)])
    raise _Stop(node, "needs its channels in the order that they come in")


def _is_plain(order: np.ndarray) -> bool:
    return np.array_equal(order, np.arange(len(order)))


def _upwards(graph: Graph, permute: Permute) -> dict[str, Node]:
    """Return the nodes to replace so that what ``permute`` reads comes in its order."""
    wanted, made = {permute.inputs[0]: permute.order}, dict[str, Node]()
    for node in reversed(graph.nodes):
        if node.name in wanted:
            if sum(other.inputs.count(node.name) for other in graph) > 1:
                raise _Stop(node, "has a second reader")
            made[node.name], orders = _before(node, graph, wanted[node.name])
            wanted.update((source, order) for source, order in zip(node.inputs, orders, strict=True) if not _is_plain(order))
    return made


def _downwards(graph: Graph, permute: Permute) -> dict[str, Node]:
    """Return the nodes to replace so that what reads ``permute`` does without."""
    lacking, made = {} if _is_plain(permute.order) else {permute.name: permute.order}, dict[str, Node]()
    for node in graph:
        if any(source in lacking for source in node.inputs):
            orders = [lacking.get(source, np.arange(graph.edges[source].shape[-1])) for source in node.inputs]
            made[node.name], order = _behind(node, graph, orders)
            if not _is_plain(order):
                lacking[node.name] = order
    return made


def _apart(graph: Graph, permute: Permute) -> Graph | None:
    """Return the graph with the tensor taken apart and joined again, each part's channels ascending; None if no few parts do.

    What reads it in groups takes up the order within each: a shuffle between convolutions of g groups has g parts. Else the parts
    are those in which the order ascends.
    """
    order = permute.order
    groups = {node.groups for node in graph if isinstance(node, Conv2d)}
    cuts = [np.flatnonzero(np.diff(order) < 0) + 1,
            *(np.arange(each, len(order), each) for each in (len(order) // g for g in groups if len(order) % g == 0))]
    for cut in sorted((cut for cut in cuts if 0 < len(cut) < _PARTS), key=len):
        parts = np.split(order, cut)
        names = [free_name(f"{permute.name}.part{k}", graph.by_name) for k in range(len(parts))]
        joined = free_name(f"{permute.name}.joined", graph.by_name)
        within = np.concatenate([at + np.argsort(np.argsort(part)) for at, part in zip([0, *cut], parts, strict=True)])
        new = [*(Select(name, permute.inputs, channels=np.sort(part)) for name, part in zip(names, parts, strict=True)),
               Concat(joined, tuple(names))]
        rest = replace(permute, inputs=(joined,), order=within)
        apart = graph.with_nodes(made for node in graph for made in ([*new, rest] if node is permute else [node]))
        try:
            return _spared(apart, rest, _downwards(apart, rest))
        except _Stop:
            continue
    return None


def _spared(graph: Graph, permute: Permute, made: dict[str, Node]) -> Graph:
    """Return the graph without ``permute``, with the nodes ``made`` in the place of theirs."""
    nodes = (made.get(node.name, node) for node in graph if node.name != permute.name)
    return graph.with_nodes(replace(node, inputs=tuple(permute.inputs[0] if source == permute.name else source
                                                       for source in node.inputs)) for node in nodes)


class FoldPermute(Pass):
    """A Permute goes into the weights before it, or into those behind it: through what treats every channel alike, and through
    the channels' parameters of a Requantize. Where neither is possible, channels are chosen and concatenated in its order.

    Raises
    ------
    ModelError
        That would take too many parts, too; the message names what is in the way on both sides.
    """

    name = "fold_permute"
    description = "orders of channels go into the weights before or behind, or channels are taken apart and joined"

    def apply(self, graph: Graph) -> Graph:
        """See `Pass.apply`."""
        for name in [node.name for node in graph if isinstance(node, Permute)]:
            node = graph.by_name[name]
            assert isinstance(node, Permute)
            graph = self._without(graph, node)
        return graph

    @staticmethod
    def _without(graph: Graph, permute: Permute) -> Graph:
        if _is_plain(permute.order):
            return _spared(graph, permute, {})
        reasons = []
        for way in (_upwards, _downwards):
            try:
                return _spared(graph, permute, way(graph, permute))
            except _Stop as stop:
                reasons.append(str(stop))
        if apart := _apart(graph, permute):
            return apart
        raise ModelError(f"Permute '{permute.name}' puts channels into another order, which weights before or behind it would have "
                         f"to take up, or a concatenation of up to {_PARTS} parts of ascending channels; but before it "
                         f"{reasons[0]}, and behind it {reasons[1]}")
