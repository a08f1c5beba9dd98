"""Nodes of the integer IR: frozen dataclasses, named after ONNX and PyTorch. No floats.

Shapes leave the batch out: ``(height, width, channels)``, or ``(features,)`` after `Flatten` and `Linear`.
Every node makes one edge, named like the node. Arrays are int64 and read-only.
"""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from ..formats import Format
from .checks import checked

__all__ = ["Node", "Input", "Conv2d", "Linear", "Add", "Concat", "MaxPool2d", "AvgPool2d", "GlobalAvgPool2d", "Pad",
           "Upsample", "Flatten", "Unflatten", "Permute", "Select", "Requantize", "ArgMax", "TopK", "Output", "NODE_TYPES",
           "Edge"]

Pads = tuple[int, int, int, int]


@dataclass(frozen=True)
class Edge:
    """What is known of the tensor that a node makes.

    Attributes
    ----------
    shape : tuple of int
        ``(height, width, channels)`` or ``(features,)``.
    lo, hi : int
        Exact bounds of every element, from the weights and the input's range.
    frac_bits : int or None
        Real value = integer * 2**-frac_bits; None where the scale is no power of two.
    """

    shape: tuple[int, ...]
    lo: int
    hi: int
    frac_bits: int | None = None


@dataclass(frozen=True, eq=False)
class Node:
    """Base: a unique name (the torch FQN) and the names of the edges it reads.

    Raises
    ------
    ModelError
        An attribute is not of its type (see `hwq.ir.checks`).
    """

    name: str
    inputs: tuple[str, ...]
    arity: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        for f in fields(self):
            what = f.name if f.name == "name" else f"{self.op} {self.name!r}: {f.name}"
            object.__setattr__(self, f.name, checked(getattr(self, f.name), f.type, what))

    @property
    def op(self) -> str:
        """Name of the node's type."""
        return type(self).__name__

    def attributes(self) -> dict[str, Any]:
        """Return all fields but name and inputs."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "inputs")}


@dataclass(frozen=True, eq=False)
class Input(Node):
    """The network's input codes ``lo..hi``."""

    shape: tuple[int, ...] = ()
    lo: int = 0
    hi: int = 255
    frac_bits: int | None = None
    arity: ClassVar[int | None] = 0


@dataclass(frozen=True, eq=False)
class Conv2d(Node):
    """Convolution (cross-correlation): ``out[y,x,o] = bias[o] + sum weight[o,ky,kx,c] * in[y*s+ky*d-top, x*s+kx*d-left, c]``.

    Attributes
    ----------
    weight : int array (out, kh, kw, in/groups)
        Integer values.
    bias : int array (out,)
        At the accumulator's scale.
    weight_format : Format
        Format of the ROM words.
    stride, dilation : (int, int)
        Vertical, horizontal. A dilation along an axis where the kernel has one tap says nothing, and becomes 1.
    pads : (top, left, bottom, right)
        Pixels.
    pad_value : int
        Code that stands outside the image (the zero point of a foreign format).
    groups : int
        Channel groups.
    """

    weight: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.int64))
    bias: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    weight_format: Format | None = None
    stride: tuple[int, int] = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    pad_value: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight.ndim == 4:
            down, right = (1 if taps == 1 and step > 1 else step
                           for taps, step in zip(self.weight.shape[1:3], self.dilation, strict=True))
            object.__setattr__(self, "dilation", (down, right))


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """``out[o] = bias[o] + sum weight[o,i] * in[i]`` on a flat tensor."""

    weight: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    bias: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    weight_format: Format | None = None


@dataclass(frozen=True, eq=False)
class Add(Node):
    """Sum of two tensors of one shape; different scales are aligned by the multipliers."""

    mult: tuple[int, int] = (1, 1)
    arity: ClassVar[int | None] = 2


@dataclass(frozen=True, eq=False)
class Concat(Node):
    """Join along the channels."""

    arity: ClassVar[int | None] = None


@dataclass(frozen=True, eq=False)
class MaxPool2d(Node):
    """Largest element of each window; padding never wins."""

    kernel: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = (2, 2)
    pads: Pads = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class AvgPool2d(Node):
    """SUM over each window (padding counts zero); the division is the following `Requantize`'s."""

    kernel: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = (2, 2)
    pads: Pads = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class GlobalAvgPool2d(Node):
    """SUM over the whole image, shape (1, 1, channels); the division is the following `Requantize`'s."""


@dataclass(frozen=True, eq=False)
class Pad(Node):
    """Border of a constant code; a side below 0 is a crop, rows or columns of the image that go before any border comes."""

    pads: Pads = (0, 0, 0, 0)
    value: int = 0


@dataclass(frozen=True, eq=False)
class Upsample(Node):
    """Nearest-neighbour enlargement by integer factors."""

    factor: tuple[int, int] = (2, 2)


@dataclass(frozen=True, eq=False)
class Flatten(Node):
    """(height, width, channels) to one axis, channels last (not PyTorch's order: frontends permute the weights)."""


@dataclass(frozen=True, eq=False)
class Unflatten(Node):
    """One axis to ``shape``, (height, width, channels), channels last: `Flatten` undone."""

    shape: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Permute(Node):
    """Channels (or features) in another order: ``out[..., i] = in[..., order[i]]``. See `hwq.passes.FoldPermute`."""

    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, eq=False)
class Select(Node):
    """Some of the channels (of a flat tensor its features): ``out[..., i] = in[..., channels[i]]``, ``channels`` ascending."""

    channels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, eq=False)
class Requantize(Node):
    """Accumulator to code, per tensor (arrays of one element) or per channel, in one of two forms.

    `scale` (``thresholds`` empty): see `hwq.arith.scale_shift`. `thresholds`: ``lo + #{k: acc >= thresholds[c, k]}``.

    Attributes
    ----------
    mult, offset : int array (1,) or (channels,)
        Multiplier and offset.
    shift : int
        Right shift in bits.
    lo, hi : int
        Inclusive output range.
    offset_neg : int array (0,), (1,) or (channels,)
        Offset for negative accumulators; empty if one offset serves.
    half_even : bool
        Ties to even; the offset then lacks the half.
    thresholds : int array (0, 0) or (1 or channels, n)
        Ascending per row; ``n = hi - lo``.
    frac_bits : int or None
        Scale of the codes, if a power of two.
    """

    mult: np.ndarray = field(default_factory=lambda: np.ones(1, np.int64))
    offset: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    shift: int = 0
    lo: int = 0
    hi: int = 255
    offset_neg: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    half_even: bool = False
    thresholds: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    frac_bits: int | None = None


@dataclass(frozen=True, eq=False)
class ArgMax(Node):
    """Index of the largest element of a flat tensor; ties go to the lowest index. Shape (1,)."""


@dataclass(frozen=True, eq=False)
class TopK(Node):
    """Indices of the ``k`` largest elements of a flat tensor, largest first; ties go to the lowest index. Shape (k,)."""

    k: int = 1


@dataclass(frozen=True, eq=False)
class Output(Node):
    """The network's result."""


NODE_TYPES: dict[str, type[Node]] = {t.__name__: t for t in (
    Input, Conv2d, Linear, Add, Concat, MaxPool2d, AvgPool2d, GlobalAvgPool2d, Pad, Upsample, Flatten, Unflatten,
    Permute, Select, Requantize, ArgMax, TopK, Output)}
