"""Turn a plain torch network into one that trains quantized."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from ..errors import ModelError
from .activations import ActivationQuantizer
from .inputs import InputSpec
from .model import QuantizedModel
from .patterns import assign
from .stages import Flatten, GlobalAvgPool, MaxPool, Stage, Weighted, batchnorm_line
from .tracing import Op, trace
from .weights import check_finite, weight_quantizer

__all__ = ["prepare"]


@dataclass
class _Draft:
    """A stage to be: its operator, the batch norm behind it, whether a ReLU follows, and whether its result stays raw."""

    op: Op
    batchnorm: Op | None = None
    relu: bool = False
    raw: bool = False
    negative: bool = field(default=True)           # may its codes be negative?

    @property
    def quantizes(self) -> bool:
        return self.op.kind in ("conv", "linear", "gap") and not self.raw


def _drafts(ops: list[Op]) -> list[_Draft]:
    drafts: list[_Draft] = []
    source: _Draft | None = None                   # the layer whose sign a ReLU here decides
    for op in ops:
        if op.kind == "bn":
            if not drafts or drafts[-1].op.kind not in ("conv", "linear") or drafts[-1].batchnorm or drafts[-1].relu:
                raise ModelError(f"Layer '{op.name}': a batch norm must stand directly behind a Conv2d or Linear layer"
                                 f"{', before its ReLU' if drafts and drafts[-1].relu else ''}")
            drafts[-1].batchnorm = op
        elif op.kind == "relu":
            if source is None:
                raise ModelError(f"Node '{op.name}': a ReLU must follow a Conv2d or Linear layer (pooling may lie between)")
            source.relu = True                     # commutes with max pooling and flatten
        else:
            drafts.append(_Draft(op))
            if op.kind in ("conv", "linear"):
                source = drafts[-1]
            elif op.kind == "gap":
                source = None
    last = next(draft for draft in reversed(drafts) if draft.op.kind in ("conv", "linear", "gap"))
    last.raw = not last.relu
    negative = False                               # input codes are never negative
    for draft in drafts:
        if draft.op.kind in ("conv", "linear"):
            negative = not draft.relu
        draft.negative = negative
    return drafts


def _fold(layer: nn.Conv2d | nn.Linear, bn: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    """Return the layer with the batch norm's running statistics inside its weights and bias."""
    assert isinstance(bn, nn.BatchNorm2d | nn.BatchNorm1d)
    gain, constant = batchnorm_line(bn, layer.bias, name)
    weight = layer.weight.detach().to(torch.float64)
    folded = _copy_with_bias(layer)
    folded.weight.data = (weight * gain.view(-1, *([1] * (weight.ndim - 1)))).to(layer.weight.dtype)
    assert folded.bias is not None
    folded.bias.data = constant.to(layer.weight.dtype)
    return folded


def _copy_with_bias(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, layer.out_features, bias=True)
    return nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride,      # type: ignore[arg-type]
                     layer.padding, bias=True)                                                    # type: ignore[arg-type]


def prepare(model: nn.Module, example_input: torch.Tensor, weights: Mapping[str, str] | str, *,
            activations: Mapping[str, str] | str = "dfp:b=4", input: InputSpec | None = None, batchnorm: str = "fold",
            mult_bits: int = 10) -> QuantizedModel:
    """Return a network of the same function that trains with quantized weights and activations.

    Activations are quantized behind every ReLU (unsigned, before a pooling that follows), behind every layer without
    one (signed), and behind a global average; not behind the last layer, whose integer sums are the logits. Their
    scales come from `calibrate`; until then they pass. The given model is not changed.

    Parameters
    ----------
    model : nn.Module
        A chain of the layers that `hwq.quant.tracing` lists.
    example_input : tensor (n, c, h, w) or (n, features)
        For shapes only.
    weights : dict of pattern to spec, or one spec
        ``{"conv1": "dfp:b=8", "*": "po2:b=4"}``: exact names first, then patterns in order. Formats: see `hwq.formats`;
        scales that are left open follow the rules of `hwq.quant.weights`.
    activations : dict of pattern to spec, or one spec
        The same, by the name of the layer whose sums they quantize: ``dfp:b=2..8[,fl=N]``.
    input : InputSpec, optional
        The input codes; 8 bits by default.
    batchnorm : str
        ``"fold"``: running statistics go into the weights now, training goes on without. ``"keep"``: batch norms train
        on, and become a multiplier of ``mult_bits`` and an offset per channel; behind the last layer they are folded.
    mult_bits : int
        2..24, sign included.

    Raises
    ------
    ModelError, FormatError
        See `hwq.quant.tracing.trace`, `hwq.quant.patterns.assign`; NaN or infinite weights.
    """
    if batchnorm not in ("fold", "keep"):
        raise ModelError(f"batchnorm must be 'fold' or 'keep', not {batchnorm!r}")
    if not isinstance(mult_bits, int) or not 2 <= mult_bits <= 24:
        raise ModelError(f"mult_bits must be an integer of 2..24, not {mult_bits!r}")
    if example_input.ndim not in (2, 4):
        raise ModelError(f"Example input must be (n, channels, height, width) or (n, features), not {tuple(example_input.shape)}")
    drafts = _drafts(trace(model, example_input))
    layers = [draft.op.name for draft in drafts if draft.op.kind in ("conv", "linear")]
    weight_specs = assign(layers, weights, "weights")
    activation_specs = assign([draft.op.name for draft in drafts if draft.quantizes], activations, "activations")
    stages: list[Stage] = []
    for draft in drafts:
        op, name = draft.op, draft.op.name
        quantizer = (ActivationQuantizer(activation_specs[name], draft.negative, name) if draft.quantizes else None)
        if op.kind == "maxpool":
            stages.append(MaxPool(name, op.kernel))
        elif op.kind == "gap":
            stages.append(GlobalAvgPool(name, op.shape_in[1] * op.shape_in[2], quantizer))
        elif op.kind == "flatten":
            stages.append(Flatten(name, (op.shape_in[0], op.shape_in[1], op.shape_in[2])))
        else:
            stages.append(_weighted(draft, weight_quantizer(weight_specs[name], name, op.shape_out[0]), quantizer, batchnorm, mult_bits))
    prepared = QuantizedModel(stages, input or InputSpec(), tuple(example_input.shape[1:]))
    return prepared.to(next(model.parameters()).device).train(model.training)


def _weighted(draft: _Draft, weights, activation: ActivationQuantizer | None, batchnorm: str, mult_bits: int) -> Weighted:
    name, layer = draft.op.name, draft.op.module
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    if isinstance(layer, nn.Linear) and len(draft.op.shape_in) != 1:
        raise ModelError(f"Layer '{name}': a Linear layer reads the shape {draft.op.shape_in}; put a Flatten before it")
    check_finite(layer.weight, name)
    check_finite(layer.bias, name, "bias")
    kept = None
    if draft.batchnorm is not None:
        bn = draft.batchnorm.module
        assert isinstance(bn, nn.BatchNorm2d | nn.BatchNorm1d)
        for what in ("weight", "bias"):
            check_finite(getattr(bn, what), draft.batchnorm.name, what)
        if batchnorm == "keep" and activation is not None:
            kept = type(bn)(bn.num_features, bn.eps, bn.momentum, bn.affine)
            kept.load_state_dict(bn.state_dict())
        else:
            layer = _fold(layer, bn, draft.batchnorm.name)
    stage = Weighted(name, layer, weights, activation, kept, mult_bits)
    stage.quantizer.choose(stage.weight)
    return stage
