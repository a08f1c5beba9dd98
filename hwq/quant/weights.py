"""Quantizers of weights by kind of format: a registry, one class a kind. They differ in levels, not in how they are used.

The scale of a layer, or of every output channel, is a power of two. It is given, or follows one of three rules: ``mse``
(least squared error), ``range`` (the largest weight decides, as was usual when the paper appeared), ``learned``
(starts at ``mse``, then trained by its gradient until the model is frozen).
"""

import math

import numpy as np
import torch

from ..errors import FormatError, ModelError
from ..formats import Format, Spec
from .grid import round_half_up

__all__ = ["WeightQuantizer", "FixedPointWeights", "PowerOfTwoWeights", "BipolarWeights", "WEIGHT_QUANTIZERS", "weight_quantizer",
           "check_finite", "power_of_two"]

_SPREAD = 8                      # so many bits finer than the coarsest channel's scale another one's may be
_FINER = range(-1, 13)           # scales tried, from one step coarser than what holds the largest weight


def power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    """Return ``2**exponent`` of integers, exactly, float64 (torch's pow promises no exactness)."""
    return torch.from_numpy(np.asarray(np.ldexp(1.0, exponent.cpu().numpy()))).to(exponent.device)


class WeightQuantizer(torch.nn.Module):
    """Base: turns real weights into levels of a format whose scale is a buffer.

    A new kind of format is a subclass and a line in `WEIGHT_QUANTIZERS`.

    Parameters
    ----------
    spec : Spec
        Kind, width, and how the scale is chosen.
    channels : int
        Output channels of the layer, axis 0 of its weights; used where the spec asks for a scale per channel.
    """

    scale: torch.Tensor
    learning: torch.Tensor
    finer = 1                    # +1 where a larger scale means finer levels (fl), -1 where coarser (emax)

    def __init__(self, spec: Spec, channels: int) -> None:
        super().__init__()
        self.spec = spec
        shape = (channels,) if spec.channel else ()
        self.register_buffer("scale", torch.full(shape, spec.scale or 0, dtype=torch.int64))
        self.exponent: torch.nn.Parameter | None = None
        if spec.rule == "learned":
            self.exponent = torch.nn.Parameter(torch.zeros(shape))
            self.register_buffer("learning", torch.tensor(False))

    # What a kind defines ------------------------------------------------------------------------------------------------

    def _codes(self, w: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Integer values of float64 weights for scales that broadcast."""
        raise NotImplementedError

    def _frac_bits(self, scale: torch.Tensor) -> torch.Tensor:
        """Binary digits after the point of the integer values."""
        return scale

    def _start(self, largest: torch.Tensor) -> torch.Tensor:
        """Scale of about the largest magnitude, from which to search."""
        raise NotImplementedError

    def _range_rule(self, largest: torch.Tensor) -> torch.Tensor:
        """Scale by the range rule."""
        raise NotImplementedError

    # What is the same for all -------------------------------------------------------------------------------------------

    def _wide(self, per_scale: torch.Tensor, ndim: int) -> torch.Tensor:
        return per_scale.view(-1, *[1] * (ndim - 1)) if per_scale.ndim else per_scale

    @property
    def frac_bits(self) -> torch.Tensor:
        """Binary digits after the point of the integer values: int64, () or (channels,)."""
        return self._frac_bits(self.scale)

    def format(self) -> Format:
        """Return the format with its scale; with a scale per channel the finest one."""
        return self.spec.resolve(int(self.scale.max() if self.finer > 0 else self.scale.min()))

    def choose(self, weight: torch.Tensor) -> None:
        """Set the scale from the data, unless the spec gives it or it is being learned."""
        if self.spec.scale is not None or (self.exponent is not None and bool(self.learning)):
            return
        w = weight.detach().to(torch.float64)
        rows = w.flatten(1) if self.spec.channel else w.flatten()[None]
        largest = rows.abs().amax(1) if rows.numel() else rows.new_zeros(len(rows))
        safe = torch.where(largest > 0, largest, torch.ones_like(largest))
        chosen = self._range_rule(safe) if self.spec.rule == "range" else self._least_error(rows, self._start(safe))
        if bool((largest > 0).any()):                      # dead channels must not ask for multipliers without end
            fine = chosen * self.finer
            coarsest = fine[largest > 0].min()
            chosen = torch.where(largest > 0, fine, coarsest).clamp(max=int(coarsest) + _SPREAD) * self.finer
        else:
            chosen = torch.zeros_like(chosen)
        self.scale.copy_(chosen.view_as(self.scale))
        if self.exponent is not None:
            self.exponent.data.copy_(self.scale)
            self.learning.fill_(True)

    def _least_error(self, rows: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """Scale of each row with the least squared error (ties: the coarser). The error has one valley."""
        tried = [start + self.finer * step for step in _FINER]
        errors = []
        for scale in tried:
            levels = self._codes(rows, scale[:, None]) * power_of_two(-self._frac_bits(scale))[:, None]
            errors.append((rows - levels).square().sum(1))
        return torch.stack(tried).gather(0, torch.stack(errors).argmin(0)[None])[0]

    def fix(self) -> None:
        """End learning: the scale stays what it is."""
        if self.exponent is not None:
            self.learning.fill_(False)

    def codes(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the integer values, float64; the rounding is exact for float32 weights."""
        return self._codes(weight.detach().to(torch.float64), self._wide(self.scale, weight.ndim))

    def levels(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the nearest levels as reals, in the weights' type; no gradient."""
        with torch.no_grad():
            return (self.codes(weight) * power_of_two(-self._wide(self.frac_bits, weight.ndim))).to(weight.dtype)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the levels as reals; the gradient passes straight through, also where weights saturate."""
        learns = self.exponent is not None and bool(self.learning)
        if learns:
            assert self.exponent is not None
            self.scale.copy_(round_half_up(self.exponent.detach()))
        levels = self.levels(weight)
        result = weight + (levels - weight).detach()
        return result + self._slope(weight, levels) if learns else result

    def _slope(self, weight: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """Zero with the gradient of the levels by the exponent (rounding passes straight through, as in LSQ)."""
        assert self.exponent is not None
        lo, hi = (end * power_of_two(-self._wide(self.frac_bits, weight.ndim)).to(weight.dtype) for end in self.format().range)
        with torch.no_grad():
            inside = (weight >= lo) & (weight <= hi) & (self.spec.kind != "bipolar")     # one bit: only the size follows
            slope = -self.finer * math.log(2) * torch.where(inside, levels - weight, levels)
            slope = slope / math.sqrt(weight.numel() / max(1, self.exponent.numel()) * self.format().range[1])
        return self._wide(self.exponent - self.exponent.detach(), weight.ndim) * slope


def _ceil_log2(x: torch.Tensor) -> torch.Tensor:
    mantissa, exponent = torch.frexp(x)
    return (exponent - (mantissa == 0.5).to(exponent)).to(torch.int64)


class FixedPointWeights(WeightQuantizer):
    """Signed dynamic fixed point, full or narrow range: code = clamp(floor(w * 2**fl + 0.5)).

    Range rule: ``fl = b - 1 - ceil(log2 max|w|)``, as in Ristretto; the largest weight may still saturate.
    """

    def _codes(self, w: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return round_half_up(w * power_of_two(scale)).clamp(*self.spec.resolve(0).range)

    def _start(self, largest: torch.Tensor) -> torch.Tensor:
        lo, hi = self.spec.resolve(0).range
        return torch.floor(torch.log2(max(-lo, hi) / largest)).to(torch.int64)

    def _range_rule(self, largest: torch.Tensor) -> torch.Tensor:
        return self.spec.width - 1 - _ceil_log2(largest)


class PowerOfTwoWeights(WeightQuantizer):
    """Zero and powers of two; the nearest level in the linear domain: zero below half the least, up from 1.5 * 2**e (ties too).

    Range rule: ``max_exp = floor(log2(4/3 * max|w|))``, as in INQ.
    """

    finer = -1

    @property
    def _steps(self) -> int:
        return (1 << (self.spec.width - 1)) - 2

    def _codes(self, w: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        units = w.abs() * power_of_two(self._steps - scale)              # the smallest level is 1
        mantissa, exponent = torch.frexp(units)
        k = (exponent - 1 + (mantissa >= 0.75).to(exponent)).clamp(0, self._steps)
        return torch.where(units >= 0.5, power_of_two(k) * torch.sign(w), torch.zeros_like(w))

    def _frac_bits(self, scale: torch.Tensor) -> torch.Tensor:
        return self._steps - scale

    def _start(self, largest: torch.Tensor) -> torch.Tensor:
        return _ceil_log2(largest)

    def _range_rule(self, largest: torch.Tensor) -> torch.Tensor:
        _, exponent = torch.frexp(largest * 4 / 3)
        return exponent.to(torch.int64) - 1


class BipolarWeights(WeightQuantizer):
    """One bit: +1 where w >= 0, else -1, times ``2**-fl``. Range rule: the largest weight, rounded up to a power of two."""

    def _codes(self, w: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return torch.where(w >= 0, 1.0, -1.0).to(w.dtype)

    def _start(self, largest: torch.Tensor) -> torch.Tensor:
        return -_ceil_log2(largest)

    def _range_rule(self, largest: torch.Tensor) -> torch.Tensor:
        return -_ceil_log2(largest)


WEIGHT_QUANTIZERS: dict[str, type[WeightQuantizer]] = {
    "dfp": FixedPointWeights, "po2": PowerOfTwoWeights, "bipolar": BipolarWeights}


def weight_quantizer(spec: Spec, layer: str, channels: int = 1) -> WeightQuantizer:
    """Return the quantizer of a spec for a layer of so many output channels.

    Raises
    ------
    FormatError
        A kind that holds no weights; the message names the layer and what is accepted.
    """
    kind = WEIGHT_QUANTIZERS.get(spec.kind)
    if kind is None:
        raise FormatError(f"Layer '{layer}': '{spec.kind}' is no format of weights; accepted: {', '.join(WEIGHT_QUANTIZERS)}")
    return kind(spec, channels)


def check_finite(weight: torch.Tensor | None, layer: str, what: str = "weight") -> None:
    """Raise `ModelError` if a tensor holds NaN or infinity."""
    if weight is not None and not bool(torch.isfinite(weight).all()):
        bad = int((~torch.isfinite(weight)).sum())
        raise ModelError(f"Layer '{layer}': {bad} of {weight.numel()} values of its {what} are NaN or infinite; "
                         "train it again with a smaller learning rate, or load sound weights")
