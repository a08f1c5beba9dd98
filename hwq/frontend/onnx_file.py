"""Reads an ONNX file into plain values: bounded, checked, and refused by name where something is not known."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EnvironmentError_, FormatError, HwqError, ModelError
from .builder import MAX_ELEMENTS

__all__ = ["OnnxNode", "OnnxFile", "read_onnx", "evaluate", "MAX_BYTES"]

MAX_BYTES = 1 << 28
_MAX_NODES = 20_000
_STANDARD = ("", "ai.onnx")
# Numbers of TensorProto.DataType: (u)int8, (u)int16, (u)int4, (u)int2.
_RANGES = {2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767), 21: (0, 15), 22: (-8, 7), 25: (0, 3), 26: (-2, 1)}

_INPUTS = {0: "float32", 1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16"}


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """A node: operator, domain (empty: ONNX's own), name, names of its tensors (empty: none), attributes as plain values.

    ``told`` is how messages name it where it is but a part of a node of the file.
    """

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    proto: Any
    told: str = ""

    @property
    def text(self) -> str:
        """How messages name it."""
        return self.told or f"{self.op} '{self.name or (self.outputs[0] if self.outputs else '')}'"


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """The main graph; ``shape`` is the input's, ``output_shape`` the output's, None where a dimension is open.

    ``dtype`` is the input's, float32 or integers; ``ranges`` are those of integer constants' types.
    """

    nodes: tuple[OnnxNode, ...]
    constants: dict[str, np.ndarray]
    input: str
    shape: tuple[int | None, ...]
    dtype: str
    output: str
    output_shape: tuple[int | None, ...]
    opsets: dict[str, int]
    ranges: dict[str, tuple[int, int]]
    model: Any

    @property
    def opset(self) -> int:
        """Version of ONNX's own operators."""
        return max((self.opsets.get(domain, 1) for domain in _STANDARD), default=1)


def _array(tensor: Any, where: str) -> np.ndarray:
    from onnx import TensorProto, numpy_helper
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ModelError(f"{where} lies in another file, which is not read; save the model with all data inside")
    dims = tuple(tensor.dims)
    if any(d < 0 for d in dims) or int(np.prod(dims, dtype=object)) > MAX_ELEMENTS:
        raise ModelError(f"{where} claims the shape {dims}; the limit is {MAX_ELEMENTS:,} numbers")
    if tensor.data_type == TensorProto.STRING:
        raise ModelError(f"{where} holds text, which is not supported")
    held = len(tensor.raw_data) * 8 + 8 * sum(len(getattr(tensor, f"{k}_data"))
                                              for k in ("float", "int32", "int64", "double", "uint64"))
    if held < int(np.prod(dims, dtype=object)):
        raise FormatError(f"{where} claims the shape {dims} but holds less")
    array = numpy_helper.to_array(tensor)
    if array.dtype.name in ("int4", "uint4", "int2", "uint2"):
        return array.astype(np.int64)
    if array.dtype.kind not in "biuf":             # bfloat16, float8, complex
        raise ModelError(f"{where} has the type {TensorProto.DataType.Name(tensor.data_type)}, which is not supported")
    return array


def _attributes(node: Any, where: str) -> dict[str, Any]:
    from onnx import AttributeProto as A
    from onnx import helper
    values: dict[str, Any] = {}
    for a in node.attribute:
        if a.type in (A.GRAPH, A.GRAPHS, A.SPARSE_TENSOR, A.SPARSE_TENSORS, A.TENSORS, A.TYPE_PROTO,
                      A.TYPE_PROTOS) or a.ref_attr_name:
            raise ModelError(f"{where}: attribute {a.name} holds a graph or a type, which is not supported")
        value = _array(a.t, f"{where}: attribute {a.name}") if a.type == A.TENSOR else helper.get_attribute_value(a)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif isinstance(value, Iterable) and not isinstance(value, str | np.ndarray):
            value = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]
        values[a.name] = value
    return values


def _shape(value: Any) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)


def _read(content: bytes) -> OnnxFile:
    import onnx
    model = onnx.ModelProto()
    model.ParseFromString(content)
    graph = model.graph
    if len(graph.node) > _MAX_NODES or len(graph.initializer) > _MAX_NODES:
        raise ModelError(f"The graph has {len(graph.node):,} nodes and {len(graph.initializer):,} constants; the "
                         f"limit is {_MAX_NODES:,}")
    if not graph.node:
        raise FormatError("it is no ONNX model: it has no node")
    if model.functions:
        raise ModelError(f"The model defines functions of its own ({model.functions[0].name}), which are not "
                         "supported; inline them")
    if graph.sparse_initializer:
        raise ModelError("The model holds sparse constants, which are not supported")
    constants = {t.name: _array(t, f"Constant '{t.name}'") for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    for what, ends in (("input", inputs), ("output", graph.output)):
        if len(ends) != 1:
            raise ModelError(f"The network has {len(ends)} {what}s ({', '.join(e.name for e in ends)}); one is accepted")
    kind = inputs[0].type.tensor_type.elem_type
    if kind not in _INPUTS:
        name = onnx.TensorProto.DataType.Name(kind) if kind in onnx.TensorProto.DataType.values() else f"number {kind}"
        raise ModelError(f"The input '{inputs[0].name}' must be of float32, or of 8 or 16 bits in front of a DequantizeLinear, not "
                         f"of the type {name}; export with float inputs, and the quantizer in the graph")
    nodes = []
    for n in graph.node:
        where = f"{n.op_type} '{n.name or (n.output[0] if n.output else '')}'"
        nodes.append(OnnxNode(n.op_type, "" if n.domain in _STANDARD else n.domain, n.name, tuple(n.input), tuple(n.output),
                              _attributes(n, where), n))
    return OnnxFile(tuple(nodes), constants, inputs[0].name, _shape(inputs[0]), _INPUTS[kind], graph.output[0].name,
                    _shape(graph.output[0]), {o.domain: int(o.version) for o in model.opset_import},
                    {t.name: _RANGES[t.data_type] for t in graph.initializer if t.data_type in _RANGES}, model)


def read_onnx(path: str | Path) -> OnnxFile:
    """Return the content of a file.

    Raises
    ------
    FormatError
        Unreadable, no ONNX file, damaged, or larger than 256 MB.
    ModelError
        Something in it that is not supported.
    EnvironmentError_
        The package ``onnx`` is not installed.
    """
    try:
        import onnx  # noqa: F401
        from google.protobuf.message import DecodeError
    except ImportError:
        raise EnvironmentError_("Reading ONNX files needs the package 'onnx'; install it with: pip install 'hwq[onnx]'") from None
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(f"{path} has {path.stat().st_size:,} bytes; the limit is {MAX_BYTES:,}")
        content = path.read_bytes()
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror}") from None
    try:
        return _read(content)
    except HwqError as error:
        raise type(error)(f"{path}: {error}") from None
    except (DecodeError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, AssertionError) as error:
        raise FormatError(f"{path} is no ONNX model or damaged: {error!r}") from None


def evaluate(file: OnnxFile, node: OnnxNode, inputs: list[np.ndarray | None]) -> np.ndarray:
    """Return what ONNX's reference evaluator makes of a node of constants (of ONNX's own operators, bounded by the caller)."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator
    given = [(name, value) for name, value in zip(node.inputs, inputs, strict=True) if name and value is not None]
    unique = dict(given)
    graph = helper.make_graph([node.proto], "constant", [helper.make_value_info(name, helper.make_tensor_type_proto(
        helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)) for name, value in unique.items()],
        [helper.make_value_info(node.outputs[0], helper.make_tensor_type_proto(1, None))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", file.opset)])
    with np.errstate(all="ignore"):
        results: Any = ReferenceEvaluator(model).run(None, unique)
        return np.asarray(results[0])
