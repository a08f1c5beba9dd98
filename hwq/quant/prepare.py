"""From a plain torch module to one that trains with fake-quantized weights and activations."""

import operator
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..errors import ModelError
from ..formats import Spec, parse_spec
from .fake import WEIGHT_KINDS, ActivationQuantizer, WeightQuantizer, best_frac_bits

__all__ = ["InputSpec", "QuantLayer", "prepare", "calibrate", "freeze"]


@dataclass(frozen=True)
class InputSpec:
    """Input codes: ``pixel >> (8 - bits)``, real value ``code * 2**-bits``, in [0, 1)."""

    bits: int = 8

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return uint8 images (n, h, w) or (n, h, w, c) as the model's float input (n, c, h, w)."""
        planes = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        return (planes >> (8 - self.bits)).float() * 2.0 ** -self.bits


class QuantLayer(nn.Module):
    """Convolution or linear layer with fake-quantized weights, batch norm folded in.

    In eval mode it computes in float64, where sums of products of fixed-point numbers are exact (checked), with the
    bias rounded half up to the accumulator's scale.
    """

    def __init__(self, name: str, layer: nn.Conv2d | nn.Linear, spec: Spec):
        super().__init__()
        self.name, self.layer = name, layer
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros(layer.weight.shape[0]))
        self.quantizer: WeightQuantizer = WEIGHT_KINDS[spec.kind](name, spec, layer.weight)
        self.in_frac_bits = 0                            # of the input codes; set when they are known

    def bias_code(self) -> torch.Tensor:
        """Return the bias as integers at the accumulator's scale."""
        assert self.layer.bias is not None
        return torch.floor(self.layer.bias.detach().double() * 2.0 ** (self.in_frac_bits + self.quantizer.format.frac_bits) + 0.5)

    def _apply_layer(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, self.layer.stride, self.layer.padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return self._apply_layer(x, self.quantizer(self.layer.weight), self.layer.bias)
        weight = self.quantizer(self.layer.weight.detach()).double()
        step = 2.0 ** -(self.in_frac_bits + self.quantizer.format.frac_bits)
        bias = self.bias_code() * step
        bound = float(weight.abs().flatten(1).sum(1).max()) * float(x.abs().max()) + float(bias.abs().max())
        if bound / step >= 2.0 ** 53:
            raise ModelError(f"Layer '{self.name}': sums exceed 2**53 steps; float64 would not be exact")
        return self._apply_layer(x.double(), weight, bias)


def _refuse(node: fx.Node, what: str) -> None:
    raise ModelError(f"Layer '{node.target}' ({node.op} {node.name}): {what}")


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _check_conv(node: fx.Node, conv: nn.Conv2d) -> None:
    for name, accepted in (("groups", 1), ("dilation", (1, 1)), ("padding_mode", "zeros")):
        if getattr(conv, name) != accepted:
            _refuse(node, f"Conv2d has {name} = {getattr(conv, name)!r}; supported: {accepted!r}")


def _check_pool(node: fx.Node, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any, indices: Any) -> None:
    kernel = _pair(kernel)
    for name, found, accepted in (("stride", _pair(kernel if stride is None else stride), kernel), ("padding", _pair(padding), (0, 0)),
                                  ("dilation", _pair(dilation), (1, 1)), ("ceil_mode", bool(ceil_mode), False),
                                  ("return_indices", bool(indices), False)):
        if found != accepted:
            _refuse(node, f"max pooling has {name} = {found!r}; supported: {accepted!r} (kernel {kernel})")


_RELU = (F.relu, torch.relu, torch.relu_)
_FLATTEN = (torch.flatten,)
_SKIP = (nn.Identity, nn.Dropout, nn.Dropout2d)


def kind_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    """Return what a node of the traced model is: input, layer, bn, relu, pool, flatten, skip, output; or refuse it."""
    if node.op in ("placeholder", "output"):
        return {"placeholder": "input", "output": "output"}[node.op]
    target: Any = node.target
    if node.op == "call_module":
        module = modules[target]
        if isinstance(module, nn.Conv2d):
            _check_conv(node, module)
            return "layer"
        if isinstance(module, nn.MaxPool2d):
            _check_pool(node, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode,
                        module.return_indices)
            return "pool"
        if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            return "flatten"
        for types, kind in ((nn.Linear, "layer"), (nn.BatchNorm2d, "bn"), (nn.ReLU, "relu"), (_SKIP, "skip")):
            if isinstance(module, types):                # type: ignore[arg-type]
                return kind
        _refuse(node, f"{type(module).__name__} is not supported; supported: Conv2d, Linear, BatchNorm2d, ReLU, MaxPool2d, "
                      "Flatten(1, -1), Dropout, Identity")
    if node.op == "call_function":
        if target in _RELU:
            return "relu"
        if target in _FLATTEN and tuple(node.args[1:2]) == (1,) or (target in _FLATTEN and node.kwargs == {"start_dim": 1}):
            return "flatten"
        if target is F.dropout:
            return "skip"
        if target in (F.max_pool2d, torch.max_pool2d) or getattr(target, "__name__", "") in ("max_pool2d", "boolean_dispatch", "fn"):
            names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
            values = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
            _check_pool(node, values["kernel_size"], values.get("stride"), values.get("padding", 0), values.get("dilation", 1),
                        values.get("ceil_mode", False), values.get("return_indices", False))
            return "pool"
        if target in (operator.add, torch.add):
            _refuse(node, "additions (skip connections) are not supported yet")
    if node.op == "call_method" and target == "relu":
        return "relu"
    if node.op == "call_method" and target == "flatten" and tuple(node.args[1:]) == (1,):
        return "flatten"
    _refuse(node, "is not supported; supported: F.relu, F.max_pool2d, torch.flatten(x, 1), F.dropout, and x.relu(), x.flatten(1)")
    raise AssertionError("refused above")


def _spec_for(name: str, patterns: Mapping[str, str], used: set[str]) -> Spec:
    pattern = name if name in patterns else next((p for p in patterns if fnmatchcase(name, p)), None)
    if pattern is None:
        raise ModelError(f"Layer '{name}' has no format; patterns given: {', '.join(patterns) or 'none'}. Add one, e.g. {{'{name}': 'dfp:b=4'}}")
    used.update(p for p in patterns if fnmatchcase(name, p))
    spec = parse_spec(patterns[pattern])
    if spec.kind not in WEIGHT_KINDS:
        raise ModelError(f"Layer '{name}': weights of kind '{spec.kind}' cannot be trained yet; supported: {', '.join(WEIGHT_KINDS)}")
    return spec


def _fold(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> None:
    """Fold the running statistics of ``bn`` into ``conv``."""
    assert bn.running_mean is not None and bn.running_var is not None
    gain = (bn.weight if bn.affine else torch.ones_like(bn.running_mean)) / torch.sqrt(bn.running_var + bn.eps)
    shift = bn.bias if bn.affine else torch.zeros_like(bn.running_mean)
    bias = conv.bias if conv.bias is not None else torch.zeros_like(bn.running_mean)
    conv.weight.data = conv.weight.data * gain.data[:, None, None, None]
    conv.bias = nn.Parameter((shift + (bias - bn.running_mean) * gain).data)


def prepare(model: nn.Module, example_input: torch.Tensor, weights: Mapping[str, str], *, activations: str = "dfp:b=4",
            input: InputSpec = InputSpec()) -> fx.GraphModule:
    """Return a trainable copy of ``model`` with fake-quantized weights and activations; batch norm is folded.

    Parameters
    ----------
    model : nn.Module
        Chain of Conv2d, BatchNorm2d, ReLU, MaxPool2d, Flatten, Linear, Dropout; also ``F.relu``, ``F.max_pool2d``, ``torch.flatten``.
    example_input : tensor (n, c, h, w)
        A batch to check that the model runs.
    weights : mapping of pattern to spec
        ``{"conv1": "dfp:b=8", "conv*": "dfp:b=4"}``: an exact name first, then the first pattern that matches.
    activations : str
        Format behind each ReLU; unsigned there.
    input : InputSpec
        How images become codes.

    Raises
    ------
    ModelError, FormatError
        What cannot be done exactly is refused by name: layer, attribute, value, and what is supported.
    """
    traced = fx.symbolic_trace(deepcopy(model))
    modules = dict(traced.named_modules())
    used: set[str] = set()
    previous: fx.Node | None = None
    quantized = False
    layers: list[QuantLayer] = []
    for node in list(traced.graph.nodes):
        kind = kind_of(node, modules)
        if len(node.users) > 1:
            _refuse(node, "its result is used more than once; branches are not supported yet")
        if kind == "bn":
            if not (previous and previous.op == "call_module" and isinstance(modules[str(previous.target)], QuantLayer)
                    and isinstance(modules[str(previous.target)].layer, nn.Conv2d)):    # type: ignore[union-attr]
                _refuse(node, "BatchNorm2d must follow a Conv2d")
            layer = layers[-1]
            _fold(layer.layer, modules[str(node.target)])                               # type: ignore[arg-type]
            layer.quantizer.refresh(layer.layer.weight)
            node.replace_all_uses_with(previous)
            traced.graph.erase_node(node)
            continue
        if kind == "layer":
            if previous is not None and not quantized and layers:
                _refuse(node, "two layers without a ReLU between them are not supported yet")
            name = str(node.target)
            layer = QuantLayer(name, modules[name], _spec_for(name, weights, used))     # type: ignore[arg-type]
            traced.add_submodule(name, layer)
            modules[name] = layer
            layers.append(layer)
            quantized = False
        if kind == "relu":
            spec = parse_spec(activations)
            name = f"{layers[-1].name}.act" if layers else "input.act"
            quantizer = ActivationQuantizer(name, Spec("udfp", spec.width, spec.scale))
            traced.add_submodule(f"act{len(layers)}", quantizer)
            with traced.graph.inserting_after(node):
                added = traced.graph.call_module(f"act{len(layers)}", (node,))
            node.replace_all_uses_with(added, delete_user_cb=lambda user, added=added: user is not added)
            quantized = True
            node = added
        previous = node
    unused = [pattern for pattern in weights if pattern not in used]
    if unused:
        raise ModelError(f"Patterns {', '.join(unused)} match no layer; layers: {', '.join(layer.name for layer in layers)}")
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()                # folded batch norms must not train on
    traced.recompile()
    traced.input_spec = input
    _propagate(traced)
    with torch.no_grad():
        traced.train(False)
        mode = [(q, bool(q.ready)) for q in traced.modules() if isinstance(q, ActivationQuantizer)]
        traced(example_input)
        assert mode is not None
    return traced.train()


def _propagate(model: fx.GraphModule) -> None:
    """Tell every layer the scale of its input."""
    frac = model.input_spec.bits
    modules = dict(model.named_modules())
    for node in model.graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, QuantLayer):
            module.in_frac_bits = frac
        elif isinstance(module, ActivationQuantizer):
            frac = int(module.frac_bits)


def calibrate(model: fx.GraphModule, batches: Iterable[torch.Tensor]) -> None:
    """Choose the activations' ``frac_bits`` by least squared error on some input batches (n, c, h, w), and the weights'."""
    quantizers = [q for q in model.modules() if isinstance(q, ActivationQuantizer)]
    for layer in model.modules():
        if isinstance(layer, QuantLayer):
            layer.quantizer.refresh(layer.layer.weight)
    mode = model.training
    model.train()
    samples = list(batches)
    with torch.no_grad():
        for quantizer in quantizers:                     # in order: each sees its inputs quantized
            if quantizer.spec.scale is not None:
                continue
            quantizer.ready.fill_(False)
            quantizer.seen = []
            for batch in samples:
                model(batch)
            quantizer.frac_bits.fill_(best_frac_bits(torch.cat(quantizer.seen), quantizer.spec))
            quantizer.ready.fill_(True)
            quantizer.seen = None
    _propagate(model)
    model.train(mode)


def freeze(model: fx.GraphModule) -> None:
    """Fix every format as it is: `calibrate` then changes nothing more."""
    for module in model.modules():
        if isinstance(module, WeightQuantizer):
            module.spec = Spec(module.spec.kind, module.spec.width, int(module.frac_bits), module.spec.narrow)
        elif isinstance(module, ActivationQuantizer):
            module.spec = Spec(module.spec.kind, module.spec.width, module.format.frac_bits)
