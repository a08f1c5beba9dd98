"""Quantization regularizers: QR pulls every weight to its nearest level, weighted QR (WQR) pulls large ones harder.

With q the nearest level (a constant for the gradient) and w the weight that stands in the ROM (folded, where the batch
norm is):

    QR  = strength * sum |w - q|**norm          WQR = strength * sum |w| * |w - q|**norm

A penalty is added to any loss, ``loss + penalty(model)``, or works as a proximal step behind the optimizer's.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from ..errors import ModelError
from .config import Penalty
from .model import QuantizedModel

__all__ = ["SCHEDULES", "LevelPenalty", "ProximalPenalty", "make_penalty", "project"]

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "linear": lambda t: t,
    "exponential": lambda t: 10.0 ** (3.0 * (t - 1.0)),              # from a thousandth to the whole
    "cosine": lambda t: 0.5 * (1.0 - math.cos(math.pi * t)),
}


class LevelPenalty:
    """QR or WQR as a term of the loss.

    Parameters
    ----------
    spec : Penalty
        Kind, strength, norm, normalization and schedule.

    Attributes
    ----------
    progress : float
        Share of the training that is done, 0..1: the schedule's time. `hwq.quant.fit` sets it; own loops may.
    """

    def __init__(self, spec: Penalty) -> None:
        self.spec = spec
        self.progress = 1.0

    @property
    def strength(self) -> float:
        """Strength at this moment."""
        return self.spec.strength * SCHEDULES[self.spec.schedule](min(1.0, max(0.0, self.progress)))

    def _scale(self, model: QuantizedModel, weight: torch.Tensor) -> float:
        if self.spec.normalize == "sum":
            return 1.0
        if self.spec.normalize == "layer":
            return 1.0 / weight.numel()
        return 1.0 / sum(stage.weight.numel() for stage in model.weighted)

    def _own(self, model: nn.Module) -> QuantizedModel:
        if not isinstance(model, QuantizedModel):
            raise ModelError(f"A penalty on levels needs what hwq.quant.prepare returns, not a {type(model).__name__}")
        return model

    def value(self, model: nn.Module) -> torch.Tensor:
        """Return the term, a scalar with a gradient."""
        model = self._own(model)
        total = torch.zeros((), device=model.frozen.device)
        for stage in model.weighted:
            distance = (stage.weight - stage.quantizer.levels(stage.weight)).abs() ** self.spec.norm
            if self.spec.kind == "wqr":
                distance = distance * stage.weight.abs()
            total = total + distance.sum() * self._scale(model, stage.weight)
        return total * self.strength

    def __call__(self, model: nn.Module) -> torch.Tensor:
        """Return what is added to the loss."""
        return self.value(model)

    def after_step(self, model: nn.Module, lr: float) -> None:
        """Called after every step of the optimizer; nothing to do."""


class ProximalPenalty(LevelPenalty):
    """The same penalty as a proximal step: adds nothing to the loss, moves the weights after the optimizer did.

    L1: the distance shrinks by ``lr * strength`` but not below zero; L2: it is divided by ``1 + 2 * lr * strength``. For WQR
    the strength of each weight is multiplied by its magnitude before the step.
    """

    def __call__(self, model: nn.Module) -> torch.Tensor:
        """Return zero."""
        return torch.zeros((), device=self._own(model).frozen.device)

    @torch.no_grad()
    def after_step(self, model: nn.Module, lr: float) -> None:
        """Move every weight towards its level."""
        model = self._own(model)
        for stage in model.weighted:
            weight = stage.weight
            levels = stage.quantizer.levels(weight)
            force = lr * self.strength * self._scale(model, weight) * (weight.abs() if self.spec.kind == "wqr"
                                                                       else torch.ones_like(weight))
            distance = weight - levels
            if self.spec.norm == 1:
                moved = torch.sign(distance) * (distance.abs() - force).clamp(min=0.0)
            else:
                moved = distance / (1.0 + 2.0 * force)
            weight.copy_(levels + moved)


def make_penalty(spec: Penalty) -> LevelPenalty | None:
    """Return the penalty of a recipe's ``[penalty]`` table, or None where it is off."""
    if spec.kind == "none":
        return None
    return ProximalPenalty(spec) if spec.proximal else LevelPenalty(spec)


@torch.no_grad()
def project(model: QuantizedModel) -> None:
    """Set every weight to its level, in place: what float weights trained under a penalty end with."""
    for stage in model.weighted:
        stage.weight.copy_(stage.quantizer.levels(stage.weight))
