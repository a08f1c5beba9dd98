"""Choose the scales from data, and fix them."""

from collections.abc import Iterable, Sequence

import torch

from ..errors import ModelError
from .activations import ActivationQuantizer, settle
from .model import QuantizedModel

__all__ = ["calibrate", "freeze"]


def calibrate(model: QuantizedModel, batches: Iterable[torch.Tensor]) -> None:
    """Choose every scale that the specs leave open: weights, then activations from front to back, by squared error.

    A layer's activations are observed with everything before it already quantized; those that are concatenated are observed
    together, for they share a scale. May be called again while training
    (scales follow the weights) until `freeze`.

    Parameters
    ----------
    model : QuantizedModel
        Its mode is kept; nothing is trained.
    batches : iterable of tensor, or of (inputs, ...) as a DataLoader gives them
        Inputs as torch is fed: multiples of the input's step, see `hwq.quant.InputSpec.tensor`. Some hundred images are
        enough. Read once.

    Raises
    ------
    ModelError
        The model is frozen, there are no batches, or the hardware could not receive their values.
    """
    _require(model)
    if bool(model.frozen):
        raise ModelError("The model is frozen: its scales can no longer be calibrated")
    inputs = [_inputs(model, batch) for batch in batches]
    if not inputs:
        raise ModelError("Calibration needs at least one batch of inputs")
    training, float_weights = model.training, model.float_weights
    model.float_weights = False                            # what the hardware computes counts
    observers = [module for module in model.modules() if isinstance(module, ActivationQuantizer)]
    model.train()
    for norm in model.batchnorms:
        norm.eval()
    try:
        for stage in model.weighted:
            stage.quantizer.choose(stage.weight)
        for observer in observers:
            observer.forget()
        for group in _groups(observers):
            if not bool(group[0].calibrated):
                for observer in group:
                    observer.observe()                 # only now: what it sees before the ones in front are settled does not count
                with torch.no_grad():
                    for batch in inputs:
                        model(batch)
                settle(group)
    finally:
        model.train(training)
        model.float_weights = float_weights


def _groups(observers: Sequence[ActivationQuantizer]) -> list[list[ActivationQuantizer]]:
    """Return the quantizers that share a scale, in the order of their last ones; most stand alone."""
    ties = {observer.tie for observer in observers} - {""}
    groups = [[observer] for observer in observers if not observer.tie]
    groups += [[observer for observer in observers if observer.tie == tie] for tie in ties]
    place = {observer: k for k, observer in enumerate(observers)}
    return sorted(groups, key=lambda group: place[group[-1]])


def _require(model: QuantizedModel) -> None:
    if not isinstance(model, QuantizedModel):
        raise ModelError(f"Calibrate and freeze take what hwq.prepare returns, not a {type(model).__name__}")


def _inputs(model: QuantizedModel, batch: object) -> torch.Tensor:
    """Return a batch's inputs, refused now where they would be refused only after training."""
    if isinstance(batch, tuple | list) and batch:
        batch = batch[0]
    if not isinstance(batch, torch.Tensor):
        raise ModelError(f"Calibration takes batches of torch tensors, not {type(batch).__name__}; for uint8 images: "
                         "hwq.InputSpec().tensor(images)")
    model.input_spec.codes(batch)
    return batch


def freeze(model: QuantizedModel) -> None:
    """Fix every scale, and let kept batch norms use their running statistics from now on, also in training.

    Raises
    ------
    ModelError
        An activation was never calibrated.
    """
    _require(model)
    for module in model.modules():
        if isinstance(module, ActivationQuantizer):
            _ = module.grid                            # raises where not calibrated
    model.fix_scales()
    model.frozen.fill_(True)
    model.train(model.training)
