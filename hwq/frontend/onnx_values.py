"""What a tensor of an ONNX graph is during import: a constant, or a real-valued view of an integer edge."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from ..errors import ModelError

__all__ = ["Const", "View", "ULP", "fractions_of", "MAX_CONST_BITS"]

ULP = 2.0 ** -24
MAX_CONST_BITS = 16


@dataclass(frozen=True, eq=False)
class Const:
    """A constant.

    Attributes
    ----------
    value : array
        As a float executor holds it.
    ints : int64 array or None
        Integers, and ``scale`` (float64, as many axes, broadcasts) with ``real = ints * scale`` exactly, if it went through a
        quantizer.
    """

    value: np.ndarray
    ints: np.ndarray | None = None
    scale: np.ndarray | None = None

    def reals(self) -> np.ndarray:
        """Return the exact values as an object array of Fraction."""
        if self.ints is None or self.scale is None:
            return fractions_of(self.value)
        product = fractions_of(self.ints) * np.broadcast_to(fractions_of(self.scale), self.ints.shape)
        return np.asarray(product, object).reshape(self.ints.shape)        # of no axes, the product is no array

    def moved(self, function) -> "Const":
        """Return the constant with its axes moved: the same function of the value, the integers and the scale."""
        if self.ints is None or self.scale is None:
            return Const(function(self.value))
        return Const(function(self.value), function(self.ints), function(np.broadcast_to(self.scale, self.ints.shape)))

    def codes(self, what: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the integers and their scale (float64, same shape), or refuse values that are on no grid of up to 16 bits."""
        if self.ints is not None and self.scale is not None:
            return self.ints, np.broadcast_to(self.scale, self.ints.shape)
        value = self.value.astype(np.float64)
        peak = float(np.abs(value).max(initial=0.0))
        for bits in range(-16, 33):
            scaled = value * 2.0 ** bits
            if peak * 2.0 ** bits >= 1 << MAX_CONST_BITS:
                break
            if (scaled == np.rint(scaled)).all():
                return scaled.astype(np.int64), np.full(value.shape, 2.0 ** -bits)
        raise ModelError(f"{what} are floating point without a quantizer, and lie on no grid of up to "
                         f"{MAX_CONST_BITS} bits; quantize them")


def fractions_of(values: np.ndarray) -> np.ndarray:
    """Return an object array of exact rationals."""
    flat = [Fraction(v) for v in np.asarray(values).reshape(-1).tolist()]
    result = np.empty(len(flat), object)
    result[:] = flat
    return result.reshape(np.shape(values))


@dataclass(frozen=True, eq=False)
class View:
    """A tensor of reals on an integer edge: ``y = scale[c] * edge[..., c] + shift[c]``, then ``clip(y or slope[c] * y, lo, hi)``.

    Attributes
    ----------
    edge : str or None
        Name of the edge; None for a float input that no quantizer has read yet.
    dims : tuple of (int, int or None)
        Of each axis behind the batch: its size, and the axis of the edge that it is (None: an axis of size 1 that the edge lacks).
    scale, shift : tuple of Fraction
        One, or one for each channel of the edge's last axis.
    slope : tuple of Fraction
        Of a LeakyRelu or PRelu that no quantizer has taken up yet, none negative: one, or one for each channel.
    lo, hi : Fraction or None
        Clip that no quantizer has taken up yet.
    order : int array or None
        Where the elements stand in another order: place in the tensor to place in the edge. Of a flat edge, or of a tensor whose
        axes are none of the edge's, see `scattered`.
    error : tuple of float
        Bound of what a float32 executor may be off, one or one for each channel.
    integer : bool
        The tensor holds codes (of a QuantizeLinear), not reals.
    """

    edge: str | None
    dims: tuple[tuple[int, int | None], ...]
    scale: tuple[Fraction, ...] = (Fraction(1),)
    shift: tuple[Fraction, ...] = (Fraction(0),)
    slope: tuple[Fraction, ...] = (Fraction(1),)
    lo: Fraction | None = None
    hi: Fraction | None = None
    order: np.ndarray | None = None
    error: tuple[float, ...] = (0.0,)
    integer: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape, batch included."""
        return (1, *(size for size, _ in self.dims))

    @property
    def scattered(self) -> bool:
        """Whether ``order`` alone says where elements stand, no axis is the edge's: between a Reshape and what reads an image."""
        return self.order is not None and bool(self.dims) and all(axis is None for _, axis in self.dims)

    @property
    def clipped(self) -> bool:
        """Whether a clip is pending."""
        return self.lo is not None or self.hi is not None

    @property
    def leaky(self) -> bool:
        """Whether a slope for negative values is pending that the clip does not hide."""
        return any(s != 1 for s in self.slope) and (self.lo is None or self.lo < 0)

    def limited(self, x: np.ndarray) -> np.ndarray:
        """Return reals (..., channels) with what is pending done to them."""
        if self.leaky:
            x = np.where(x < 0, x * np.array([float(s) for s in self.slope]), x)
        low, high = -np.inf if self.lo is None else float(self.lo), np.inf if self.hi is None else float(self.hi)
        return np.clip(x, low, high) if self.clipped else x

    def but(self, **changes) -> "View":
        """Return a copy with other fields."""
        return replace(self, **changes)

    def per_channel(self, channels: int) -> "View":
        """Return the view with one scale and shift for each channel."""
        return self.but(scale=_spread(self.scale, channels), shift=_spread(self.shift, channels),
                        slope=_spread(self.slope, channels), error=_spread(self.error, channels))

    def uniform(self) -> "View":
        """Return the view with one scale, shift, slope and error where all channels have the same."""
        return self.but(scale=_gather(self.scale), shift=_gather(self.shift), slope=_gather(self.slope), error=(max(self.error),))


def _spread(values: Sequence, channels: int) -> tuple:
    return tuple(values) if len(values) == channels else tuple(values) * channels


def _gather(values: tuple) -> tuple:
    return values[:1] if all(v == values[0] for v in values) else values
