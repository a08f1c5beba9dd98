"""From a prepared, calibrated torch model to the integer IR."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import fx, nn

from ..errors import ModelError
from ..ir import Conv2d, Flatten, Graph, Input, Linear, MaxPool2d, Node, Output, Preprocess, Requantize
from ..quant.fake import ActivationQuantizer
from ..quant.prepare import QuantLayer, kind_of

__all__ = ["convert", "trace_codes"]


def _pads(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    if conv.padding == "valid":
        return (0, 0, 0, 0)
    if conv.padding == "same":
        total = [k - 1 for k in conv.kernel_size]
        return (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
    top, left = (int(p) for p in conv.padding)
    return (top, left, top, left)


def _weight(layer: QuantLayer) -> np.ndarray:
    fmt = layer.quantizer.format
    return torch.round(layer.quantizer(layer.layer.weight.detach()).double() * 2.0 ** fmt.frac_bits).long().cpu().numpy()


def convert(model: fx.GraphModule, shape: tuple[int, int, int], *, name: str = "network", classes: Sequence[str] = ()) -> Graph:
    """Return the network on integers.

    Parameters
    ----------
    model : GraphModule
        From `hwq.quant.prepare`, trained and calibrated.
    shape : (height, width, channels)
        Of the input image.
    name, classes
        Kept in the file.

    Raises
    ------
    ModelError
        A format is missing, or a node has no place in the IR.
    """
    modules = dict(model.named_modules())
    bits = model.input_spec.bits
    nodes: list[Node] = [Input("input", (), shape=tuple(shape), lo=0, hi=(1 << bits) - 1, frac_bits=bits)]
    frac = bits
    image: tuple[int, ...] = tuple(shape)                # to permute the weights of a flattened image
    flattened = False
    for node in model.graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        source = (nodes[-1].name,)
        if isinstance(module, QuantLayer):
            module.in_frac_bits = frac
            weight, bias = _weight(module), module.bias_code().long().cpu().numpy()
            fmt = module.quantizer.format
            if isinstance(module.layer, nn.Conv2d):
                nodes.append(Conv2d(module.name, source, weight=weight.transpose(0, 2, 3, 1), bias=bias, weight_format=fmt,
                                    stride=tuple(module.layer.stride), pads=_pads(module.layer)))
            else:
                if flattened and len(image) == 3:        # torch flattens channels first, the IR channels last
                    h, w, c = image
                    weight = weight.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(len(weight), -1)
                nodes.append(Linear(module.name, source, weight=weight, bias=bias, weight_format=fmt))
            frac += fmt.frac_bits
        elif isinstance(module, ActivationQuantizer):
            out = module.format
            shift = frac - out.frac_bits
            nodes.append(Requantize(f"{source[0]}.act", source, mult=np.ones(1), shift=shift, frac_bits=out.frac_bits,
                                    offset=np.array([1 << (shift - 1) if shift > 0 else 0]), lo=out.range[0], hi=out.range[1]))
            frac = out.frac_bits
        else:
            kind = kind_of(node, modules)
            if kind == "pool":
                owner = modules[str(node.target)] if node.op == "call_module" else None
                kernel = owner.kernel_size if owner is not None else node.args[1] if len(node.args) > 1 else node.kwargs["kernel_size"]
                pair = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
                nodes.append(MaxPool2d(str(node.name), source, kernel=pair, stride=pair))
            elif kind == "flatten":
                partial = Graph((*nodes, Output("output", source)))
                image, flattened = partial.edges[source[0]].shape, True
                nodes.append(Flatten(str(node.name), source))
            elif kind not in ("input", "relu", "skip", "output"):
                raise ModelError(f"Node '{node.name}' ({kind}) has no place in the IR")
    nodes.append(Output("output", (nodes[-1].name,)))
    return Graph(tuple(nodes), Preprocess(bits), tuple(classes), name)


def trace_codes(model: fx.GraphModule, images: torch.Tensor) -> dict[str, np.ndarray]:
    """Run the model in eval mode on uint8 images and return the integer codes of every edge, channels last.

    Keys are the node names of `convert`'s graph, as far as torch has that tensor. Not an integer: `ModelError`.
    """
    model.eval()
    codes: dict[str, np.ndarray] = {}
    modules = dict(model.named_modules())
    last = "input"

    class Recorder(fx.Interpreter):
        def run_node(self, node):
            nonlocal last
            value = super().run_node(node)
            module = modules.get(str(node.target)) if node.op == "call_module" else None
            if isinstance(module, QuantLayer):
                last, scale = module.name, module.in_frac_bits + module.quantizer.format.frac_bits
                self._keep(module.name, value, scale)
            elif isinstance(module, ActivationQuantizer):
                last = f"{last}.act"
                self._keep(last, value, module.format.frac_bits)
            return value

        def _keep(self, name, value, scale):
            exact = value.double() * 2.0 ** scale
            if not torch.equal(exact, exact.round()):
                raise ModelError(f"Edge '{name}' holds values that are no codes")
            array = exact.long().cpu().numpy()
            codes[name] = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array

    with torch.no_grad():
        Recorder(model).run(model.input_spec.encode(images))
    return codes
