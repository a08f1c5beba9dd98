"""Quantizer of activations: dynamic fixed point, unsigned after a ReLU, signed elsewhere; its scale comes from calibration."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import FormatError, ModelError
from ..formats import FixedPoint, Spec
from .grid import Grid, round_half_up

__all__ = ["ActivationQuantizer", "float_activations"]

_SEARCH = range(-16, 25)         # values from 2**-24 to 2**24


class ActivationQuantizer(torch.nn.Module):
    """Rounds half up to ``2**-frac_bits`` and saturates.

    Until it is calibrated it lets values through (ReLU included), so that calibration sees them.

    Parameters
    ----------
    spec : Spec
        ``dfp:b=2..8[,fl=N]``; signedness follows from the place.
    signed : bool
        False after a ReLU.
    layer : str
        Name for messages.

    Raises
    ------
    FormatError
        Another kind, a width outside 2..8, or a signed place for ``udfp``.
    """

    frac_bits: torch.Tensor
    calibrated: torch.Tensor

    def __init__(self, spec: Spec, signed: bool, layer: str) -> None:
        super().__init__()
        if spec.kind not in ("dfp", "udfp") or spec.narrow or not 2 <= spec.width <= 8:
            raise FormatError(f"Activations behind layer '{layer}' must be dfp:b=2..8[,fl=N], not kind '{spec.kind}' "
                              f"with {spec.width} bits{' (narrow)' if spec.narrow else ''}")
        if spec.rule != "mse" or spec.channel:
            raise FormatError(f"Activations behind layer '{layer}': rule and channel are for weights; accepted: dfp:b=2..8[,fl=N]")
        if spec.kind == "udfp" and signed:
            raise FormatError(f"Activations behind layer '{layer}' can be negative (no ReLU), so udfp cannot hold them; use dfp")
        self.spec, self.signed, self.layer = spec, signed, layer
        self.register_buffer("frac_bits", torch.tensor(spec.scale or 0, dtype=torch.int64))
        self.register_buffer("calibrated", torch.tensor(spec.scale is not None))
        self._errors: torch.Tensor | None = None
        self.bypass = False

    @property
    def grid(self) -> Grid:
        """The integers it makes."""
        if not bool(self.calibrated):
            raise ModelError(f"Activations behind layer '{self.layer}' have no scale yet: call hwq.quant.calibrate(model, batches)")
        lo, hi = FixedPoint(self.spec.width, 0, self.signed).range
        return Grid(lo, hi, int(self.frac_bits))

    def observe(self) -> None:
        """Start to collect errors of all scales; `settle` picks the best."""
        if self.spec.scale is None:
            self.calibrated.fill_(False)
            self._errors = torch.zeros(len(_SEARCH), dtype=torch.float64)

    def settle(self) -> None:
        """Take the scale with the least squared error of what was seen since `observe` (ties: the coarser)."""
        if self._errors is not None:
            self.frac_bits.fill_(_SEARCH[int(self._errors.argmin())])
            self.calibrated.fill_(True)
            self._errors = None

    def _candidates(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        lo, hi = FixedPoint(self.spec.width, 0, self.signed).range
        for fl in _SEARCH:
            yield (x - round_half_up(x * 2.0 ** fl).clamp_(lo, hi) * 2.0 ** -fl).square().sum(dtype=torch.float64).cpu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the quantized reals; the gradient passes where the value did not saturate."""
        if self.bypass or not bool(self.calibrated):
            if not self.signed:
                x = torch.relu(x)
            if self._errors is not None:
                self._errors += torch.stack(list(self._candidates(x.detach())))
            return x
        grid = self.grid
        step = 2.0 ** -grid.frac_bits
        inside = x.clamp(grid.lo * step, grid.hi * step)
        levels = round_half_up(inside.detach() * 2.0 ** grid.frac_bits) * step
        return inside + (levels - inside).detach()


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
