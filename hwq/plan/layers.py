"""Split a network into the layers that become stages, and refuse by name what has no hardware yet."""

from dataclasses import dataclass, replace

import numpy as np

from hwq.rtl.accelerator import CORE_NAMES
from hwq.rtl.common import Technology
from hwq.rtl.stage import ArgMaxStage, ConvStage, Folding, GlobalPoolStage, PoolStage, Requant, trimmed_width

from ..arith import width_of
from ..errors import ModelError
from ..formats import FixedPoint, Format
from ..ir import nodes as n
from ..ir.graph import Graph
from ..ir.nodes import Edge, Node

__all__ = ["Layer", "split"]

Stage = ConvStage | PoolStage | GlobalPoolStage | ArgMaxStage


@dataclass(frozen=True, eq=False)
class Layer:
    """One stage to be: the nodes it covers and the edges at its ends.

    Attributes
    ----------
    name : str
        Name of its first node with ``_`` for ``.``, numbered where that is taken; the name of its module.
    nodes : tuple of Node
        In order: the operator, its `Requantize`, a fused `MaxPool2d`.
    x, y : Edge
        What it reads and makes.
    """

    name: str
    nodes: tuple[Node, ...]
    x: Edge
    y: Edge

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
        return next((node.kernel for node in self.nodes if isinstance(node, n.MaxPool2d)), (1, 1))

    @property
    def _requant(self) -> Requant:
        node = next(node for node in self.nodes if isinstance(node, n.Requantize))
        return Requant(node.mult, node.offset, node.offset_neg, node.shift, node.lo, node.hi, node.half_even)

    @property
    def shifts(self) -> bool:
        """Whether the layer can have a shift window."""
        main = self.main
        _, kh, kw, _ = self.weight.shape
        if not isinstance(main, n.Conv2d) or (kh, kw) == (1, 1) or main.groups != 1 or main.dilation != (1, 1):
            return False
        height, width, _ = self.x.shape
        return trimmed_width((height, width), main.pads, (kh, kw), main.stride, self._pool) >= 2

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
        wide = bool(technology.dsp_min_width) and x_width + fmt.width >= technology.dsp_min_width
        return ("lut", "dsp") if products and wide else ("lut",)

    def stage(self, fold: Folding, in_lanes: int, technology: Technology) -> Stage:
        """Return the layer's block tree; cheap: nothing is elaborated."""
        try:
            return self._stage(fold, in_lanes, technology)
        except ModelError as error:
            raise ModelError(f"Layer '{self.name}': {error}") from None

    def _stage(self, fold: Folding, in_lanes: int, technology: Technology) -> Stage:
        x_range = (self.x.lo, self.x.hi)
        main = self.main
        height, width, channels = self.x.shape if len(self.x.shape) == 3 else (1, 1, self.x.shape[0])
        if isinstance(main, n.Conv2d):
            return ConvStage(self.weight, self.weight_format, x_range, height=height, width=width, stride=main.stride,
                             dilation=main.dilation, groups=main.groups, pads=main.pads, pad_value=main.pad_value, bias=main.bias, requant=self._requant, pool=self._pool,
                             in_lanes=in_lanes, fold=fold, technology=technology)
        if isinstance(main, n.Linear):
            return ConvStage(self.weight, self.weight_format, x_range, height=1, width=1, bias=main.bias,
                             requant=self._requant, in_lanes=in_lanes, fold=fold, technology=technology)
        if isinstance(main, n.MaxPool2d):
            return PoolStage(x_range, lanes=in_lanes, height=height, width=width, channels=channels, kernel=main.kernel,
                             technology=technology)
        if isinstance(main, n.GlobalAvgPool2d):
            return GlobalPoolStage(x_range, lanes=in_lanes, pixels=height * width, channels=channels,
                                   requant=self._requant, technology=technology)
        assert isinstance(main, n.ArgMax)
        return ArgMaxStage(x_range, lanes=in_lanes, count=channels)


def _refuse(node: Node, what: str) -> None:
    raise ModelError(f"{node.op} '{node.name}': {what}")


def _check(node: Node, x: Edge) -> None:
    """Refuse what the stages cannot do exactly."""
    if isinstance(node, n.MaxPool2d):
        if node.stride != node.kernel or any(node.pads):
            _refuse(node, f"kernel {node.kernel}, stride {node.stride}, pads {node.pads} has no hardware yet; "
                          "supported: stride = kernel, no padding")
    elif isinstance(node, n.Requantize):
        if node.thresholds.size:
            _refuse(node, "thresholds have no hardware yet; supported: the scale form (mult, offset, shift)")
    elif not isinstance(node, n.Conv2d | n.Linear | n.GlobalAvgPool2d | n.Flatten | n.ArgMax | n.Input | n.Output):
        _refuse(node, "this operator has no hardware yet; supported: Conv2d, Linear, MaxPool2d, GlobalAvgPool2d, "
                      "Flatten, Requantize, ArgMax")


def _free(name: str, taken: list[str]) -> str:
    """Return the name, numbered if another layer or a part of the core has it."""
    names = (name, *(f"{name}_{k}" for k in range(2, len(taken) + 3)))
    return next(each for each in names if each not in taken and each not in CORE_NAMES)


def split(graph: Graph) -> list[Layer]:
    """Return the layers of a chain of operators, each with its requantization (`hwq.passes.HARDWARE_PASSES` were run).

    Raises
    ------
    ModelError
        A node or attribute without hardware, an edge read twice, an operator without `Requantize`.
    """
    layers: list[Layer] = []
    nodes = [node for node in graph if not isinstance(node, n.Input | n.Output)]
    for node in graph:
        _check(node, graph.edges[node.inputs[0]] if node.inputs else graph.edges[node.name])
        if len(graph.readers(node.name)) > 1:
            _refuse(node, f"its result is read by {', '.join(r.name for r in graph.readers(node.name))}; "
                          "branches have no hardware yet")
    i = 0
    while i < len(nodes):
        node = nodes[i]
        if isinstance(node, n.Flatten):                  # raster order, channels last: nothing to do
            i += 1
            continue
        group = [node]
        x = graph.edges[node.inputs[0]]
        if isinstance(node, n.Conv2d | n.Linear | n.GlobalAvgPool2d):
            follower = nodes[i + 1] if i + 1 < len(nodes) else None
            if not isinstance(follower, n.Requantize):
                _refuse(node, "no Requantize follows; run hwq.passes.apply_passes first")
            # The range that can occur, not the one asked for: what follows is sized by it.
            edge = graph.edges[nodes[i + 1].name]
            group.append(replace(follower, lo=edge.lo, hi=edge.hi))       # type: ignore[type-var, arg-type]
            after = nodes[i + 2] if i + 2 < len(nodes) else None
            if isinstance(node, n.Conv2d) and isinstance(after, n.MaxPool2d):
                group.append(after)
        elif isinstance(node, n.Requantize):
            _refuse(node, "a Requantize of its own has no hardware yet; supported: after Conv2d, Linear, GlobalAvgPool2d")
        layers.append(Layer(_free(node.name.replace(".", "_"), [layer.name for layer in layers]), tuple(group), x, graph.edges[group[-1].name]))
        i += len(group)
    if not layers:
        raise ModelError(f"Network '{graph.name}' has no layer that computes anything")
    return layers
