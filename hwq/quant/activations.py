"""Quantizer of activations: dynamic fixed point, unsigned after a ReLU, signed elsewhere; its scale comes from calibration."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import floor, inf
from typing import Any, cast

import torch

from ..errors import FormatError, ModelError
from ..formats import FixedPoint, Spec
from .grid import Grid, round_half_up_

__all__ = ["ActivationQuantizer", "settle", "float_activations"]

_SEARCH = range(-16, 25)         # values from 2**-24 to 2**24
_PIECE = 1 << 15                 # values


class _Levels(torch.autograd.Function):
    """Nearest level, with the gradient of the clamp: two thirds of the passes over memory that autograd would make."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        scaled = x * 2.0 ** grid.frac_bits
        codes = scaled.clamp(grid.lo, grid.hi)
        ctx.save_for_backward(codes == scaled)
        return round_half_up_(codes).mul_(2.0 ** -grid.frac_bits)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        inside, = ctx.saved_tensors
        return gradients[0] * inside, None


class ActivationQuantizer(torch.nn.Module):
    """Rounds half up to ``2**-frac_bits`` and saturates.

    Until it is calibrated it lets values through (clamped), so that calibration sees them.

    Parameters
    ----------
    spec : Spec
        ``dfp:b=2..8[,fl=N]``; signedness follows from the place.
    signed : bool
        False after a ReLU.
    layer : str
        Name for messages.
    tie : str
        If not empty: quantizers with the same text get one scale from calibration.
    clip : (float, float)
        Ends of a clamp before it, around zero. The codes end at the levels nearest to them, which is the clamp exactly, as rounding
        never falls.

    Raises
    ------
    FormatError
        Another kind, a width outside 2..8, or a signed place for ``udfp``.
    """

    frac_bits: torch.Tensor
    calibrated: torch.Tensor

    def __init__(self, spec: Spec, signed: bool, layer: str, tie: str = "",
                 clip: tuple[float, float] = (-inf, inf)) -> None:
        super().__init__()
        if spec.kind not in ("dfp", "udfp") or spec.narrow or not 2 <= spec.width <= 8:
            raise FormatError(f"Activations behind layer '{layer}' must be dfp:b=2..8[,fl=N], not kind '{spec.kind}' "
                              f"with {spec.width} bits{' (narrow)' if spec.narrow else ''}")
        if spec.rule != "mse" or spec.channel:
            raise FormatError(f"Activations behind layer '{layer}': rule and channel are for weights; accepted: dfp:b=2..8[,fl=N]")
        if spec.kind == "udfp" and signed:
            raise FormatError(f"Activations behind layer '{layer}' can be negative (no ReLU), so udfp cannot hold them; use dfp")
        self.spec, self.signed, self.layer, self.tie, self.clip = spec, signed, layer, tie, clip
        self.register_buffer("frac_bits", torch.tensor(spec.scale or 0, dtype=torch.int64))
        self.register_buffer("calibrated", torch.tensor(spec.scale is not None))
        self._errors: torch.Tensor | None = None
        self.bypass = False

    @property
    def grid(self) -> Grid:
        """The integers it makes."""
        if not bool(self.calibrated):
            raise ModelError(f"Activations behind layer '{self.layer}' have no scale yet: call hwq.quant.calibrate(model, batches)")
        return Grid(*self._codes(int(self.frac_bits)), int(self.frac_bits))

    def _codes(self, frac_bits: int) -> tuple[int, int]:
        """Return the least and the largest code at a scale."""
        lo, hi = FixedPoint(self.spec.width, 0, self.signed).range
        low, high = (min(max(end * 2.0 ** frac_bits, lo), hi) for end in self.clip)
        return floor(low + 0.5), floor(high + 0.5)

    def forget(self) -> None:
        """Let values through again, unless the spec gives the scale."""
        if self.spec.scale is None:
            self.calibrated.fill_(False)
            self._errors = None

    def observe(self) -> None:
        """Forget, and start to collect errors of all scales; `settle` picks the best."""
        self.forget()
        if self.spec.scale is None:
            self._errors = torch.zeros(len(_SEARCH), dtype=torch.float64)

    def _candidates(self, x: torch.Tensor) -> torch.Tensor:
        """Squared error of every scale (float64), in pieces that stay in the cache."""
        errors = torch.zeros(len(_SEARCH), dtype=torch.float64)
        for part in x.flatten().split(_PIECE if x.device.type == "cpu" else x.numel()):
            off = (round_half_up_(part * 2.0 ** fl).clamp_(*self._codes(fl)).mul_(2.0 ** -fl).sub_(part) for fl in _SEARCH)
            errors += torch.stack([each.square_().sum(dtype=torch.float64) for each in off]).cpu()
        return errors

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the quantized reals; the gradient passes where the value did not saturate."""
        if self.bypass or not bool(self.calibrated):
            if not self.signed:
                x = torch.relu(x)
            if self.clip not in ((0, inf), (-inf, inf)):
                x = x.clamp(*self.clip)
            if self._errors is not None:
                self._errors += self._candidates(x.detach())
            return x
        return cast(torch.Tensor, _Levels.apply(x, self.grid))


def settle(quantizers: Sequence[ActivationQuantizer]) -> None:
    """Give all the one scale with the least squared error of what they saw since ``observe`` (ties: the coarser)."""
    errors = [quantizer._errors for quantizer in quantizers if quantizer._errors is not None]
    if errors:
        best = _SEARCH[int(torch.stack(errors).sum(0).argmin())]
        for quantizer in quantizers:
            quantizer.frac_bits.fill_(best)
            quantizer.calibrated.fill_(True)
            quantizer._errors = None


@contextmanager
def float_activations(model: torch.nn.Module) -> Iterator[None]:
    """Let a frozen model compute with its quantized weights but unrounded activations; for comparison, no hardware does so.

    Inside, the model is in training mode (on reals); give no gradients. The mode is restored.
    """
    training, quantizers = model.training, [m for m in model.modules() if isinstance(m, ActivationQuantizer)]
    model.train()
    for quantizer in quantizers:
        quantizer.bypass = True
    try:
        yield
    finally:
        for quantizer in quantizers:
            quantizer.bypass = False
        model.train(training)
