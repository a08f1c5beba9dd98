"""Turn a plain torch network into one that trains quantized."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from ..errors import ModelError
from ..formats import Spec
from .activations import ActivationQuantizer
from .drafts import Draft, drafts_of
from .ends import split_ends
from .inputs import InputSpec
from .joins import Add, Concat, Quantize, Relu
from .lines import wide
from .model import QuantizedModel
from .patterns import assign
from .slopes import Slope
from .stages import Stage, Weighted, batchnorm_line
from .tracing import Op, trace
from .weights import WeightQuantizer, check_finite, weight_quantizer
from .windows import AvgPool, Flatten, GlobalAvgPool, MaxPool, Pad, Select, Shuffle, Unflatten, Upsample

__all__ = ["prepare"]


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
                     layer.padding, layer.dilation, layer.groups, bias=True)                      # type: ignore[arg-type]


def prepare(model: nn.Module, example_input: torch.Tensor, weights: Mapping[str, str] | str, *,
            activations: Mapping[str, str] | str = "dfp:b=4", input: InputSpec | None = None, batchnorm: str = "fold",
            mult_bits: int = 10) -> QuantizedModel:
    """Return a network of the same function that trains with quantized weights and activations.

    Activations are quantized behind every ReLU (unsigned, before a pooling that follows), behind every layer and addition
    without one (signed), and behind averages; other clamps (ReLU6) are ends of the quantizer's codes, the levels nearest to theirs;
    a LeakyReLU or PReLU is applied to the sums first; nothing is quantized behind the last layer, whose integer sums are the
    logits. A softmax or sigmoid at the end is left out, see `QuantizedModel.notes`. What is concatenated shares a scale. Scales
    come from `calibrate`; until then activations pass. The given model is not changed.

    Parameters
    ----------
    model : nn.Module
        From one input to one output, of the layers and functions that `hwq.quant.operators` lists.
    example_input : tensor (n, c, h, w), (n, c, length) or (n, features)
        For shapes only. A 1-D network becomes one of height 1; the result takes inputs with and without that axis.
    weights : dict of pattern to spec, or one spec
        ``{"conv1": "dfp:b=8", "*": "po2:b=4"}``: exact names first, then patterns in order. Formats: see `hwq.formats`;
        scales that are left open follow the rules of `hwq.quant.weights`.
    activations : dict of pattern to spec, or one spec
        The same, by the name of the layer or addition whose sums they quantize: ``dfp:b=2..8[,fl=N]``.
    input : InputSpec, optional
        The input codes; 8 bits by default.
    batchnorm : str
        ``"fold"``: running statistics go into the weights now, training goes on without. ``"keep"``: batch norms train
        on, and become a multiplier of ``mult_bits`` and an offset per channel; behind the last layer they are folded.
        Behind additions they are kept always.
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
    if example_input.ndim not in (2, 3, 4):
        raise ModelError("Example input must be (n, channels, height, width), (n, channels, length) or (n, features), not "
                         f"{tuple(example_input.shape)}")
    ops, notes, rank = split_ends(trace(model, example_input))
    drafts = drafts_of(ops)
    layers = [draft.name for draft in drafts if draft.kind in ("conv", "linear")]
    weight_specs = assign(layers, weights, "weights")
    activation_specs = _tied(drafts, assign([draft.name for draft in drafts if draft.quantizes], activations, "activations"))
    stages, slopes = list[Stage](), dict[int, Slope]()
    for draft in drafts:
        name, sources = draft.name, tuple(drafts[source].name if source >= 0 else "" for source in draft.sources)
        quantizer = ActivationQuantizer(activation_specs[name], draft.negative, name, draft.tie, draft.clip) \
            if draft.quantizes else None
        if draft.kind in ("conv", "linear"):
            weight = weight_quantizer(weight_specs[name], name, draft.op.shape_out[0])
            stages.append(_weighted(draft, sources, weight, quantizer, batchnorm, mult_bits))
        else:
            stages.append(_plain(draft, sources, quantizer, mult_bits))
        stages[-1].slope = None if draft.slope is None else _slope(draft.slope, slopes)
    prepared = QuantizedModel(stages, input or InputSpec(), wide(tuple(example_input.shape[1:])), notes, rank)
    return prepared.to(next(model.parameters()).device).train(model.training)


def _slope(op: Op, known: dict[int, Slope]) -> Slope:
    """Return what a LeakyReLU or PReLU does; a PReLU that serves several places is one."""
    if not isinstance(op.module, nn.PReLU):
        return Slope(torch.tensor([op.found.slope], dtype=torch.float32), op.name, False)
    weight = op.module.weight
    if id(weight) not in known:
        known[id(weight)] = Slope(weight, op.name, weight.requires_grad)
    return known[id(weight)]


def _tied(drafts: Sequence[Draft], specs: dict[str, Spec]) -> dict[str, Spec]:
    """Return the specs with a scale that is given for one draft given to all that share it.

    Raises
    ------
    ModelError
        Two are given.
    """
    result = dict(specs)
    for tie in {draft.tie for draft in drafts} - {""}:
        names = [draft.name for draft in drafts if draft.tie == tie]
        given = {name: specs[name].scale for name in names if specs[name].scale is not None}
        if len(set(given.values())) > 1:
            raise ModelError(f"'{tie}' concatenates activations, which therefore share one scale, but the formats give several: "
                             f"{', '.join(f'{name}: fl={scale}' for name, scale in given.items())}; give one fl or none")
        for name in names:
            result[name] = replace(specs[name], scale=next(iter(given.values()), None))
    return result


def _plain(draft: Draft, sources: tuple[str, ...], quantizer: ActivationQuantizer | None, mult_bits: int) -> Stage:
    """Return a stage without weights."""
    op, found, name = draft.op, draft.op.found, draft.name
    if draft.kind == "maxpool":
        return MaxPool(name, sources, found.kernel, found.stride, found.pads)
    if draft.kind == "avgpool":
        return AvgPool(name, sources, found.kernel, found.stride, found.pads, quantizer,
                       (op.shape_in[0], op.shape_in[1], op.shape_in[2]) if found.inside else None)
    if draft.kind == "gap":
        return GlobalAvgPool(name, sources, op.shape_in[1] * op.shape_in[2], quantizer)
    if draft.kind == "pad":
        return Pad(name, sources, found.pads)
    if draft.kind == "upsample":
        return Upsample(name, sources, found.kernel)
    if draft.kind == "flatten":
        return Flatten(name, sources, (op.shape_in[0], op.shape_in[1], op.shape_in[2]))
    if draft.kind == "unflatten":
        return Unflatten(name, sources, (op.shape_out[0], op.shape_out[1], op.shape_out[2]))
    if draft.kind == "shuffle":
        return Shuffle(name, sources, found.order)
    if draft.kind == "select":
        return Select(name, sources, found.order)
    if draft.kind == "add":
        kept = None if draft.batchnorm is None else _kept(draft.batchnorm)
        return Add(name, sources, quantizer, kept, mult_bits)
    if draft.kind == "concat":
        return Concat(name, sources)
    if draft.kind == "clip":
        return Relu(name, sources)
    assert draft.kind == "quantize" and quantizer is not None
    return Quantize(name, sources, quantizer)


def _kept(op: Op) -> nn.BatchNorm2d | nn.BatchNorm1d:
    """Return a copy of a batch norm."""
    bn = op.module
    assert isinstance(bn, nn.BatchNorm2d | nn.BatchNorm1d)
    for what in ("weight", "bias"):
        check_finite(getattr(bn, what), op.name, what)
    return copy.deepcopy(bn)


def _weighted(draft: Draft, sources: tuple[str, ...], weights: WeightQuantizer, activation: ActivationQuantizer | None,
              batchnorm: str, mult_bits: int) -> Weighted:
    name, layer = draft.name, draft.op.module
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    if isinstance(layer, nn.Linear) and len(draft.op.shape_in) != 1:
        raise ModelError(f"Layer '{name}': a Linear layer reads the shape {draft.op.shape_in}; put a Flatten before it")
    check_finite(layer.weight, name)
    check_finite(layer.bias, name, "bias")
    kept = None
    if draft.batchnorm is not None:
        kept = _kept(draft.batchnorm)
        if batchnorm == "fold" or activation is None:
            layer, kept = _fold(layer, kept, draft.batchnorm.name), None
    stage = Weighted(name, sources, layer, weights, activation, kept, mult_bits)
    stage.quantizer.choose(stage.weight)
    return stage
