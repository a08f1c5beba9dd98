"""The golden model: runs the IR on integers, exactly, and keeps every edge's tensor.

Sums of products run as matrix products in float32 or float64 where the bounds prove them exact (every partial sum
below 2**24 or 2**53 in magnitude), otherwise in int64.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .arith import scale_shift
from .errors import ModelError
from .ir import nodes as n
from .ir.graph import Graph
from .ir.infer import window_size
from .ir.nodes import Edge, Node

__all__ = ["run", "run_batches", "encode_images", "predict", "check_labels"]


def _exact_dtype(weight: np.ndarray, lo: int, hi: int) -> Any:
    bound = int(np.abs(weight).reshape(weight.shape[0], -1).sum(axis=1).max(initial=0)) * max(abs(lo), abs(hi))
    return np.float32 if bound < 1 << 24 else np.float64 if bound < 1 << 53 else np.int64


def _pad(x: np.ndarray, pads: tuple[int, int, int, int], value: int) -> np.ndarray:
    if min(pads) < 0:                                    # a crop
        top, left, bottom, right = (max(-pad, 0) for pad in pads)
        x = x[:, top:x.shape[1] - bottom, left:x.shape[2] - right]
    top, left, bottom, right = (max(pad, 0) for pad in pads)
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value) if max(pads) > 0 else x


def _taps(x: np.ndarray, kernel, stride, dilation=(1, 1)) -> Iterator[np.ndarray]:
    """Yield for each kernel position, row by row, what stands there in every window."""
    rows = window_size(x.shape[1], kernel[0], stride[0], 0, 0, dilation[0])
    cols = window_size(x.shape[2], kernel[1], stride[1], 0, 0, dilation[1])
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            y, z = ky * dilation[0], kx * dilation[1]
            yield x[:, y:y + (rows - 1) * stride[0] + 1:stride[0], z:z + (cols - 1) * stride[1] + 1:stride[1]]


def _conv(node: n.Conv2d, edges: list[Edge], x: np.ndarray) -> np.ndarray:
    out, kh, kw, per_group = node.weight.shape
    lo, hi = min(edges[0].lo, node.pad_value), max(edges[0].hi, node.pad_value)
    dtype = _exact_dtype(node.weight, lo, hi)
    x = _pad(x, node.pads, node.pad_value).astype(dtype)
    taps = list(_taps(x, (kh, kw), node.stride, node.dilation))
    columns = np.stack(taps, axis=3)                     # (n, y, x, taps, channels)
    results = []
    for group in range(node.groups):
        channels = slice(group * per_group, (group + 1) * per_group)
        rows = slice(group * out // node.groups, (group + 1) * out // node.groups)
        flat = columns[..., channels].reshape(-1, kh * kw * per_group)
        results.append(flat @ node.weight[rows].reshape(-1, kh * kw * per_group).T.astype(dtype))
    total = np.concatenate(results, axis=1) if len(results) > 1 else results[0]
    return total.astype(np.int64).reshape(*columns.shape[:3], out) + node.bias


def _linear(node: n.Linear, edges: list[Edge], x: np.ndarray) -> np.ndarray:
    dtype = _exact_dtype(node.weight, edges[0].lo, edges[0].hi)
    return (x.astype(dtype) @ node.weight.T.astype(dtype)).astype(np.int64) + node.bias


def _max_pool(node: n.MaxPool2d, edges: list[Edge], x: np.ndarray) -> np.ndarray:
    return np.maximum.reduce(list(_taps(_pad(x, node.pads, edges[0].lo), node.kernel, node.stride)))


def _avg_pool(node: n.AvgPool2d, edges: list[Edge], x: np.ndarray) -> np.ndarray:
    return np.add.reduce(list(_taps(_pad(x, node.pads, 0), node.kernel, node.stride)))


def _requantize(node: n.Requantize, edges: list[Edge], x: np.ndarray) -> np.ndarray:
    if node.thresholds.size:
        return node.lo + (x[..., None] >= node.thresholds).sum(axis=-1)
    return scale_shift(x, node.mult, node.offset, node.shift, node.lo, node.hi,
                       node.offset_neg if node.offset_neg.size else None, node.half_even)


_RULES: dict[type[Node], Callable[..., np.ndarray]] = {
    n.Conv2d: _conv, n.Linear: _linear, n.MaxPool2d: _max_pool, n.AvgPool2d: _avg_pool, n.Requantize: _requantize,
    n.Add: lambda node, e, a, b: a * node.mult[0] + b * node.mult[1],
    n.Concat: lambda node, e, *xs: np.concatenate(xs, axis=-1),
    n.GlobalAvgPool2d: lambda node, e, x: x.sum(axis=(1, 2), keepdims=True),
    n.Pad: lambda node, e, x: _pad(x, node.pads, node.value),
    n.Upsample: lambda node, e, x: x.repeat(node.factor[0], axis=1).repeat(node.factor[1], axis=2),
    n.Flatten: lambda node, e, x: x.reshape(x.shape[0], -1),
    n.Unflatten: lambda node, e, x: x.reshape(x.shape[0], *node.shape),
    n.Permute: lambda node, e, x: x[..., node.order],
    n.Select: lambda node, e, x: x[..., node.channels],
    n.ArgMax: lambda node, e, x: x.argmax(axis=-1)[..., None],
    n.TopK: lambda node, e, x: np.argsort(-x, axis=-1, kind="stable")[..., :node.k],
    n.Output: lambda node, e, x: x,
}


def run(graph: Graph, codes: np.ndarray, forced: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Run the network on a batch.

    Parameters
    ----------
    graph : Graph
        The network.
    codes : int array (n, *input shape)
        Input codes inside the input's range.
    forced : mapping of str to int array, optional
        Edges whose readers get these values instead of the computed ones, to compare layer by layer with another executor.

    Returns
    -------
    dict of str to int64 array
        Every edge's tensor by node name.

    Raises
    ------
    ModelError
        Wrong shape, or a code outside the input's range.
    """
    codes = np.asarray(codes)
    shape = graph.input.shape
    if codes.shape[1:] != shape:
        raise ModelError(f"Input must have the shape (images, {', '.join(map(str, shape))}), not {codes.shape}")
    if codes.size and (codes.min() < graph.input.lo or codes.max() > graph.input.hi):
        raise ModelError(f"Input codes {codes.min()}..{codes.max()} lie outside {graph.input.lo}..{graph.input.hi}")
    values: dict[str, np.ndarray] = {graph.input.name: codes.astype(np.int64)}
    forced = forced or {}
    for node in graph:
        if node.name not in values:
            edges = [graph.edges[source] for source in node.inputs]
            values[node.name] = _RULES[type(node)](node, edges, *(forced.get(source, values[source]) for source in node.inputs))
    return values


def run_batches(graph: Graph, codes: np.ndarray, batch: int = 250) -> np.ndarray:
    """Return the output for any number of images, a batch at a time (images, *output shape)."""
    parts = [run(graph, codes[i:i + batch])[graph.output.name] for i in range(0, len(codes), batch)]
    return np.concatenate(parts) if parts else np.zeros((0, *graph.edges[graph.output.name].shape), np.int64)


def encode_images(graph: Graph, images: np.ndarray) -> np.ndarray:
    """Return the input codes of unsigned 8-bit images (n, h, w) or (n, h, w, c), by the file's preprocessing record.

    Raises
    ------
    ModelError
        The network takes no images, or the shape or type differs; the message gives both.
    """
    images = np.asarray(images)
    if graph.preprocess is None:
        raise ModelError(f"Network '{graph.name}' has no image preprocessing: give it input codes")
    if images.dtype != np.uint8:
        raise ModelError(f"Images must be unsigned 8-bit (uint8), not {images.dtype}")
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[1:] != graph.input.shape:
        raise ModelError(f"Images must have the shape {graph.input.shape} (height, width, channels), "
                         f"not {images.shape[1:]}")
    return images >> (8 - graph.preprocess.bits)


def predict(graph: Graph, output: np.ndarray) -> np.ndarray:
    """Return the class of each result: the first of its ArgMax or TopK if there is one, else the largest logit (ties: lowest)."""
    flat = output.reshape(len(output), -1)
    return flat[:, 0] if graph.ranks else flat.argmax(axis=1)


def check_labels(graph: Graph, labels: np.ndarray, name: str) -> None:
    """Refuse labels of data called ``name`` that are no class of the network; a wrong data set would just score low.

    Raises
    ------
    ModelError
        A label lies outside; the message names the first.
    """
    last = next((node for node in graph if isinstance(node, n.ArgMax | n.TopK)), graph.output)
    count = int(np.prod(graph.edges[last.inputs[0]].shape))
    wrong = np.flatnonzero((labels < 0) | (labels >= count))
    if len(wrong):
        raise ModelError(f"{name}: image {wrong[0]} has the label {labels[wrong[0]]}, but the network has {count} classes, 0 to "
                         f"{count - 1}; is it the data set that the network was trained for?")
