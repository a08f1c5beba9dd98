"""Fake quantizers: real-valued tensors that take only a format's levels, with straight-through gradients."""

from collections.abc import Callable

import torch

from ..errors import FormatError, ModelError
from ..formats import FixedPoint, Spec

__all__ = ["quantize", "best_frac_bits", "WeightQuantizer", "ActivationQuantizer", "WEIGHT_KINDS"]


def quantize(x: torch.Tensor, fmt: FixedPoint) -> torch.Tensor:
    """Round half up to ``2**-frac_bits`` and saturate; the gradient passes inside the range (straight-through)."""
    scale = 2.0 ** fmt.frac_bits
    lo, hi = fmt.range
    clipped = torch.clamp(x, lo / scale, hi / scale)
    rounded = torch.clamp(torch.floor(x.detach() * scale + 0.5), lo, hi) / scale
    return clipped + (rounded - clipped).detach()


def best_frac_bits(x: torch.Tensor, spec: Spec) -> int:
    """Return the ``frac_bits`` with the least mean squared error on ``x`` (SAWB-free, full search of 8 candidates)."""
    top = float(x.detach().abs().max())
    if top == 0:
        return spec.width
    start = spec.width - (1 if spec.kind == "dfp" else 0) - int(torch.ceil(torch.log2(torch.tensor(top))))
    errors = {}
    for frac in range(start - 1, start + 7):
        fmt = spec.resolve(frac)
        assert isinstance(fmt, FixedPoint)
        errors[frac] = float((quantize(x.detach(), fmt) - x.detach()).square().mean())
    return min(errors, key=lambda frac: errors[frac])


class WeightQuantizer(torch.nn.Module):
    """DFP weights of one layer; ``frac_bits`` by MSE unless the spec gives it, kept up to date until frozen."""

    def __init__(self, layer: str, spec: Spec, weight: torch.Tensor):
        super().__init__()
        if not torch.isfinite(weight).all():
            raise ModelError(f"Layer '{layer}': the weights hold NaN or infinite values; train it again")
        self.layer, self.spec = layer, spec
        self.register_buffer("frac_bits", torch.tensor(spec.scale if spec.scale is not None else best_frac_bits(weight, spec)))

    @property
    def format(self) -> FixedPoint:
        """The format in force."""
        fmt = self.spec.resolve(int(self.frac_bits))
        assert isinstance(fmt, FixedPoint)
        return fmt

    def refresh(self, weight: torch.Tensor) -> None:
        """Choose ``frac_bits`` again for the weights as they are now."""
        if self.spec.scale is None:
            self.frac_bits.fill_(best_frac_bits(weight, self.spec))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return quantize(weight, self.format)


class ActivationQuantizer(torch.nn.Module):
    """DFP activations of one edge; passes everything until `hwq.quant.calibrate` has chosen ``frac_bits``."""

    def __init__(self, name: str, spec: Spec):
        super().__init__()
        if not 2 <= spec.width <= 8 or spec.kind not in ("dfp", "udfp"):
            raise FormatError(f"Activation '{name}': format must be dfp of 2..8 bits, not {spec}")
        self.name, self.spec = name, spec
        self.register_buffer("frac_bits", torch.tensor(spec.scale or 0))
        self.register_buffer("ready", torch.tensor(spec.scale is not None))
        self.seen: list[torch.Tensor] | None = None      # samples while calibrating

    @property
    def format(self) -> FixedPoint:
        """The format in force; `ModelError` before calibration."""
        if not bool(self.ready):
            raise ModelError(f"Activation '{self.name}' has no format yet: call hwq.quant.calibrate(model, batches) first")
        fmt = self.spec.resolve(int(self.frac_bits))
        assert isinstance(fmt, FixedPoint)
        return fmt

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.seen is not None:
            self.seen.append(x.detach().flatten()[:: max(1, x.numel() // 20_000)])
        return quantize(x, self.format) if bool(self.ready) else x


WEIGHT_KINDS: dict[str, Callable[..., WeightQuantizer]] = {"dfp": WeightQuantizer}
