"""Random networks of all operators that run in a chain, small enough to simulate."""

from math import prod

import numpy as np

from hwq.errors import HwqError
from hwq.formats import Bipolar, FixedPoint, PowerOfTwo
from hwq.interp import run
from hwq.ir import (
    ArgMax,
    AvgPool2d,
    Conv2d,
    Edge,
    Flatten,
    GlobalAvgPool2d,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Node,
    Output,
    Pad,
    Requantize,
    Select,
    TopK,
    Upsample,
)
from hwq.ir.infer import infer
from hwq.passes import apply_passes

__all__ = ["random_network"]

_MOST_VALUES = 200                                       # of an edge
_FORMATS = [*(FixedPoint(width, 0) for width in (2, 3, 4, 5, 8)), FixedPoint(2, 0, narrow=True), PowerOfTwo(3, 0), PowerOfTwo(4, 0),
            Bipolar()]


class _Chain:
    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        lo = int(self.rng.choice([0, 0, -8]))
        shape = self.int(3, 8), self.int(3, 8), self.int(1, 4)
        self.nodes: list[Node] = [Input("in", (), shape=shape, lo=lo, hi=lo + 15)]
        self.edge = infer(self.nodes[0], [])
        self.samples = self.rng.integers(lo, lo + 16, (16, *shape))

    def int(self, low: int, high: int) -> int:
        """Return a number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, values):
        """Return one of the values."""
        return values[self.int(0, len(values) - 1)]

    def add(self, kind: type[Node], **attributes) -> bool:
        """Append a node if the network may have it there."""
        node = kind(f"{kind.__name__.lower()}{len(self.nodes)}", (self.nodes[-1].name,), **attributes)
        try:
            edge: Edge = infer(node, [self.edge])
        except HwqError:                                 # does not fit the image
            return False
        if prod(edge.shape) > _MOST_VALUES and not isinstance(node, Flatten):
            return False
        self.nodes.append(node)
        self.edge = edge
        return True

    def results(self) -> np.ndarray:
        """Return what the network so far makes of the samples."""
        return run(Graph((*self.nodes, Output("out", (self.nodes[-1].name,)))), self.samples)["out"]

    def weights(self, *shape: int):
        fmt = self.pick(_FORMATS)
        if isinstance(fmt, FixedPoint):
            weight = self.rng.integers(fmt.range[0], fmt.range[1] + 1, shape)
        else:
            weight = fmt.decode(self.rng.integers(0, 1 << fmt.width, shape))
        return dict(weight=weight, bias=self.rng.integers(-40, 41, shape[0]) * self.int(0, 1), weight_format=fmt)

    def conv(self) -> None:
        channels = self.edge.shape[2]
        kernel, dilation, stride = ((self.int(1, most), self.int(1, most)) for most in (3, 2, 2))
        groups = self.pick([g for g in (1, 1, 2, channels) if channels % g == 0])
        done = self.add(Conv2d, **self.weights(groups * self.int(1, 3), *kernel, channels // groups), stride=stride,
                        dilation=dilation, groups=groups, pads=tuple(self.int(0, 2) * self.int(0, 1) for _ in range(4)),
                        pad_value=self.int(-2, 3))
        if done and self.int(0, 9):
            self.requantize()
            if not self.int(0, 2):
                self.add(MaxPool2d)

    def requantize(self) -> None:
        """Requantize in any form, such that codes of usual sums are in range."""
        lo, bits = self.pick([(0, 4), (0, 2), (-8, 4), (-1, 2), (0, 1)])
        hi = lo + (1 << bits) - 1
        rows = self.pick([1, self.edge.shape[-1]])
        low, high = (int(v) for v in np.percentile(self.results(), (5, 95)))
        span = high - low + 1
        if not self.int(0, 2):
            table = np.sort(self.rng.integers(low, low + span + 1, (rows, hi - lo)), axis=1)
            self.add(Requantize, thresholds=table, lo=lo, hi=hi)
            return
        mult = self.rng.integers(1, 8, rows) * self.rng.choice([1, 1, 1, -1], rows) if self.int(0, 1) else np.ones(1, np.int64)
        shift = max(0, (span * int(np.abs(mult).max())).bit_length() - bits)
        offset = (lo << shift) - np.where(mult > 0, low, high) * mult + self.rng.integers(0, (1 << shift) + 1, mult.shape)
        by_sign = offset - self.int(0, 3) if not self.int(0, 4) else np.zeros(0, np.int64)
        self.add(Requantize, mult=mult, offset=offset, offset_neg=by_sign, shift=shift, lo=lo, hi=hi,
                 half_even=not by_sign.size and not self.int(0, 4))

    def pool(self) -> None:
        kernel, stride = ((self.int(1, 3), self.int(1, 3)) for _ in range(2))
        done = self.add(self.pick([MaxPool2d, AvgPool2d]), kernel=kernel, stride=self.pick([kernel, stride]),
                        pads=tuple(self.int(0, k - 1) * self.int(0, 1) for k in (*kernel, *kernel)))
        if done and (self.edge.hi - self.edge.lo > 255 or self.int(0, 1)):
            self.requantize()

    def pad(self) -> None:
        least = self.pick([0, -2, -2])
        self.add(Pad, pads=tuple(self.int(least, 2 + least * self.int(0, 1)) for _ in range(4)),
                 value=self.int(self.edge.lo - 1, self.edge.hi + 1))

    def upsample(self) -> None:
        self.add(Upsample, factor=(self.int(1, 3), self.int(1, 2)))

    def select(self) -> None:
        count = self.edge.shape[-1]
        self.add(Select, channels=np.sort(self.rng.choice(count, self.int(1, count), replace=False)))

    def end(self) -> None:
        if not self.int(0, 3) and self.add(GlobalAvgPool2d):
            self.requantize()
        if self.int(0, 2):
            if self.add(Flatten) and self.int(0, 3):
                self.add(Linear, **self.weights(self.int(2, 5), self.edge.shape[0]))
                if self.int(0, 1):
                    self.requantize()
            if len(self.edge.shape) == 1 and self.edge.shape[0] > 1 and not self.int(0, 3):
                self.add(TopK, k=self.int(1, self.edge.shape[0])) if self.int(0, 1) else self.add(ArgMax)


def random_network(seed: int) -> Graph:
    """Return a network of one to five operators of all kinds and attributes, whose results tell frames apart."""
    chain = _Chain(seed)
    for _ in range(chain.int(1, 5)):
        chain.pick([chain.conv, chain.conv, chain.conv, chain.pool, chain.pool, chain.pad, chain.upsample,
                    chain.select, chain.requantize])()
    chain.end()
    graph = Graph((*chain.nodes, Output("out", (chain.nodes[-1].name,))))
    computes = any(not isinstance(node, Input | Flatten | Output) for node in apply_passes(graph))
    telling = len(np.unique(chain.results().reshape(len(chain.samples), -1), axis=0)) >= 5
    return graph if computes and telling else random_network(seed + 10_000)
