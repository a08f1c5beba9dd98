"""Shape, exact range and scale of the edge that each node makes, or a `ModelError` that names the node."""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from ..arith import scale_shift
from ..errors import FormatError, HwqError, ModelError
from . import nodes as n
from .checks import LARGEST
from .nodes import Edge, Node

__all__ = ["infer", "channel_ranges", "window_size"]

_MOST_VALUES = 1 << 31                                   # of an edge
_MOST_FRAC = 512                                         # beyond, floats have no such scale


def window_size(size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    """Return how many windows fit along one axis (floor mode)."""
    return (size + before + after - (kernel - 1) * dilation - 1) // stride + 1


def _need(condition: bool, node: Node, message: str) -> None:
    if not condition:
        raise ModelError(f"{node.op} '{node.name}': {message}")


def _image(node: Node, x: Edge) -> tuple[int, int, int]:
    _need(len(x.shape) == 3, node, f"input must have the shape (height, width, channels), not {x.shape}")
    return x.shape[0], x.shape[1], x.shape[2]


def _windows(node: Node, x: Edge, kernel, stride, pads, dilation=(1, 1)) -> tuple[int, int]:
    height, width, _ = _image(node, x)
    _need(min(*kernel, *stride, *dilation) >= 1 and min(pads) >= 0, node,
          f"kernel {kernel}, stride {stride}, dilation {dilation} must be positive and pads {pads} not negative")
    size = (window_size(height, kernel[0], stride[0], pads[0], pads[2], dilation[0]),
            window_size(width, kernel[1], stride[1], pads[1], pads[3], dilation[1]))
    _need(min(size) >= 1, node, f"kernel {kernel} is larger than the padded image of {height}x{width}, pads {pads}")
    return size


def _most(*arrays: np.ndarray) -> int:
    """Return the greatest magnitude in arrays; Python's own integers, for int64 has no -(-2**63)."""
    return max((max(-int(array.min()), int(array.max())) for array in arrays if array.size), default=0)


def _sum_range(weight: np.ndarray, bias: np.ndarray, lo: int, hi: int) -> tuple[np.ndarray, np.ndarray]:
    flat = weight.reshape(weight.shape[0], -1)
    if flat.shape[1] * _most(flat) * max(abs(lo), abs(hi)) + _most(bias) >= LARGEST:
        flat, bias = flat.astype(object), bias.astype(object)          # exact; slower, and refused in most cases
    return (bias + np.minimum(flat * lo, flat * hi).sum(axis=1),
            bias + np.maximum(flat * lo, flat * hi).sum(axis=1))


def channel_ranges(node: n.Conv2d | n.Linear, x: Edge) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact bounds of every output channel's sum, bias included."""
    lo, hi = x.lo, x.hi
    if isinstance(node, n.Conv2d) and any(node.pads):
        lo, hi = min(lo, node.pad_value), max(hi, node.pad_value)
    return _sum_range(node.weight, node.bias, lo, hi)


def _weights(node: n.Conv2d | n.Linear, x: Edge, shape: tuple[int, ...]) -> Edge:
    fmt = node.weight_format
    _need(fmt is not None, node, "the weights have no format")
    assert fmt is not None
    _need(node.bias.shape == (node.weight.shape[0],), node, f"bias must have one value per output, not {node.bias.shape}")
    try:
        fmt.check(node.weight)
    except FormatError as error:
        raise FormatError(f"{node.op} '{node.name}': {error}") from None
    lo, hi = channel_ranges(node, x)
    frac = None if x.frac_bits is None else x.frac_bits + fmt.frac_bits
    _need(_most(lo, hi) < LARGEST, node, "the sums do not fit 62 bits")
    return Edge((*shape, node.weight.shape[0]), int(lo.min()), int(hi.max()), frac)


def _input(node: n.Input) -> Edge:
    _need(len(node.shape) in (1, 3) and min(node.shape) >= 1, node, f"shape must be (h, w, c) or (n,), not {node.shape}")
    _need(node.lo <= node.hi, node, f"range {node.lo}..{node.hi} is empty")
    return Edge(tuple(node.shape), node.lo, node.hi, node.frac_bits)


def _conv(node: n.Conv2d, x: Edge) -> Edge:
    _, _, channels = _image(node, x)
    _need(node.weight.ndim == 4, node, f"weights must have 4 axes, not {node.weight.ndim}")
    out, kh, kw, per_group = node.weight.shape
    _need(node.groups >= 1 and channels == per_group * node.groups and out % node.groups == 0, node,
          f"{channels} input channels do not match weights {node.weight.shape} in {node.groups} groups")
    return _weights(node, x, _windows(node, x, (kh, kw), node.stride, node.pads, node.dilation))


def _linear(node: n.Linear, x: Edge) -> Edge:
    _need(len(x.shape) == 1, node, f"input must be flat, not {x.shape}: a Flatten is missing")
    _need(node.weight.ndim == 2 and node.weight.shape[1] == x.shape[0], node,
          f"{x.shape[0]} inputs do not match weights {node.weight.shape}")
    return _weights(node, x, ())


def _add(node: n.Add, a: Edge, b: Edge) -> Edge:
    _need(a.shape == b.shape, node, f"shapes {a.shape} and {b.shape} differ")
    ends = [sorted((e.lo * m, e.hi * m)) for e, m in zip((a, b), node.mult, strict=True)]
    _need(max(-ends[0][0], ends[0][1], -ends[1][0], ends[1][1]) < LARGEST, node, "products do not fit 62 bits")
    scales = {_finer(e.frac_bits, m) for e, m in zip((a, b), node.mult, strict=True)}
    return Edge(a.shape, ends[0][0] + ends[1][0], ends[0][1] + ends[1][1], scales.pop() if len(scales) == 1 else None)


def _finer(frac_bits: int | None, mult: int) -> int | None:
    """Return the scale of integers times a power of two; None for another multiplier or no scale."""
    return None if frac_bits is None or mult < 1 or mult & (mult - 1) else frac_bits + mult.bit_length() - 1


def _concat(node: n.Concat, *xs: Edge) -> Edge:
    _need(len(xs) >= 2 and len({x.shape[:-1] for x in xs}) == 1, node, f"shapes {[x.shape for x in xs]} cannot be joined")
    fracs = {x.frac_bits for x in xs}
    return Edge((*xs[0].shape[:-1], sum(x.shape[-1] for x in xs)), min(x.lo for x in xs), max(x.hi for x in xs),
                fracs.pop() if len(fracs) == 1 else None)


def _max_pool(node: n.MaxPool2d, x: Edge) -> Edge:
    size = _windows(node, x, node.kernel, node.stride, node.pads)
    _need(max(node.pads[0], node.pads[2]) < node.kernel[0] and max(node.pads[1], node.pads[3]) < node.kernel[1], node,
          f"pads {node.pads} must be smaller than the kernel {node.kernel}")
    return Edge((*size, x.shape[2]), x.lo, x.hi, x.frac_bits)


def _avg_pool(node: n.AvgPool2d, x: Edge) -> Edge:
    size = _windows(node, x, node.kernel, node.stride, node.pads)
    taps = node.kernel[0] * node.kernel[1]
    lo, hi = (min(0, x.lo), max(0, x.hi)) if any(node.pads) else (x.lo, x.hi)
    return Edge((*size, x.shape[2]), lo * taps, hi * taps, x.frac_bits)


def _global_avg_pool(node: n.GlobalAvgPool2d, x: Edge) -> Edge:
    height, width, channels = _image(node, x)
    return Edge((1, 1, channels), x.lo * height * width, x.hi * height * width, x.frac_bits)


def _pad(node: n.Pad, x: Edge) -> Edge:
    height, width, channels = _image(node, x)
    top, left, bottom, right = node.pads
    _need(height + min(top, 0) + min(bottom, 0) >= 1 and width + min(left, 0) + min(right, 0) >= 1, node,
          f"pads {node.pads} leave nothing of the image of {height}x{width}")
    lo, hi = (min(x.lo, node.value), max(x.hi, node.value)) if max(node.pads) > 0 else (x.lo, x.hi)
    return Edge((height + top + bottom, width + left + right, channels), lo, hi, x.frac_bits)


def _upsample(node: n.Upsample, x: Edge) -> Edge:
    height, width, channels = _image(node, x)
    _need(min(node.factor) >= 1, node, f"factor must be at least 1, not {node.factor}")
    return Edge((height * node.factor[0], width * node.factor[1], channels), x.lo, x.hi, x.frac_bits)


def _flatten(node: n.Flatten, x: Edge) -> Edge:
    return Edge((prod(x.shape),), x.lo, x.hi, x.frac_bits)


def _unflatten(node: n.Unflatten, x: Edge) -> Edge:
    _need(len(x.shape) == 1, node, f"input must be flat, not {x.shape}")
    _need(len(node.shape) == 3 and min(node.shape) >= 1 and prod(node.shape) == x.shape[0], node,
          f"shape must be (height, width, channels) of {x.shape[0]} values, not {node.shape}")
    return Edge(node.shape, x.lo, x.hi, x.frac_bits)


def _permute(node: n.Permute, x: Edge) -> Edge:
    _need(node.order.ndim == 1 and np.array_equal(np.sort(node.order), np.arange(x.shape[-1])), node,
          f"order must have each of 0 to {x.shape[-1] - 1} once")
    return x


def _select(node: n.Select, x: Edge) -> Edge:
    chosen = node.channels
    ascending = chosen.ndim == 1 and chosen.size > 0 and bool((np.diff(chosen) > 0).all()) and 0 <= chosen[0] \
        and chosen[-1] < x.shape[-1]
    _need(ascending, node, f"channels must be some of 0 to {x.shape[-1] - 1}, ascending")
    return Edge((*x.shape[:-1], len(chosen)), x.lo, x.hi, x.frac_bits)


def _requantize(node: n.Requantize, x: Edge) -> Edge:
    _need(node.lo <= node.hi, node, f"range {node.lo}..{node.hi} is empty")
    for name in ("mult", "offset", "offset_neg", "thresholds"):
        rows = getattr(node, name).shape[0]
        optional = name in ("offset_neg", "thresholds")
        _need(rows in ((0,) if optional else ()) + (1, x.shape[-1]), node,
              f"{name} must have 1 or {x.shape[-1]} rows, not {rows}")
    if node.thresholds.size:
        _need(node.thresholds.shape[1] == node.hi - node.lo, node, f"needs {node.hi - node.lo} thresholds a row")
        _need(bool((node.thresholds[:, 1:] >= node.thresholds[:, :-1]).all()), node, "thresholds must ascend")
        return Edge(x.shape, node.lo, node.hi, node.frac_bits)
    _need(abs(node.shift) <= 62, node, f"shift must lie in -62..62, not {node.shift}")
    bound = max(abs(x.lo), abs(x.hi)) * _most(node.mult) + _most(node.offset, node.offset_neg)
    _need(bound < LARGEST >> max(-node.shift, 0), node, "products do not fit 62 bits")
    corners = [scale_shift(np.array([[a]]), node.mult, node.offset, node.shift, node.lo, node.hi,
                           node.offset_neg if node.offset_neg.size else None, node.half_even)
               for a in {x.lo, x.hi, min(max(-1, x.lo), x.hi), min(max(0, x.lo), x.hi)}]
    return Edge(x.shape, int(min(c.min() for c in corners)), int(max(c.max() for c in corners)), node.frac_bits)


def _argmax(node: n.ArgMax, x: Edge) -> Edge:
    _need(len(x.shape) == 1, node, f"input must be flat, not {x.shape}")
    return Edge((1,), 0, x.shape[0] - 1, 0)


def _top_k(node: n.TopK, x: Edge) -> Edge:
    _need(len(x.shape) == 1, node, f"input must be flat, not {x.shape}")
    _need(1 <= node.k <= x.shape[0], node, f"k must lie in 1..{x.shape[0]}, not {node.k}")
    return Edge((node.k,), 0, x.shape[0] - 1, 0)


_RULES: dict[type[Node], Callable[..., Edge]] = {
    n.Input: _input, n.Conv2d: _conv, n.Linear: _linear, n.Add: _add, n.Concat: _concat, n.MaxPool2d: _max_pool,
    n.AvgPool2d: _avg_pool, n.GlobalAvgPool2d: _global_avg_pool, n.Pad: _pad, n.Upsample: _upsample,
    n.Flatten: _flatten, n.Unflatten: _unflatten, n.Permute: _permute, n.Select: _select, n.Requantize: _requantize,
    n.ArgMax: _argmax, n.TopK: _top_k, n.Output: lambda node, x: x,
}


def _sound(node: Node, edge: Edge) -> Edge:
    """Return the edge, if int64 and memory can hold it."""
    _need(max(abs(edge.lo), abs(edge.hi)) < LARGEST, node, f"the range {edge.lo}..{edge.hi} does not fit 62 bits")
    _need(prod(edge.shape) <= _MOST_VALUES, node, f"the shape {edge.shape} has more than {_MOST_VALUES} values")
    _need(edge.frac_bits is None or abs(edge.frac_bits) <= _MOST_FRAC, node,
          f"frac_bits must lie in -{_MOST_FRAC}..{_MOST_FRAC}, not {edge.frac_bits}")
    return edge


def infer(node: Node, inputs: Sequence[Edge]) -> Edge:
    """Return the edge that ``node`` makes from ``inputs``.

    Raises
    ------
    ModelError, FormatError
        Shapes, attributes or values that do not go together; integers of 62 bits or more; more than 2**31 values.
    """
    try:
        return _sound(node, _RULES[type(node)](node, *inputs))
    except HwqError:
        raise
    except (TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:      # malformed attributes of a file
        raise ModelError(f"{node.op} '{node.name}': malformed attributes ({error})") from None
