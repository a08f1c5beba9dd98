"""Reads a TensorFlow Lite file into plain values: bounded, checked, and refused by name where something is not known."""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EnvironmentError_, FormatError, HwqError, ModelError
from .builder import MAX_ELEMENTS

__all__ = ["Tensor", "Op", "Model", "read_tflite", "MAX_BYTES"]

MAX_BYTES = 1 << 28
_MAX_ITEMS = 20_000                                # tensors or operators
_DTYPES = {"FLOAT32": "<f4", "INT32": "<i4", "INT64": "<i8", "INT8": "<i1", "UINT8": "<u1", "INT16": "<i2", "BOOL": "<u1"}

# For each table of options: its fields in the order of the schema. A file that sets a later one is refused.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "Conv2DOptions": ("Padding", "StrideW", "StrideH", "FusedActivationFunction", "DilationWFactor", "DilationHFactor",
                      "QuantizedBiasType"),
    "DepthwiseConv2DOptions": ("Padding", "StrideW", "StrideH", "DepthMultiplier", "FusedActivationFunction", "DilationWFactor",
                               "DilationHFactor"),
    "FullyConnectedOptions": ("FusedActivationFunction", "WeightsFormat", "KeepNumDims", "AsymmetricQuantizeInputs",
                              "QuantizedBiasType"),
    "Pool2DOptions": ("Padding", "StrideW", "StrideH", "FilterWidth", "FilterHeight", "FusedActivationFunction"),
    "AddOptions": ("FusedActivationFunction", "PotScaleInt16"),
    "SoftmaxOptions": ("Beta",), "LeakyReluOptions": ("Alpha",),
    "ReshapeOptions": (),                          # new_shape: the output tensor's shape counts
    "ReducerOptions": ("KeepDims",),
    "ConcatenationOptions": ("Axis", "FusedActivationFunction"),
    "ResizeNearestNeighborOptions": ("AlignCorners", "HalfPixelCenters"),
    "ArgMaxOptions": ("OutputType",),
    "PackOptions": ("ValuesCount", "Axis"),
    "StridedSliceOptions": ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset"),
    "SplitOptions": ("NumSplits",), "SplitVOptions": ("NumSplits",), "SliceOptions": (),
    "SqueezeOptions": (), "PadOptions": (), "PadV2Options": (), "QuantizeOptions": (), "DequantizeOptions": (),
    "ShapeOptions": (), "ExpandDimsOptions": (), "TransposeOptions": (), "TopKV2Options": (),
}
_EXTRA_FIELDS = {"ReshapeOptions": 1, "SqueezeOptions": 1, "ShapeOptions": 1}      # known, read from the tensors instead


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the file: ``real = scale * (integer - zero)``; ``data`` is None unless it is a constant."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: np.ndarray
    zero: np.ndarray
    axis: int
    data: np.ndarray | None


@dataclass(frozen=True)
class Op:
    """An operator: its name in capitals, its tensors (-1: none), and the fields of its options."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """How messages name it."""
        return f"{self.kind} (operator {self.index})"


@dataclass(frozen=True)
class Model:
    """The main subgraph."""

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    content: bytes


def _names(enum: type) -> dict[int, str]:
    return {value: key for key, value in vars(enum).items() if isinstance(value, int)}


def _vector(table: Any, name: str, limit: int) -> np.ndarray:
    """Return a vector of numbers; its length was checked against the file's size first."""
    length = getattr(table, f"{name}Length")()
    if not 0 <= length <= limit:
        raise FormatError(f"a vector claims {length} elements")
    return np.array(getattr(table, f"{name}AsNumpy")()) if length else np.zeros(0, np.int64)


class _Reader:
    def __init__(self, content: bytes) -> None:
        import tflite
        self.t, self.content = tflite, content
        self.limit = len(content)
        self.kinds = _names(tflite.BuiltinOperator)
        self.types = _names(tflite.TensorType)
        self.tables = _names(tflite.BuiltinOptions)
        self.model = tflite.Model.GetRootAs(content, 0)

    def count(self, number: int) -> range:
        if not 0 <= number <= _MAX_ITEMS:
            raise FormatError(f"a vector claims {number} elements; the limit is {_MAX_ITEMS:,}")
        return range(number)

    def read(self) -> Model:
        if self.model.Version() != 3:
            raise FormatError(f"version {self.model.Version()} of the schema; version 3 is read")
        if self.model.SubgraphsLength() != 1:
            raise ModelError(f"The file has {self.model.SubgraphsLength()} subgraphs (control flow); one is accepted")
        graph = self.model.Subgraphs(0)
        tensors = tuple(self.tensor(i, graph.Tensors(i)) for i in self.count(graph.TensorsLength()))
        ops = tuple(self.op(i, graph.Operators(i), len(tensors)) for i in self.count(graph.OperatorsLength()))
        ends = [self.indices(graph, name, len(tensors)) for name in ("Inputs", "Outputs")]
        return Model(tensors, ops, ends[0], ends[1], self.content)

    def indices(self, table: Any, name: str, tensors: int) -> tuple[int, ...]:
        values = tuple(int(v) for v in _vector(table, name, self.limit // 4))
        if any(not -1 <= v < tensors for v in values):
            raise FormatError(f"an operator names the tensors {values}; there are {tensors}")
        return values

    def tensor(self, index: int, t: Any) -> Tensor:
        name = (t.Name() or b"").decode("utf-8", "replace")
        shape = tuple(int(v) for v in _vector(t, "Shape", 64))
        where = f"Tensor {index} '{name}'"
        if any(v < 0 for v in shape) or int(np.prod(shape, dtype=object)) > MAX_ELEMENTS:
            raise ModelError(f"{where} has the shape {shape}; the limit is {MAX_ELEMENTS:,} numbers")
        dtype = self.types.get(t.Type(), str(t.Type()))
        if t.Sparsity() is not None:
            raise ModelError(f"{where} is stored sparsely, which is not supported; convert without sparsity")
        if t.IsVariable():
            raise ModelError(f"{where} is a variable; networks with state are not supported")
        q = t.Quantization()
        scale, zero, axis = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
        if q is not None:
            if q.DetailsType():
                raise ModelError(f"{where} has custom quantization, which is not supported")
            scale = _vector(q, "Scale", self.limit // 4).astype(np.float32)
            zero = _vector(q, "ZeroPoint", self.limit // 4).astype(np.int64)
            axis = int(q.QuantizedDimension())
            zero = zero if zero.size else np.zeros(scale.size, np.int64)
            if zero.size not in (1, scale.size):
                raise FormatError(f"{where} has {scale.size} scales but {zero.size} zero points")
            if not np.isfinite(scale).all() or (scale <= 0).any():
                raise ModelError(f"{where}: scales must be positive and finite, not {scale[:4]}")
        return Tensor(index, name, shape, dtype, scale, zero, axis, self.data(t, where, shape, dtype))

    def data(self, t: Any, where: str, shape: tuple[int, ...], dtype: str) -> np.ndarray | None:
        if not 0 <= t.Buffer() < self.model.BuffersLength():
            raise FormatError(f"{where} names buffer {t.Buffer()} of {self.model.BuffersLength()}")
        buffer = self.model.Buffers(t.Buffer())
        if buffer is None:
            return None
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise ModelError(f"{where} lies outside the model's table (a file over 2 GB), which is not supported")
        if not buffer.DataLength() or dtype not in _DTYPES:
            return None
        raw, kind = buffer.DataAsNumpy(), np.dtype(_DTYPES[dtype])     # a view: tensors may share a buffer
        if len(raw) != kind.itemsize * int(np.prod(shape, dtype=np.int64)):
            raise FormatError(f"{where} has {len(raw)} bytes for the shape {shape} of {dtype}")
        return np.frombuffer(raw.tobytes() if kind.itemsize > 1 else raw, kind).reshape(shape)

    def op(self, index: int, o: Any, tensors: int) -> Op:
        if not 0 <= o.OpcodeIndex() < self.model.OperatorCodesLength():
            raise FormatError(f"operator {index} names code {o.OpcodeIndex()}")
        code = self.model.OperatorCodes(o.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        kind = self.kinds.get(number, f"operator number {number}")
        if kind == "CUSTOM":
            name = (code.CustomCode() or b"").decode("utf-8", "replace")
            raise ModelError(f"Operator {index} is the custom operator '{name}', which is not supported")
        inputs, outputs = self.indices(o, "Inputs", tensors), self.indices(o, "Outputs", tensors)
        if o.BuiltinOptions2Type():
            return Op(index, kind, inputs, outputs, {"BuiltinOptions2": o.BuiltinOptions2Type()})
        return Op(index, kind, inputs, outputs, self.options(f"{kind} (operator {index})", o))

    def options(self, where: str, o: Any) -> dict[str, Any]:
        name = self.tables.get(o.BuiltinOptionsType(), str(o.BuiltinOptionsType()))
        table = o.BuiltinOptions()
        if name == "NONE" or table is None:
            return {}
        if name not in _OPTIONS:
            return {"table": name}                 # the operator itself is refused
        options = getattr(self.t, name)()
        options.Init(table.Bytes, table.Pos)
        known = len(_OPTIONS[name]) + _EXTRA_FIELDS.get(name, 0)
        vtable = table.Pos - struct.unpack_from("<i", self.content, table.Pos)[0]
        size = struct.unpack_from("<H", self.content, vtable)[0]
        for slot in range(known, (size - 4) // 2):
            if struct.unpack_from("<H", self.content, vtable + 4 + 2 * slot)[0]:
                raise ModelError(f"{where} sets field {slot} of {name}, which this hwq does not know; known: "
                                 f"{', '.join(_OPTIONS[name])}")
        return {"table": name, **{key: getattr(options, key)() for key in _OPTIONS[name]}}


def read_tflite(path: str | Path) -> Model:
    """Return the content of a file.

    Raises
    ------
    FormatError
        Unreadable, no TFLite file, damaged, or larger than 256 MB.
    ModelError
        Something in it that is not supported.
    EnvironmentError_
        The package ``tflite`` is not installed.
    """
    try:
        import tflite  # noqa: F401
    except ImportError:
        raise EnvironmentError_("Reading TFLite files needs the package 'tflite'; install it with: pip install "
                                "'hwq[tflite]'") from None
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(f"{path} has {path.stat().st_size:,} bytes; the limit is {MAX_BYTES:,}")
        content = path.read_bytes()
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror}") from None
    if content[4:8] != b"TFL3":
        raise FormatError(f"{path} is no TFLite file: it lacks the mark TFL3")
    try:
        return _Reader(content).read()
    except HwqError as error:
        raise type(error)(f"{path}: {error}") from None
    except (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError, AssertionError) as error:
        raise FormatError(f"{path} is damaged: {error!r}") from None
