"""From an ONNX file (QONNX, QDQ or QOperator) to the integer network that computes the same reals."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np

from .. import ir
from ..errors import FormatError, HwqError, ModelError
from . import onnx_qoperator as codes
from . import onnx_shapes as shapes
from .builder import MAX_ELEMENTS, Imported
from .onnx_context import Context, InputGrid, LayoutError, refuse
from .onnx_file import OnnxFile, OnnxNode, evaluate, read_onnx
from .onnx_rules import LAST, MICROSOFT, Value, rule_of
from .onnx_values import Const, View

__all__ = ["import_onnx"]

V = TypeVar("V", bound=Const | View)

_FOLDED = ("Shape", "Gather", "Unsqueeze", "Squeeze", "Concat", "Reshape", "Transpose", "Slice", "Cast", "Identity", "Constant",
           "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Neg", "Abs", "Reciprocal", "Flatten", "Clip", "Min", "Max", "Floor", "Ceil",
           "ConstantOfShape")
_TAILS = ("Softmax", "LogSoftmax", "Sigmoid")      # left out at the end of a network
_CODE_TAILS = ("QLinearSoftmax", "QLinearSigmoid")
_BEHIND = ("QuantizeLinear", "DequantizeLinear", "Quant", "IntQuant", "Identity", "Cast")
_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
# need no image
_ANYWHERE = (*_MOVES, "Cast", "Dropout", "Relu", "Clip", "LeakyRelu", "Min", "Max", "QuantizeLinear", "DequantizeLinear", "Quant",
             "IntQuant")
_IMAGES = ("Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize", "Upsample", "Pad", "QLinearConv",
           "QLinearAveragePool", "QLinearGlobalAveragePool")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum")
_QUANTIZERS = ("Quant", "IntQuant", "BipolarQuant", "QuantizeLinear", "DequantizeLinear")
# a constant may be the first
_EITHER = (*_ARITHMETIC, *_QUANTIZERS, "Concat", "QLinearAdd", "QLinearMul", "QLinearConcat")
_REALS = ("Conv", "MatMul", "Gemm", "Add", "Sub", "Mul", "Div", "Sum", "BatchNormalization", "AveragePool", "GlobalAveragePool",
          "ReduceMean", "LeakyRelu", "PRelu", "QuantizeLinear", "Quant", "IntQuant", "BipolarQuant")


class _Importer:
    def __init__(self, file: OnnxFile, name: str, channels_last: bool, grid: InputGrid | None, output_bits: int | None,
                 say: Callable[[str], None]) -> None:
        self.file, self.say = file, say
        self.ctx = Context(file, name, channels_last, grid)
        self.ctx.output_bits = output_bits
        self.ctx.types.update(file.ranges)
        self.values: dict[str, Value] = {key: Const(value) for key, value in file.constants.items()}
        self.needed = self.find_needed()
        self.ctx.b.expect([file.output, *(name for node in file.nodes if id(node) in self.needed for name in node.inputs)])
        self.put(file.input, self.ctx.input)
        self.begun = 0                             # nodes that were
        self.tail: list[OnnxNode] = []
        self.tail_grid: tuple[Fraction, int] | None = None              # of the codes that it reads
        self.left_out: set[int] = set()
        self.kinds: dict[str, tuple[tuple[int, ...], str]] = {}         # shapes and types that the values do not tell

    def run(self) -> Imported:
        for count, node in enumerate(self.file.nodes):
            if id(node) in self.needed:
                self.begun += 1
                self.say(f"{count + 1} of {len(self.file.nodes)} nodes")
                self.node(node)
            else:
                self.ctx.b.note(f"Left out, because the output does not depend on it: {node.text}")
        out = self.values.get(self.file.output)
        if not isinstance(out, View) or out.edge is None:
            raise ModelError(f"The output '{self.file.output}' does not come from a layer of the network")
        if self.ctx.batch > 1 and self.file.output_shape[:1] not in ((), (None,), (self.ctx.batch,)):
            raise ModelError(f"The output '{self.file.output}' has the shape {self.file.output_shape}, but the input a batch of "
                             f"{self.ctx.batch}, which must be in front of every tensor")
        last = self.file.nodes[-1]
        self.ctx.b.awaited.clear()                 # the output is all that is left
        out = shapes.gathered(self.ctx, last, out) if out.scattered else out
        view = out if out.dims == () else self.ctx.common(last, self.ctx.plain(last, out))
        assert view.edge is not None
        view, graph = self.ended(view)
        output = self.tail[0].inputs[0] if self.tail and not graph.ranks else self.file.output
        tensors = {edge: check.tensor for edge, check in self.ctx.checks.items() if edge in graph.edges}
        x = self.values_in()
        return Imported(graph, "onnx", tuple(self.ctx.b.notes), dict(tensors), x, _meaning(view),
                        {"file": self.file, "checks": {e: c for e, c in self.ctx.checks.items() if e in graph.edges},
                         "output": view, "output_tensor": output,
                         "output_grid": self.tail_grid if output != self.file.output else None,
                         "dims": self.ctx.input_dims, "before": self.ctx.before_input,
                         "kinds": self.kinds | {
                             key: ((self.ctx.batch, *value.shape[1:]), "float32") if isinstance(value, View)
                             else (value.value.shape, value.value.dtype.name)
                             for key, value in self.values.items() if not (isinstance(value, View) and value.integer)},
                         "grid": self.ctx.grid})

    def ended(self, view: View) -> tuple[View, ir.Graph]:
        """Return the output and the graph that ends in it; a flat one in the file's order, as a class is a place."""
        axes, shape = [axis for _, axis in view.dims if axis is not None], self.ctx.b.edges[view.edge or ""].shape
        if len(view.dims) != 1 or view.order is None:
            if axes != sorted(axes):
                self.ctx.b.note(f"The output's integers come as {shape}: height, width, channels; the file's '{self.file.output}' "
                                f"is {view.shape[1:]}")
            return view, self.ctx.finish(view)
        assert view.edge is not None
        edge = self.ctx.b.arrange(f"{view.edge}.out", view.edge, view.order, shape)
        view = view.uniform().but(edge=edge, order=None)
        try:
            return view, self.ctx.finish(view)
        except ModelError as error:
            last = next((node for node in reversed(self.file.nodes) if node.op in _MOVES), self.file.nodes[-1])
            raise ModelError(f"The output '{self.file.output}' is an image whose elements the file puts into another order than "
                             f"the hardware's height, width, channels ({error}); end the network before {last.text}, and put them "
                             "into order on the host") from None

    def values_in(self) -> str:
        """Return what an input integer means."""
        if self.ctx.grid is not None:
            return f"'{self.file.input}' = {float(self.ctx.grid.scale):.9g} * integer"
        check = next(c for c in self.ctx.checks.values() if c.before is None)
        return f"'{check.tensor}' (behind the input's quantizer) = {_meaning(check.after)}"

    def find_needed(self) -> set[int]:
        """Return the nodes that the output depends on."""
        tensors, nodes = {self.file.output}, set()
        for node in reversed(self.file.nodes):
            if tensors & set(node.outputs):
                nodes.add(id(node))
                tensors |= set(node.inputs)
        return nodes

    def put(self, name: str, value: V) -> V:
        """Make a value known, or another one in its place; return it."""
        self.ctx.b.stand(name, value.edge if isinstance(value, View) else None)
        self.values[name] = value
        return value

    def node(self, node: OnnxNode) -> None:
        inputs: list[Value | None] = []
        for name in node.inputs:
            if name and name not in self.values:
                refuse(node, f"its input '{name}' is made by no node before it")
            value = self.values[name] if name else None
            if isinstance(value, View) and (value.scattered and node.op not in _ANYWHERE or node.op in _IMAGES):
                value = self.put(name, shapes.gathered(self.ctx, node, value, node.domain in LAST))
            inputs.append(value)
        for name in node.inputs:
            self.ctx.b.read(name)
        if not node.outputs or not node.outputs[0]:
            refuse(node, "it has no output")
        made = node.outputs[0]
        if node.domain == "" and node.op == "TopK":
            if made == self.file.output or any(made in other.inputs for other in self.file.nodes) or len(node.outputs) < 2:
                refuse(node, "the largest values are not supported; supported: their indices")
            made = node.outputs[1]
        found = self.value(node, inputs)
        several = dict(zip(node.outputs, found, strict=True)) if isinstance(found, list) else {made: found}
        for name, each in several.items():
            if each is not None:
                self.put(name, each)
        if node.domain == "" and node.op in ("ArgMax", "TopK") and isinstance(found, View):
            shape = self.ctx.batch, *found.shape[1:]
            self.kinds |= {node.outputs[0]: (shape, "float32"), made: (shape, "int64")}

    def value(self, node: OnnxNode, inputs: list[Value | None]) -> Value | list[View | None]:
        if node.domain == "" and node.op in _TAILS or node.domain in MICROSOFT and node.op in _CODE_TAILS:
            return self.softmax(node, inputs)
        if id(node) in self.left_out and isinstance(inputs[0], View):
            self.ctx.b.note(f"{node.text} is left out, as it follows what is")
            return inputs[0]
        if node.domain == "" and node.op == "Shape" and isinstance(inputs[0], View):
            start, end = (node.attributes.get(key) for key in ("start", "end"))
            return Const(np.array((self.ctx.batch, *inputs[0].shape[1:])[start:end], np.int64))
        if node.domain == "" and all(isinstance(i, Const) or i is None for i in inputs):
            folded = self.fold(node, inputs)
            if folded is not None:
                return folded
        rule = rule_of(node)
        if not any(isinstance(i, View) for i in inputs) and node.op not in _QUANTIZERS:
            refuse(node, "of constants alone is not supported" if inputs else "it has no input")
        if not isinstance(inputs[0], View) and node.op not in _EITHER:
            refuse(node, "its first input must come from the network's input")
        if node.op in _REALS and any(isinstance(i, View) and i.integer for i in inputs):
            refuse(node, "of integers, such as those of a QuantizeLinear, is not supported; put a DequantizeLinear "
                   "or a Cast between them")
        return rule(self.ctx, node, inputs)

    def fold(self, node: OnnxNode, inputs: list[Value | None]) -> Const | None:
        """Return a node of constants, evaluated as every executor does; None if it is a quantizer or not foldable."""
        if node.op not in _FOLDED:
            return None
        constants = [i for i in inputs if isinstance(i, Const)]
        if node.op in _MOVES and constants and constants[0].ints is not None:
            rest = [None if i is None else i.value for i in inputs[1:]]      # type: ignore[union-attr]
            made = constants[0].moved(lambda a: evaluate(self.file, node, [np.ascontiguousarray(a), *rest]))
            return made
        sizes = [c.value.size for c in constants]
        shapes_ = [c.value.shape for c in constants]
        try:
            total = math.prod(np.broadcast_shapes(*shapes_)) \
                if node.op in ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Clip") else sum(sizes)
            if node.op == "ConstantOfShape" and constants:
                total = math.prod(max(int(v), 0) for v in constants[0].value.reshape(-1)[:32])
            if node.op == "Gather" and len(constants) == 2:
                total = constants[1].value.size * max(constants[0].value.size, 1)
            if total > MAX_ELEMENTS:
                refuse(node, f"its result would have {total:,} numbers; the limit is {MAX_ELEMENTS:,}")
            if node.op == "Constant":
                return self.constant(node)
            return Const(evaluate(self.file, node, [None if i is None else i.value for i in inputs]))        # type: ignore[union-attr]
        except HwqError:
            raise
        except Exception as error:                 # whatever the evaluator raises on malformed nodes
            refuse(node, f"it cannot be evaluated: {error}")
        return None

    def constant(self, node: OnnxNode) -> Const:
        for key, kind in (("value", None), ("value_float", np.float32), ("value_int", np.int64), ("value_floats", np.float32),
                          ("value_ints", np.int64)):
            if key in node.attributes:
                return Const(np.asarray(node.attributes[key], kind))
        refuse(node, f"its attributes {', '.join(node.attributes) or 'are missing and'} are not supported; supported: value")
        raise AssertionError

    def softmax(self, node: OnnxNode, inputs: list[Value | None]) -> View:
        view, behind, rounded = inputs[0], {node.outputs[0]}, node.op not in ("Softmax", "LogSoftmax")
        if node.op in _CODE_TAILS:
            view, self.tail_grid = codes.reals(self.ctx, node, inputs, 0), codes.grid_of(node, inputs, 1)
        for other in self.file.nodes:
            if behind & set(other.inputs):
                if other.op not in _BEHIND and (other.op not in ("ArgMax", "TopK") or rounded):
                    refuse(node, f"in the middle of a network, before {other.text}, is not supported; "
                           "supported: as the last operator")
                if other.op in _BEHIND:
                    behind |= set(other.outputs)
                    self.left_out.add(id(other))
                    rounded |= "Quant" in other.op
        axis = int(node.attributes.get("axis", -1 if self.file.opset >= 13 else 1))
        if not isinstance(view, View) or "Sigmoid" not in node.op and (len(view.dims) != 1 or axis % 2 != 1):
            refuse(node, f"axis = {axis} of {getattr(view, 'shape', 'constants')} is not supported; supported: a flat tensor, "
                   "the axis behind the batch")
        assert isinstance(view, View)
        self.ctx.b.note(f"{node.text} is left out: the output is its input. " + (
            "It rises with its input: positive inputs are above a half" if "Sigmoid" in node.op
            else "The largest value stays the largest"))
        self.tail.append(node)
        return view


def _meaning(view: View) -> str:
    if len(view.scale) != 1 or len(view.shift) != 1:
        return "a scale for each channel"
    scale, shift = float(view.scale[0]), float(view.shift[0])
    return f"{scale:.9g} * integer" + (f" + {shift:.9g}" if shift else "")


def import_onnx(path: str | Path, name: str | None = None, *, grid: InputGrid | None = None, output_bits: int | None = None,
                say: Callable[[str], None] = lambda text: None) -> Imported:
    """Return the integer network of a quantized ONNX file.

    It computes in real arithmetic on the file's own constants, with the rounding modes that the file states; a floating
    point executor may differ where a value lies closer to a rounding step than its own error.

    Parameters
    ----------
    path : path
        The file.
    name : str, optional
        Name of the network; default: the file's.
    grid : InputGrid, optional
        What the input's integers are; needed where the graph has no quantizer at its input.
    output_bits : int, optional
        Allow outputs with scales of their own to be rounded to about so many bits.
    say : function of str
        Told what is being done.

    Raises
    ------
    FormatError, ModelError, EnvironmentError_
        See `read_onnx`; an operator or attribute without an exact counterpart, by name.
    """
    path = Path(path)
    file = read_onnx(path)
    failure: HwqError | None = None
    furthest = 0                                   # the layout that is right gets further, and knows what is wrong
    for channels_last in (False, True):
        importer = None
        try:
            importer = _Importer(file, name or path.stem, channels_last, grid, output_bits, say)
            return importer.run()
        except HwqError as error:
            begun = importer.begun if importer else 0
            if failure is None or begun > furthest:
                failure, furthest = error, begun
            if not isinstance(error, LayoutError):
                break
        # of malformed values
        except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            failure = FormatError(f"it is malformed: {error!r}")
            break
    assert failure is not None
    kind = ModelError if isinstance(failure, LayoutError) else type(failure)
    raise kind(f"{path}: {failure}") from None
