"""What one import of a TensorFlow Lite file carries from operator to operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import ir
from ..errors import FormatError, ModelError
from .builder import Builder, Imported
from .tflite_file import Model, Op, Tensor, read_tflite

__all__ = ["Importer", "Rule", "MOVES", "edge_shape", "same_stream", "meaning"]

_SHAPES = ("SHAPE", "STRIDED_SLICE", "PACK")       # of shapes, they only ever compute what RESHAPE's output tensor states anyway
_PARTS = ("SPLIT", "SPLIT_V")                      # the operators of several outputs

# till something else reads a tensor, its elements need not stand in order
MOVES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE")


def edge_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the IR's shape of a tensor: without the batch, images as (height, width, channels), sequences as height 1."""
    return (1, *shape[1:]) if len(shape) == 3 else shape[1:]


def same_stream(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Return whether two shapes of an edge are one line of pixels, along the width or the height."""
    return len(a) == len(b) == 3 and a[2] == b[2] and a[0] * a[1] == b[0] * b[1] and 1 in a[:2] and 1 in b[:2]


def _one_image(model: Model) -> tuple[Model, int]:
    """Return the model of one image, and the batch of the file, which every tensor that the network makes must have in front.

    Raises
    ------
    ModelError
        One has not; the message names the operator.
    """
    x = model.tensors[model.inputs[0]] if len(model.inputs) == 1 and model.inputs[0] >= 0 else None
    if x is None or len(x.shape) < 2 or x.shape[0] < 2:
        return model, 1
    made = {x.index}
    for op in model.ops:
        for index in op.outputs if op.kind not in _SHAPES or made & set(op.inputs) and op.kind != "SHAPE" else ():
            t = model.tensors[index]
            if t.shape[:1] != x.shape[:1]:
                raise ModelError(f"{op.text} makes the shape {t.shape}, but the input '{x.name}' has a batch of {x.shape[0]}; "
                                 "accepted: a batch of 1, or one that every tensor has in front")
            made.add(index)
    tensors = tuple(replace(t, shape=(1, *t.shape[1:])) if t.index in made else t for t in model.tensors)
    return replace(model, tensors=tensors), x.shape[0]


class Importer:
    """One import: the file, the network that grows, and where each tensor lies; ``rules`` make an operator's nodes."""

    def __init__(self, path: Path, name: str, say: Callable[[str], None], rules: Mapping[str, Rule]) -> None:
        self.model, self.batch = _one_image(read_tflite(path))
        self.b = Builder(name)
        self.say, self.rules = say, rules
        self.edge = self.b.edge                    # tensor -> edge
        self.read: set[int] = set()                # tensors that are read at all
        # where a tensor's elements stand in its edge, if in another order, or the tensor is no image
        self.places: dict[int, np.ndarray] = {}
        self.softmax: Tensor | None = None         # what the function behind the output reads, where one is left out
        self.tail: set[int] = set()                # tensors behind it
        # shape and permutation, where a TRANSPOSE turns the input
        self.order: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self.shapes: set[int] = set()
        self.grid: tuple[float, int] | None = None             # of the input, where the file takes floats

    def tensor(self, op: Op, index: int) -> Tensor:
        if index < 0:
            raise ModelError(f"{op.text} lacks an input that it needs")
        return self.model.tensors[index]

    def int8(self, op: Op, t: Tensor) -> Tensor:
        """Refuse tensors that are not int8 with one scale."""
        if t.dtype == "UINT8":
            raise ModelError(f"{op.text}: tensor '{t.name}' has the type UINT8; supported: INT8, and UINT8 in front of the first "
                             "QUANTIZE or behind the last")
        if t.dtype != "INT8":
            raise ModelError(f"{op.text}: tensor '{t.name}' has the type {t.dtype}; supported: INT8. Convert with "
                             "full integer quantization")
        if t.scale.size != 1:
            raise ModelError(f"{op.text}: tensor '{t.name}' must have one scale, not {t.scale.size}")
        if not -128 <= int(t.zero[0]) <= 127:
            raise ModelError(f"{op.text}: tensor '{t.name}' has the zero point {int(t.zero[0])}, which is no INT8")
        return t

    def same_scale(self, op: Op, x: Tensor, out: Tensor) -> None:
        """Refuse an operator that only moves codes between tensors of different scales."""
        self.int8(op, x), self.int8(op, out)
        if x.scale[0] != out.scale[0] or x.zero[0] != out.zero[0]:
            raise ModelError(f"{op.text}: scale and zero point of '{x.name}' ({x.scale[0]:.9g}, {x.zero[0]}) and '{out.name}' "
                             f"({out.scale[0]:.9g}, {out.zero[0]}) differ, for which the kernels define no result")

    def source(self, op: Op, position: int) -> str:
        """Return the edge of an operator's input."""
        index = op.inputs[position] if position < len(op.inputs) else -1
        t = self.tensor(op, index)
        if index not in self.edge:
            raise ModelError(f"{op.text}: input {position} '{t.name}' is "
                             f"{'a constant' if t.data is not None else 'made by no operator before it'}, "
                             "which is not supported there")
        if index in self.places and op.kind not in MOVES:
            self.gather(t)
        return self.edge[index]

    def gather(self, t: Tensor) -> None:
        """Give a tensor whose elements stand elsewhere an edge where they stand in order."""
        shape = edge_shape(t.shape)
        if len(shape) not in (1, 3):
            raise ModelError(f"Tensor '{t.name}' of the shape {t.shape} is read where an image or a flat tensor is supported")
        edge = self.b.arrange(_short(t.name) or "moved", self.edge[t.index], self.places.pop(t.index), shape)
        self.b.stand(t.index, edge)
        self.b.tensors[edge] = t.index

    def run(self) -> Imported:
        m = self.model
        for what, ends in (("input", m.inputs), ("output", m.outputs)):
            if len(ends) != 1:
                raise ModelError(f"The network has {len(ends)} {what}s; one is accepted")
        needed = self.needed()
        reads = [*m.outputs, *(index for op in m.ops if op.index in needed for index in op.inputs)]
        self.read = set(reads)
        self.b.expect(reads)
        self.input(m.tensors[m.inputs[0]])
        if self.batch > 1:
            self.b.note(f"The file takes {self.batch} inputs at a time; the network takes one")
        for op in m.ops:
            if op.index in needed:
                self.say(f"{op.index + 1} of {len(m.ops)} operators")
                for index in op.inputs:
                    self.b.read(index)
                self.operator(op)
            else:
                self.b.note(f"Left out, because the output does not depend on it: {op.text}")
        if m.outputs[0] in self.places:
            self.gather(m.tensors[m.outputs[0]])
        last = self.edge.get(m.outputs[0])
        if last is None:
            raise ModelError("The network's output is made by no operator")
        graph = self.b.finish(last)
        x, y = m.tensors[m.inputs[0]], self.softmax or m.tensors[m.outputs[0]]
        return Imported(graph, "tflite", tuple(self.b.notes), dict(self.b.tensors), meaning(x), meaning(y),
                        {"content": m.content, "batch": self.batch, "dtype": x.dtype, "shape": x.shape, "grid": self.grid,
                         "order": self.order, "names": {t.index: t.name.split(";")[0] or f"tensor {t.index}" for t in m.tensors}})

    def needed(self) -> set[int]:
        """Return the operators that the output depends on."""
        tensors, ops = set(self.model.outputs), set()
        for op in reversed(self.model.ops):
            if tensors & set(op.outputs):
                ops.add(op.index)
                tensors |= set(op.inputs)
        return ops

    def input(self, t: Tensor) -> None:
        if len(t.shape) not in (2, 3, 4) or t.shape[0] != 1 or min(t.shape) < 1:
            raise ModelError(f"The input '{t.name}' has the shape {t.shape}; accepted: a batch and 1, 2 or 3 "
                             "axes, all of them known")
        if t.dtype not in ("INT8", "UINT8", "FLOAT32"):
            raise ModelError(f"The input '{t.name}' has the type {t.dtype}; supported: INT8 (or UINT8 or FLOAT32 "
                             "in front of a QUANTIZE)")
        if t.dtype == "FLOAT32":
            return                                 # the QUANTIZE behind it makes the input
        lo, hi = (-128, 127) if t.dtype == "INT8" else (0, 255)
        self.b.stand(t.index, self.b.add(ir.Input("input", (), edge_shape(t.shape), lo, hi)))
        self.b.tensors["input"] = t.index

    def operator(self, op: Op) -> None:
        rule = self.rules.get(op.kind)
        if op.kind in _SHAPES and all(i < 0 or self.model.tensors[i].data is not None
                                      or i in (self.edge if op.kind == "SHAPE" else self.shapes) for i in op.inputs):
            self.shapes.update(op.outputs)
            return
        if op.kind == "TOPK_V2":
            raise ModelError(f"{op.text} is not supported: TensorFlow Lite Micro, which says here what is exact, has no kernel for "
                             "it; take ARG_MAX, or end in what it ranks")
        if op.kind in _SHAPES and rule is None:
            raise ModelError(f"{op.text} of the network's data is not supported; supported: of shapes")
        if rule is None:
            raise ModelError(f"{op.text} is not supported; supported: {', '.join(sorted({*self.rules, *_SHAPES}))}")
        if len(op.outputs) != 1 and op.kind not in _PARTS or "BuiltinOptions2" in op.options:
            raise ModelError(f"{op.text} has {len(op.outputs)} outputs or options that this hwq does not know")
        for index in op.outputs:
            if index in self.read:
                self.output(op, rule, self.model.tensors[index])

    def output(self, op: Op, rule: Rule, out: Tensor) -> None:
        """Make the nodes of one of an operator's outputs."""
        try:
            edge = rule(self, op, out, self.b.unique(_short(out.name) or op.kind.lower()))
        except KeyError as error:
            raise FormatError(f"{op.text} lacks its options ({error})") from None
        self.b.stand(out.index, edge)
        if out.index in self.places:
            return
        shape = self.b.edges[edge].shape
        if shape != edge_shape(out.shape) and not same_stream(shape, edge_shape(out.shape)) or out.shape[:1] != (1,):
            if math.prod(out.shape) == math.prod(shape) and op.kind not in MOVES[:3]:
                return                             # a fully connected layer that keeps axes of 1
            raise FormatError(f"{op.text}: the file says that its result has the shape {out.shape}, but it has {(1, *shape)}")
        if out is not self.softmax and op.kind != "DEQUANTIZE" and out.index not in self.tail:
            self.b.tensors[edge] = out.index


def _short(name: str) -> str:
    """Return a readable part of a tensor's name, which joins the names of all fused operators by semicolons."""
    first = name.split(";")[0]
    return first.rsplit("/", 1)[0].removeprefix("model/").replace("/", ".") if "/" in first else first


def meaning(t: Tensor) -> str:
    if not t.scale.size:
        return f"{t.dtype} '{t.name}'"
    return f"real = {float(t.scale[0]):.9g} * (integer - ({int(t.zero[0])}))"


Rule = Callable[[Importer, Op, Tensor, str], str]
