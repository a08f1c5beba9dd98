"""Quantizers of weights by kind of format: a registry, one class a kind. They differ in levels, not in how they are used."""

import torch

from ..errors import FormatError, ModelError
from ..formats import FixedPoint, Format, Spec
from .grid import round_half_up

__all__ = ["WeightQuantizer", "FixedPointWeights", "WEIGHT_QUANTIZERS", "weight_quantizer", "best_frac_bits",
           "check_finite"]


def best_frac_bits(x: torch.Tensor, lo: int, hi: int) -> int:
    """Return the ``frac_bits`` whose codes ``lo..hi`` have the least squared error on ``x`` (ties: the smaller).

    Searched from one bit coarser than what holds the largest magnitude up to eight bits finer; the error has one
    valley there, since beyond it nearly everything saturates.
    """
    x = x.detach().to(torch.float64).flatten()
    largest = float(x.abs().max()) if x.numel() else 0.0
    if largest == 0.0:
        return 0
    start = int(torch.floor(torch.log2(torch.tensor(max(abs(lo), hi) / largest, dtype=torch.float64))))
    errors = {}
    for fl in range(start - 1, start + 9):
        codes = round_half_up(x * 2.0 ** fl).clamp(lo, hi)
        errors[fl] = float((x - codes * 2.0 ** -fl).square().sum())
    return min(errors, key=lambda fl: (errors[fl], fl))


class WeightQuantizer(torch.nn.Module):
    """Base: turns real weights into levels of a format whose scale is a buffer.

    A new kind of format is a subclass with `choose`, `codes` and `format`, and a line in `WEIGHT_QUANTIZERS`.
    """

    scale: torch.Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("scale", torch.tensor(spec.scale or 0, dtype=torch.int64))

    def choose(self, weight: torch.Tensor) -> None:
        """Set the scale from the data, unless the spec gives it."""
        raise NotImplementedError

    def codes(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the integer values, float64."""
        raise NotImplementedError

    def format(self) -> Format:
        """Return the format with its scale."""
        return self.spec.resolve(int(self.scale))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the levels as reals; the gradient passes straight through, also where weights saturate."""
        with torch.no_grad():
            levels = (self.codes(weight) * 2.0 ** -self.format().frac_bits).to(weight.dtype)
        return weight + (levels - weight).detach()


class FixedPointWeights(WeightQuantizer):
    """Signed dynamic fixed point, full or narrow range: code = clamp(floor(w * 2**fl + 0.5))."""

    def choose(self, weight: torch.Tensor) -> None:
        """See `WeightQuantizer.choose`: least squared error."""
        if self.spec.scale is None:
            lo, hi = self._fixed().range
            self.scale.fill_(best_frac_bits(weight, lo, hi))

    def _fixed(self) -> FixedPoint:
        made = self.format()
        assert isinstance(made, FixedPoint)
        return made

    def codes(self, weight: torch.Tensor) -> torch.Tensor:
        """See `WeightQuantizer.codes`; in float64, where the rounding is exact for float32 weights."""
        lo, hi = self._fixed().range
        return round_half_up(weight.detach().to(torch.float64) * 2.0 ** int(self.scale)).clamp(lo, hi)


WEIGHT_QUANTIZERS: dict[str, type[WeightQuantizer]] = {"dfp": FixedPointWeights}
_LATER = {"po2": "the search over formats", "bipolar": "the search over formats"}


def weight_quantizer(spec: Spec, layer: str) -> WeightQuantizer:
    """Return the quantizer of a spec.

    Raises
    ------
    FormatError
        A kind that cannot be trained; the message names the layer and what is accepted.
    """
    kind = WEIGHT_QUANTIZERS.get(spec.kind)
    if kind is None:
        why = f"comes with {_LATER[spec.kind]}" if spec.kind in _LATER else "is no format of weights"
        raise FormatError(f"Layer '{layer}': weights of the kind '{spec.kind}' cannot be trained: this kind {why}; "
                          f"accepted now: {', '.join(WEIGHT_QUANTIZERS)} (dfp:b=2..16[,fl=N][,narrow])")
    return kind(spec)


def check_finite(weight: torch.Tensor | None, layer: str, what: str = "weight") -> None:
    """Raise `ModelError` if a tensor holds NaN or infinity."""
    if weight is not None and not bool(torch.isfinite(weight).all()):
        bad = int((~torch.isfinite(weight)).sum())
        raise ModelError(f"Layer '{layer}': {bad} of {weight.numel()} values of its {what} are NaN or infinite; "
                         "train it again with a smaller learning rate, or load sound weights")
