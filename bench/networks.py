"""The four fixed integer networks on which peers were measured, drawn from one generator in this order: N1, N2, N3, N4.

Weights are symmetric (4 bit: -7..7, 3 bit: -3..3, 2 bit: -1..1; N4: 0 and powers of two), there is no bias, and codes
are ``clip(max(acc, 0) >> shift, 0, 15)`` with the shift that brings the 99th percentile of the sums into 4 bits.
"""

from dataclasses import replace

import numpy as np

from hwq.formats import FixedPoint, Format, PowerOfTwo
from hwq.interp import run
from hwq.ir import Conv2d, Flatten, Graph, Input, Linear, MaxPool2d, Output, Requantize

__all__ = ["networks"]


def _draw(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> tuple[np.ndarray, Format]:
    top = (1 << bits - 1) - 1
    return rng.integers(-top, top + 1, shape), FixedPoint(bits, 0, narrow=True)


def _draw_powers(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, Format]:
    """Return weights 0 and +-2**k, k = 0..6 (in units of 2**-6), all 15 levels as likely."""
    fmt = PowerOfTwo(4, 0)
    words = rng.integers(0, 15, shape)
    return fmt.decode(np.where(words < 8, words, words + 1)), fmt


def _layer(name: str, source: str, weight: np.ndarray, fmt: Format, *, codes: bool = True) -> list:
    bias = np.zeros(len(weight), np.int64)
    node = (Conv2d if weight.ndim == 4 else Linear)(name, (source,), weight=weight, bias=bias, weight_format=fmt)
    if not codes:
        return [node]
    return [node, Requantize(f"{name}_q", (name,), mult=np.ones(1, np.int64), offset=np.zeros(1, np.int64), shift=0, lo=0, hi=15)]


def _network(name: str, shape: tuple[int, ...], high: int, *nodes) -> Graph:
    """Return the network with its shifts set, layer by layer, from 32 random inputs."""
    graph = Graph((Input("in", (), shape=shape, lo=0, hi=high), *nodes, Output("out", (nodes[-1].name,))), name=name)
    x = np.random.default_rng(1).integers(0, high + 1, (32, *shape))
    for node in nodes:
        if isinstance(node, Requantize):
            sums = np.maximum(run(graph, x)[node.inputs[0]], 0)
            shift = max(0, int(np.percentile(sums, 99)).bit_length() - 4)
            graph = graph.with_nodes(replace(n, shift=shift) if n.name == node.name else n for n in graph)
    return graph


def networks() -> dict[str, Graph]:
    """Return the networks by name."""
    rng = np.random.default_rng(0)
    first = [*_layer("conv1", "in", *_draw(rng, (8, 3, 3, 1), 4)), MaxPool2d("pool1", ("conv1_q",)),
             *_layer("conv2", "pool1", *_draw(rng, (16, 3, 3, 8), 4)), MaxPool2d("pool2", ("conv2_q",)),
             Flatten("flat", ("pool2",)), *_layer("dense", "flat", *_draw(rng, (10, 400), 4), codes=False)]
    second = _layer("conv", "in", *_draw(rng, (16, 3, 3, 16), 4))
    third = [*_layer("dense1", "in", *_draw(rng, (64, 784), 2)), *_layer("dense2", "dense1_q", *_draw(rng, (64, 64), 3)),
             *_layer("dense3", "dense2_q", *_draw(rng, (10, 64), 4), codes=False)]
    fourth = _layer("conv", "in", *_draw_powers(rng, (16, 3, 3, 16)))
    return {"N1": _network("N1", (28, 28, 1), 255, *first), "N2": _network("N2", (16, 16, 16), 15, *second),
            "N3": _network("N3", (784,), 255, *third), "N4": _network("N4", (16, 16, 16), 15, *fourth)}
