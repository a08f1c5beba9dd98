"""How each TensorFlow Lite operator becomes nodes of the integer network; arithmetic in `hwq.frontend.tflite_layers`."""

import math
from dataclasses import replace

import numpy as np

from .. import ir
from ..errors import FormatError, ModelError
from . import tflite_layers as layers
from . import tflite_slices as slices
from .builder import turn
from .tflite_context import Importer, Rule, edge_shape, meaning, same_stream
from .tflite_file import Op, Tensor

__all__ = ["RULES"]


def _conv(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.int8(op, self.tensor(op, op.inputs[0]))
    bias = self.model.tensors[op.inputs[2]] if len(op.inputs) > 2 and op.inputs[2] >= 0 else None
    return layers.conv(self.b, name, op, self.source(op, 0), x, self.tensor(op, op.inputs[1]), bias, self.int8(op, out))


def _fully_connected(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.int8(op, self.tensor(op, op.inputs[0]))
    source = self.source(op, 0)
    w, shape = self.tensor(op, op.inputs[1]), self.b.edges[source].shape
    pixelwise = len(w.shape) == 2 and math.prod(shape) != w.shape[1] == shape[-1]
    if pixelwise and out.shape != (*x.shape[:-1], w.shape[0]):
        raise ModelError(f"{op.text} makes {out.shape} of {x.shape}, which puts pixels into the batch; supported: keep_num_dims = "
                         "True, or a 1x1 CONV_2D")
    if len(shape) != 1 and not pixelwise:
        source = self.b.add(ir.Flatten(self.b.unique(f"{name}.flat"), (source,)))
    bias = self.model.tensors[op.inputs[2]] if len(op.inputs) > 2 and op.inputs[2] >= 0 else None
    return layers.fully_connected(self.b, name, op, source, x, w, bias, self.int8(op, out))


def _add(self: Importer, op: Op, out: Tensor, name: str) -> str:
    xs = self.int8(op, self.tensor(op, op.inputs[0])), self.int8(op, self.tensor(op, op.inputs[1]))
    sources = self.source(op, 0), self.source(op, 1)
    if self.b.edges[sources[0]].shape != self.b.edges[sources[1]].shape:
        raise ModelError(f"{op.text}: shapes {xs[0].shape} and {xs[1].shape} differ; broadcasting is not supported")
    return layers.add(self.b, name, op, sources, xs, self.int8(op, out))


def _average(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.tensor(op, op.inputs[0])
    self.same_scale(op, x, out)
    return layers.average(self.b, name, op, self.source(op, 0), x, out)


def _max_pool(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.tensor(op, op.inputs[0])
    self.same_scale(op, x, out)
    source, o = self.source(op, 0), op.options
    size, turned = layers.image(self.b, source, x)
    kernel, stride = (o["FilterHeight"], o["FilterWidth"]), (o["StrideH"], o["StrideW"])
    pads = layers.padding(op, size, kernel, stride)
    self.b.add(ir.MaxPool2d(name, (source,), turn(kernel, turned), turn(stride, turned), turn(pads, turned)))
    return _clamped(self, op, out, name)


def _reduce_max(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.tensor(op, op.inputs[0])
    self.same_scale(op, x, out)
    source = self.source(op, 0)
    _whole_image(self, op, x)
    size = self.b.edges[source].shape[0], self.b.edges[source].shape[1]
    return _squeezed(self, out, name, self.b.add(ir.MaxPool2d(name, (source,), size, size)))


def _whole_image(self: Importer, op: Op, x: Tensor) -> None:
    """Refuse axes that leave some of the image; those of 1 do not count."""
    axes, rank = self.tensor(op, op.inputs[1]), len(x.shape)
    found = {int(a) % rank for a in axes.data.reshape(-1)} if axes.data is not None and rank else set()
    if rank not in (3, 4) or not {a for a in range(1, rank - 1) if x.shape[a] != 1} <= found <= set(range(1, rank - 1)) \
            or not found:
        raise ModelError(f"{op.text}: axes {sorted(found)} of {x.shape} are not supported; supported: height and width")


def _squeezed(self: Importer, out: Tensor, name: str, edge: str) -> str:
    return edge if len(edge_shape(out.shape)) == 3 else self.b.add(ir.Flatten(self.b.unique(f"{name}.flat"), (edge,)))


def _clamped(self: Importer, op: Op, out: Tensor, name: str) -> str:
    """Append a fused activation that only clamps codes."""
    lo, hi = layers.activation_range(layers.activation(op), out.scale[0], int(out.zero[0]))
    return name if (lo, hi) == (-128, 127) else self.b.add(ir.Requantize(self.b.unique(f"{name}.act"), (name,), lo=lo, hi=hi))


def _mean(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.int8(op, self.tensor(op, op.inputs[0]))
    _whole_image(self, op, x)
    return _squeezed(self, out, name, layers.mean(self.b, name, op, self.source(op, 0), x, self.int8(op, out)))


def _quantize(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.tensor(op, op.inputs[0])
    if x.index in self.tail:
        return _behind(self, op, out)
    last = out.dtype == "UINT8" and out.index == self.model.outputs[0] and out.scale.size == 1
    if not last:
        self.int8(op, out)
    if x.dtype == "FLOAT32" and x.index == self.model.inputs[0] and not self.edge:
        self.b.note(f"The input is taken behind {op.text}: {meaning(out)}")
        self.b.tensors["input"] = out.index
        self.grid = float(out.scale[0]), int(out.zero[0])
        return self.b.add(ir.Input("input", (), edge_shape(out.shape), -128, 127))
    if x.dtype not in ("INT8", "UINT8") or x.scale.size != 1:
        raise ModelError(f"{op.text} from {x.dtype} with {x.scale.size} scales is not supported; supported: INT8 "
                         "or UINT8 with one scale")
    factor = np.array([float(x.scale[0]) / float(out.scale[0])])
    lo, hi = (0, 255) if last else (-128, 127)
    return layers.rescale(self.b, name, self.source(op, 0), op, factor, int(out.zero[0]), lo, hi, -int(x.zero[0]))


def _dequantize(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.tensor(op, op.inputs[0])
    if x.index in self.tail:
        return _behind(self, op, out)
    self.int8(op, x)
    if out.index != self.model.outputs[0]:
        raise ModelError(f"{op.text} in the middle of a network is not supported; supported: as the last operator")
    self.softmax = self.softmax or x
    self.b.note(f"The output is taken in front of {op.text}: {meaning(x)}")
    return self.source(op, 0)


def _behind(self: Importer, op: Op, out: Tensor) -> str:
    """Leave out an operator behind one that is left out."""
    self.tail.add(out.index)
    self.b.note(f"{op.text} is left out, as it follows what is")
    return self.source(op, 0)


def _softmax(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.int8(op, self.tensor(op, op.inputs[0]))
    behind = {out.index}
    for other in self.model.ops[op.index + 1:]:
        if behind & set(other.inputs):
            if other.kind not in ("QUANTIZE", "DEQUANTIZE"):
                raise ModelError(f"{op.text} in the middle of a network is not supported; supported: as the last operator")
            behind |= set(other.outputs)
    source, self.softmax = self.source(op, 0), x
    self.tail.add(out.index)
    if op.kind == "LOGISTIC":
        self.b.note(f"{op.text} is left out: the output is its input, {meaning(x)}. It rises with its input: positive "
                    "inputs are above a half")
        return source
    classes = self.b.edges[source].shape[-1]
    sure = 256 * (1 - math.exp(-float(op.options["Beta"]) * float(x.scale[0]))) > classes
    self.b.note(f"{op.text} is left out: the output is its input, {meaning(x)}. The largest value stays the largest"
                + ("" if sure else "; where the rounded probabilities tie, the largest input is more exact"))
    return source


def _relu(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.int8(op, self.tensor(op, op.inputs[0]))
    self.int8(op, out)
    if op.kind == "RELU6":
        self.same_scale(op, x, out)              # the kernel clamps and does not rescale
    factor = np.array([float(np.float32(x.scale[0] / out.scale[0]))])
    lo, hi = layers.activation_range(op.kind, out.scale[0], int(out.zero[0]))
    return layers.rescale(self.b, name, self.source(op, 0), op, factor, int(out.zero[0]), lo, hi, -int(x.zero[0]))


def _leaky(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.int8(op, self.tensor(op, op.inputs[0]))
    self.int8(op, out)
    alpha = np.float32(op.options["Alpha"])
    factor = x.scale[0] * alpha / out.scale[0]   # in float32, as the kernel has it
    step = float(x.scale[0] / out.scale[0])
    return layers.leaky(self.b, name, self.source(op, 0), op, x, out, np.array([1]), float(factor), step)


def _prelu(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x, alpha = self.int8(op, self.tensor(op, op.inputs[0])), self.int8(op, self.tensor(op, op.inputs[1]))
    self.int8(op, out)
    source, data = self.source(op, 0), alpha.data
    channels = self.b.edges[source].shape[-1]
    if data is None or data.size and data.shape[-1:] not in ((1,), (x.shape[-1],)):
        raise ModelError(f"{op.text}: its slopes must be constants, one or one for each of {channels} channels, not {alpha.shape}")
    rows = data.reshape(-1, data.shape[-1] if data.ndim else 1)
    if not len(rows) or (rows != rows[0]).any() or x.shape[-1] != channels:
        raise ModelError(f"{op.text}: slopes of the shape {alpha.shape} that differ from pixel to pixel are not supported; "
                         "supported: one, or one for each channel (Keras: PReLU(shared_axes=[1, 2]))")
    scale, unit = float(x.scale[0]), float(out.scale[0])
    slopes = rows[0].astype(np.int64) - int(alpha.zero[0])
    return layers.leaky(self.b, name, source, op, x, out, slopes, scale * float(alpha.scale[0]) / unit, scale / unit)


def _reshape(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.int8(op, self.tensor(op, op.inputs[0]))
    self.same_scale(op, x, out)
    source = self.source(op, 0)
    old, new = self.b.edges[source].shape, edge_shape(out.shape)
    if math.prod(old) != math.prod(new) or out.shape[:1] != (1,):
        raise ModelError(f"{op.text}: {x.shape} to {out.shape} changes the batch")
    if x.index in self.places or len(new) not in (1, 3):
        self.places[out.index] = self.places.get(x.index, np.arange(math.prod(old)))
        return source
    if old == new or same_stream(old, new):
        return source
    if len(new) == 1:
        return self.b.add(ir.Flatten(name, (source,)))
    node = self.b.nodes[source]
    if isinstance(node, ir.Flatten) and (self.b.edges[node.inputs[0]].shape == new
                                         or same_stream(self.b.edges[node.inputs[0]].shape, new)):
        return node.inputs[0]
    if self.b.private(source, ir.Input) and len(new) == 3:
        self.b.replace_node(replace(node, shape=new))          # type: ignore[call-arg]
        self.b.note(f"The input has the shape {new}, which {op.text} gives it")
        return source
    self.places[out.index] = np.arange(math.prod(old))         # an image of other pixels, unless a TRANSPOSE follows
    return source


def _transpose(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x, perm = self.int8(op, self.tensor(op, op.inputs[0])), self.tensor(op, op.inputs[1]).data
    self.same_scale(op, x, out)
    source, rank = self.source(op, 0), len(x.shape)
    order = [] if perm is None else [int(p) for p in perm.reshape(-1)]
    if sorted(order) != list(range(rank)) or out.shape != tuple(x.shape[p] for p in order):
        raise FormatError(f"{op.text}: the permutation {order} does not go with {x.shape} to {out.shape}")
    wide = [p for p in order if x.shape[p] != 1]
    if x.index not in self.places and order[0] == 0 and wide == sorted(wide) \
            and edge_shape(out.shape)[-1] == self.b.edges[source].shape[-1]:
        return source                              # only axes of 1 move
    node = self.b.nodes[source]
    if x.index not in self.places and order[0] == 0 and self.order is None and self.b.private(source, ir.Input):
        self.b.replace_node(replace(node, shape=edge_shape(out.shape)))       # type: ignore[call-arg]
        self.order = x.shape, tuple(order)
        self.b.note(f"The input has the shape {edge_shape(out.shape)}, which {op.text} gives it: the file's axes {order[1:]}")
        return source
    if order[0] != 0:
        raise ModelError(f"{op.text}: the permutation {order} of {x.shape} is not supported; supported: any that "
                         "leaves the batch in front")
    places = self.places.get(x.index, np.arange(math.prod(x.shape)))
    self.places[out.index] = places.reshape(x.shape).transpose(order).reshape(-1)
    return source


def _pad(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.tensor(op, op.inputs[0])
    self.same_scale(op, x, out)
    pads, value = self.tensor(op, op.inputs[1]).data, int(out.zero[0])
    if op.kind == "PADV2":
        constant = self.tensor(op, op.inputs[2])
        if constant.data is None or constant.data.size != 1 or constant.dtype != "INT8":
            raise ModelError(f"{op.text}: its value must be one constant of INT8")
        value = int(constant.data.reshape(-1)[0])
    if pads is None or pads.shape != (len(x.shape), 2) or (pads < 0).any() or len(x.shape) not in (3, 4) \
            or pads[0].any() or pads[-1].any():
        raise ModelError(f"{op.text}: paddings {None if pads is None else pads.tolist()} are not supported; supported: "
                         "constants for height and width")
    rows = pads[1] if len(x.shape) == 4 else (0, 0)
    source = self.source(op, 0)
    border = int(rows[0]), int(pads[-2][0]), int(rows[1]), int(pads[-2][1])
    return self.b.add(ir.Pad(name, (source,), turn(border, layers.image(self.b, source, x)[1]), value))


def _concat(self: Importer, op: Op, out: Tensor, name: str) -> str:
    xs = [self.tensor(op, i) for i in op.inputs]
    for x in xs:
        self.same_scale(op, x, out)
    axis, rank = op.options["Axis"], len(out.shape)
    if axis % max(rank, 1) != rank - 1:
        raise ModelError(f"{op.text}: axis = {axis} is not supported; supported: the channels ({rank - 1})")
    self.b.add(ir.Concat(name, tuple(self.source(op, i) for i in range(len(xs)))))
    return _clamped(self, op, out, name)


def _resize(self: Importer, op: Op, out: Tensor, name: str) -> str:
    x = self.tensor(op, op.inputs[0])
    self.same_scale(op, x, out)
    source = self.source(op, 0)
    if op.options["AlignCorners"]:
        raise ModelError(f"{op.text}: align_corners = True is not supported; supported: False")
    old, new = edge_shape(x.shape), edge_shape(out.shape)
    if len(out.shape) != 4 or new[0] % old[0] or new[1] % old[1] or new[2] != old[2]:
        raise ModelError(f"{op.text}: {x.shape} to {out.shape} is not supported; supported: integer factors")
    factor = turn((new[0] // old[0], new[1] // old[1]), layers.image(self.b, source, x)[1])
    return self.b.add(ir.Upsample(name, (source,), factor))


def _argmax(self: Importer, op: Op, out: Tensor, name: str) -> str:
    self.int8(op, self.tensor(op, op.inputs[0]))
    axis = self.tensor(op, op.inputs[1]).data
    source = self.source(op, 0)
    if out.index != self.model.outputs[0] or axis is None or len(self.b.edges[source].shape) != 1 \
            or int(axis.reshape(-1)[0]) not in (1, -1):
        raise ModelError(f"{op.text} is supported as the last operator, over the only axis of a flat tensor")
    self.b.add(ir.ArgMax(name, (source,)))
    return name


RULES: dict[str, Rule] = {
    "CONV_2D": _conv, "DEPTHWISE_CONV_2D": _conv, "FULLY_CONNECTED": _fully_connected, "ADD": _add, "AVERAGE_POOL_2D": _average,
    "MAX_POOL_2D": _max_pool, "MEAN": _mean, "REDUCE_MAX": _reduce_max, "QUANTIZE": _quantize, "DEQUANTIZE": _dequantize,
    "SOFTMAX": _softmax, "LOGISTIC": _softmax, "RELU": _relu,
    "RELU6": _relu, "LEAKY_RELU": _leaky, "PRELU": _prelu,
    "RESHAPE": _reshape, "SQUEEZE": _reshape, "EXPAND_DIMS": _reshape, "TRANSPOSE": _transpose, "PAD": _pad,
    "PADV2": _pad, "CONCATENATION": _concat, "RESIZE_NEAREST_NEIGHBOR": _resize, "ARG_MAX": _argmax,
    "SLICE": slices.part, "STRIDED_SLICE": slices.part, "SPLIT": slices.piece, "SPLIT_V": slices.piece,
}
