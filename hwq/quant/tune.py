"""Fine-tuning of a prepared network: scales follow the weights, then freeze; a penalty may pull at the weights."""

from collections.abc import Callable
from typing import Any

import torch

from .calibration import calibrate, freeze
from .config import Penalty, Phase
from .model import QuantizedModel
from .penalty import make_penalty, project
from .train import Samples, fit

__all__ = ["tune"]


def _scales(model: QuantizedModel, batches: list[torch.Tensor], until: int) -> Callable[[int], None]:
    def before_epoch(epoch: int) -> None:
        if epoch < max(1, until) and not bool(model.frozen):
            calibrate(model, batches)
        if epoch >= until and not bool(model.frozen):
            if model.batchnorms:
                model.fix_scales()                     # few bits and running statistics together diverge: freeze at the end
            else:
                freeze(model)
    return before_epoch


def tune(model: QuantizedModel, samples: Samples, phase: Phase, *, penalty: Penalty | None = None, calibration: int = 512,
         **options: Any) -> list[dict[str, Any]]:
    """Fine-tune ``model`` in place and freeze it.

    Parameters
    ----------
    penalty : Penalty, optional
        With ``forward = "float"`` the weights are rounded only in evaluation and, for good, at the end.
    calibration : int
        Training images that calibrate the activations.
    options
        For `hwq.quant.fit`: seed, device, checkpoint, resume, teacher, report.

    Returns
    -------
    list of dict
        See `hwq.quant.fit`; empty where ``phase.epochs`` is 0: then the model is only calibrated.
    """
    penalty = penalty or Penalty()
    model.to(options.get("device", "cpu"))
    device = model.frozen.device
    batches = [samples.inputs[index].to(device) for index in samples.train[:calibration].split(256)]
    model.float_weights = penalty.forward == "float"
    try:
        log = fit(model, samples, phase, penalty=make_penalty(penalty), before_epoch=_scales(model, batches, phase.calibrate_until),
                  **options)
    finally:
        model.float_weights = False
    if not bool(model.frozen):
        if not log:
            calibrate(model, batches)
        freeze(model)
    if penalty.forward == "float":
        project(model)
    return log
