"""Split a network into the layers that become stages, and refuse by name what has no hardware yet."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

import numpy as np

from hwq.rtl.accelerator import CORE_NAMES
from hwq.rtl.border import Border
from hwq.rtl.common import Technology, shape_of
from hwq.rtl.joins import AddStage, ConcatStage, Joining, JoinStage
from hwq.rtl.matvec import MatVec
from hwq.rtl.pooling import GlobalPoolStage, PoolStage
from hwq.rtl.ranking import RankStage
from hwq.rtl.reshape import GearedStage, PadStage, SelectStage, UpsampleStage, whole_lanes
from hwq.rtl.stage import ConvStage, Folding, Requant, RequantStage

from ..arith import width_of
from ..errors import ModelError
from ..formats import FixedPoint, Format
from ..ir import nodes as n
from ..ir.graph import Graph
from ..ir.nodes import Edge, Node

__all__ = ["Layer", "split"]

Stage = (ConvStage | PoolStage | GlobalPoolStage | RequantStage | PadStage | UpsampleStage | SelectStage | RankStage | JoinStage
         | GearedStage)


@dataclass(frozen=True, eq=False)
class Layer:
    """One stage to be: the nodes it covers and the edges at its ends.

    Attributes
    ----------
    name : str
        Name of its first node with ``_`` for ``.``, numbered where that is taken; the name of its module.
    nodes : tuple of Node
        In order: the operator (a `Requantize` may be one), its `Requantize`, a fused `MaxPool2d`.
    xs : tuple of Edge
        What it reads: one edge, a join several.
    sources : tuple of str
        Names of the layers that make them, ``""`` for the network's input.
    y : Edge
        What it makes.
    """

    name: str
    nodes: tuple[Node, ...]
    xs: tuple[Edge, ...]
    sources: tuple[str, ...]
    y: Edge

    @property
    def x(self) -> Edge:
        """The edge it reads, the first one of a join."""
        return self.xs[0]

    @property
    def joins(self) -> bool:
        """Whether branches meet in it."""
        return isinstance(self.main, n.Add | n.Concat)

    @property
    def main(self) -> Node:
        """The operator."""
        return self.nodes[0]

    @property
    def folds(self) -> bool:
        """Whether it has weights, and so a folding."""
        return isinstance(self.main, n.Conv2d | n.Linear)

    @property
    def weight(self) -> np.ndarray:
        """Weights (outputs, kh, kw, channels) of a layer that folds."""
        assert isinstance(self.main, n.Conv2d | n.Linear)
        w = self.main.weight
        return w if w.ndim == 4 else w.reshape(w.shape[0], 1, 1, w.shape[1])

    @property
    def groups(self) -> int:
        """Groups of channels."""
        return self.main.groups if isinstance(self.main, n.Conv2d) else 1

    @property
    def weight_format(self) -> Format:
        """Format of the weights of a layer that folds."""
        assert isinstance(self.main, n.Conv2d | n.Linear) and self.main.weight_format is not None
        return self.main.weight_format

    @property
    def macs(self) -> int:
        """Multiplications that the network asks for (padding included, pooled-away windows not)."""
        if not self.folds:
            return 0
        return self.weight.size * (self.windows if len(self.x.shape) == 3 else 1)

    @property
    def windows(self) -> int:
        """Windows that are computed."""
        pool = self._pool
        return int(np.prod(self.y.shape[:2])) * pool[0] * pool[1] if len(self.y.shape) == 3 else 1

    @property
    def _pool(self) -> tuple[int, int]:
        return next((node.kernel for node in self.nodes[1:] if isinstance(node, n.MaxPool2d)), (1, 1))

    @property
    def _requant(self) -> Requant | None:
        for node in self.nodes:
            if isinstance(node, n.Requantize):
                by_sign = node.offset_neg[:0] if node.thresholds.size else node.offset_neg
                return Requant(node.mult, node.offset, by_sign, node.shift, node.lo, node.hi, node.half_even, node.thresholds)
        return None

    @property
    def steps(self) -> bool:
        """Whether its requantizer can multiply by some bits of the multiplier a cycle."""
        return (requant := self._requant) is not None and requant.steps

    @property
    def shifts(self) -> bool:
        """Whether the layer can have a shift window."""
        main = self.main
        _, kh, kw, _ = self.weight.shape
        if not isinstance(main, n.Conv2d) or (kh, kw) == (1, 1) or main.groups != 1 or main.dilation != (1, 1):
            return False
        height, width, _ = self.x.shape
        return Border.trimmed((height, width), main.pads, (kh, kw), main.stride, self._pool).width >= 2

    @property
    def wires(self) -> bool:
        """Whether the layer can be wired: its weights as adders behind a shift window."""
        once = self.weight.shape[1:3] == (1, 1) and getattr(self.main, "stride", (1, 1)) == (1, 1)
        return self.shifts or (self.groups == 1 and once)

    def styles(self, technology: Technology) -> tuple[str, ...]:
        """Return the styles of arithmetic that the layer can have, see `MatVec`."""
        assert isinstance(self.main, n.Conv2d | n.Linear)
        fmt = self.main.weight_format
        assert fmt is not None
        products = isinstance(fmt, FixedPoint) and fmt.signed
        x_width = width_of(self.x.lo, self.x.hi)[0]
        return ("lut", "dsp") if products and MatVec.dsps(1, x_width, fmt.width, technology) else ("lut",)

    def stage(self, fold: Folding | Joining, in_lanes: Sequence[int], technology: Technology) -> Stage:
        """Return the layer's block tree; cheap: nothing is elaborated."""
        try:
            if isinstance(fold, Joining):
                return self._join(fold, in_lanes, technology)
            lanes = in_lanes[0] if self.folds else self._lanes(in_lanes[0])
            stage = self._stage(fold, lanes, technology)
            return stage if lanes == in_lanes[0] else GearedStage(shape_of(self.x.lo, self.x.hi), in_lanes[0], lanes, stage)
        except ModelError as error:
            raise ModelError(f"Layer '{self.name}': {error}") from None

    def _lanes(self, given: int) -> int:
        """Return the lanes of a stage without weights whose stream has as many as given."""
        lanes = gcd(given, self.x.shape[-1])             # behind an Unflatten they may not divide the channels
        return whole_lanes(self.main.channels, lanes) if isinstance(self.main, n.Select) else lanes

    def joining(self, most: int) -> Joining:
        """Return the join with as few lanes as need at most ``most`` cycles a frame, if any number does."""
        channels = [x.shape[-1] for x in self.xs]
        lanes = [d for d in range(1, channels[0] + 1) if all(count % d == 0 for count in channels)]
        return Joining(next((d for d in lanes if prod(self.y.shape) // d <= most), lanes[-1]))

    def _join(self, join: Joining, in_lanes: Sequence[int], technology: Technology) -> JoinStage:
        main, ranges, pixels = self.main, [(x.lo, x.hi) for x in self.xs], prod(self.x.shape[:-1])
        if isinstance(main, n.Concat):
            return ConcatStage(ranges, pixels=pixels, channels=[x.shape[-1] for x in self.xs], in_lanes=in_lanes, join=join,
                               technology=technology)
        assert isinstance(main, n.Add)
        return AddStage(ranges, mult=main.mult, requant=self._requant if len(self.nodes) > 1 else None, pixels=pixels,
                        channels=self.x.shape[-1], in_lanes=in_lanes, join=join, technology=technology)

    def _stage(self, fold: Folding, in_lanes: int, technology: Technology) -> Stage:
        x_range = (self.x.lo, self.x.hi)
        main = self.main
        height, width, channels = self.x.shape if len(self.x.shape) == 3 else (1, 1, self.x.shape[0])
        image = dict(lanes=in_lanes, height=height, width=width, channels=channels)
        requant = self._requant
        if isinstance(main, n.MaxPool2d | n.AvgPool2d):
            return PoolStage("max" if isinstance(main, n.MaxPool2d) else "sum", x_range, **image, kernel=main.kernel,
                             stride=main.stride,
                             pads=main.pads, requant=requant, bits=fold.scale_bits, depth=fold.depth, technology=technology)
        if isinstance(main, n.Pad):
            return PadStage(x_range, **image, pads=main.pads, value=main.value)
        if isinstance(main, n.Upsample):
            return UpsampleStage(x_range, **image, factor=main.factor, depth=fold.depth, technology=technology)
        if isinstance(main, n.Select):
            return SelectStage(x_range, lanes=in_lanes, pixels=height * width, channels=channels, chosen=main.channels)
        if isinstance(main, n.ArgMax | n.TopK):
            return RankStage(x_range, lanes=in_lanes, count=channels, k=main.k if isinstance(main, n.TopK) else 1)
        assert requant is not None                       # `split` has seen to it
        if isinstance(main, n.Conv2d):
            return ConvStage(self.weight, self.weight_format, x_range, height=height, width=width, stride=main.stride,
                             dilation=main.dilation, groups=main.groups, pads=main.pads, pad_value=main.pad_value, bias=main.bias,
                             requant=requant, pool=self._pool,
                             in_lanes=in_lanes, fold=fold, technology=technology)
        if isinstance(main, n.Linear):
            return ConvStage(self.weight, self.weight_format, x_range, height=1, width=1, bias=main.bias,
                             requant=requant, in_lanes=in_lanes, fold=fold, technology=technology)
        if isinstance(main, n.GlobalAvgPool2d):
            return GlobalPoolStage(x_range, lanes=in_lanes, pixels=height * width, channels=channels, requant=requant,
                                   bits=fold.scale_bits, technology=technology)
        return RequantStage(x_range, lanes=in_lanes, pixels=height * width, channels=channels, requant=requant,
                            bits=fold.scale_bits, technology=technology)


def _refuse(node: Node, what: str) -> None:
    raise ModelError(f"{node.op} '{node.name}': {what}")


def _tight(node: n.Requantize, graph: Graph) -> n.Requantize:
    """Return the node with the range that can occur, not the one asked for: what follows is sized by it."""
    edge = graph.edges[node.name]
    return replace(node, lo=edge.lo, hi=edge.hi)


def _free(name: str, taken: list[str]) -> str:
    """Return the name, numbered if another layer or a part of the core has it."""
    names = (name, *(f"{name}_{k}" for k in range(2, len(taken) + 3)))
    return next(each for each in names if each not in taken and each not in CORE_NAMES)


def split(graph: Graph) -> list[Layer]:
    """Return the layers, each with its requantization and behind those that it reads (`hwq.passes.HARDWARE_PASSES` were run).

    Raises
    ------
    ModelError
        A node or attribute without hardware, an operator without `Requantize`.
    """
    layers: list[Layer] = []
    makers, done = {graph.input.name: ""}, set[str]()    # who makes an edge; nodes that a layer has taken

    def follower(node: Node) -> Node | None:
        """Return the only reader of a node's result."""
        readers = graph.readers(node.name)
        return readers[0] if len(readers) == 1 else None

    for node in graph:
        if isinstance(node, n.Input | n.Output) or node.name in done:
            continue
        if isinstance(node, n.Flatten | n.Unflatten):    # raster order, channels last: nothing to do
            makers[node.name] = makers[node.inputs[0]]
            continue
        group = [node]
        after = follower(node)
        if isinstance(node, n.Conv2d | n.Linear | n.GlobalAvgPool2d) and not isinstance(after, n.Requantize):
            _refuse(node, "no Requantize follows; run hwq.passes.apply_passes first")
        if isinstance(node, n.Requantize):
            group = [_tight(node, graph)]
        elif isinstance(node, n.Conv2d | n.Linear | n.GlobalAvgPool2d | n.AvgPool2d | n.Add) and isinstance(after, n.Requantize):
            group.append(_tight(after, graph))
            pool = follower(after)
            if isinstance(node, n.Conv2d) and isinstance(pool, n.MaxPool2d) and pool.stride == pool.kernel and not any(pool.pads):
                group.append(pool)
        name = _free(node.name.replace(".", "_"), [layer.name for layer in layers])
        layers.append(Layer(name, tuple(group), tuple(graph.edges[source] for source in node.inputs),
                            tuple(makers[source] for source in node.inputs), graph.edges[group[-1].name]))
        makers[group[-1].name] = name
        done.update(member.name for member in group)
    if not layers:
        raise ModelError(f"Network '{graph.name}' has no layer that computes anything")
    return layers
