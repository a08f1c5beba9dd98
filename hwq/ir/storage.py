"""The ``.hwq`` file: a graph as JSON header and raw arrays, versioned and hashed. Never pickle.

Layout, little endian::

    8 bytes   b"HWQ-IR\\0" + version (1)
    8 bytes   length of the header in bytes, unsigned
    header    UTF-8 JSON, keys sorted: name, classes, preprocess, nodes, arrays (dtype, shape, offset)
    arrays    back to back, each of the smallest integer type that holds it
    32 bytes  SHA-256 of all that stands before
"""

import hashlib
import json
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, HwqError
from ..files import write_atomic
from ..formats import Format, parse_spec
from .graph import Graph, Preprocess
from .nodes import NODE_TYPES, Node

__all__ = ["save", "load", "dumps", "loads", "content_hash", "VERSION"]

VERSION = 1
_MAGIC = b"HWQ-IR\0"
_DTYPES: dict[str, np.dtype[Any]] = {"i1": np.dtype("<i1"), "i2": np.dtype("<i2"), "i4": np.dtype("<i4"), "i8": np.dtype("<i8")}


def _smallest(array: np.ndarray) -> str:
    for name, dtype in _DTYPES.items():
        info = np.iinfo(dtype)
        if not array.size or (info.min <= array.min() and array.max() <= info.max):
            return name
    raise AssertionError("int64 holds every array")


def dumps(graph: Graph) -> bytes:
    """Return the file's bytes; the same graph gives the same bytes."""
    arrays: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    offset = 0

    def plain(value: Any) -> Any:
        nonlocal offset
        if isinstance(value, np.ndarray):
            kind = _smallest(value)
            blob = value.astype(_DTYPES[kind]).tobytes()
            arrays.append({"dtype": kind, "shape": list(value.shape), "offset": offset})
            blobs.append(blob)
            offset += len(blob)
            return {"array": len(arrays) - 1}
        if isinstance(value, Format):
            return {"format": value.text}
        return list(value) if isinstance(value, tuple) else value

    nodes = [{"op": node.op, "name": node.name, "inputs": list(node.inputs),
              "attributes": {key: plain(value) for key, value in node.attributes().items()}} for node in graph]
    header = json.dumps({
        "name": graph.name, "classes": list(graph.classes), "nodes": nodes, "arrays": arrays,
        "preprocess": asdict(graph.preprocess) if graph.preprocess else None,
        **({"factory": graph.factory} if graph.factory else {}),
    }, sort_keys=True, separators=(",", ":")).encode()
    body = _MAGIC + bytes([VERSION]) + len(header).to_bytes(8, "little") + header + b"".join(blobs)
    return body + hashlib.sha256(body).digest()


def content_hash(graph: Graph) -> str:
    """Return the SHA-256 (hex) that stands at the end of the graph's file."""
    return dumps(graph)[-32:].hex()


def save(graph: Graph, path: str | Path) -> None:
    """Write ``graph`` to ``path``, whole or not at all."""
    write_atomic(Path(path), dumps(graph))


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no integer")


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no size, place or number of an array")
    return value


def loads(data: bytes, origin: str = "data") -> Graph:
    """Return the graph in a file's bytes; see `load`."""
    if data[:7] != _MAGIC:
        raise FormatError(f"{origin} is no .hwq file: it starts with {data[:8]!r}")
    if len(data) < 48:
        raise FormatError(f"{origin} is truncated: {len(data)} bytes")
    if data[7] != VERSION:
        raise FormatError(f"{origin} has version {data[7]} of the .hwq format; this hwq reads version {VERSION}: "
                          "make the file again with this hwq (hwq lower or hwq import), or read it with the hwq that made it")
    length = int.from_bytes(data[8:16], "little")
    if hashlib.sha256(data[:-32]).digest() != data[-32:]:
        raise FormatError(f"{origin} is truncated or damaged: its content does not match its hash; copy or make it again")
    try:
        header = json.loads(data[16:16 + length], parse_constant=_no_number)
        blobs = data[16 + length:-32]

        def rich(value: Any) -> Any:
            if isinstance(value, dict) and set(value) == {"array"}:
                entry = header["arrays"][_whole(value["array"])]
                shape = [_whole(size) for size in entry["shape"]]
                flat = np.frombuffer(blobs, _DTYPES[entry["dtype"]], prod(shape), _whole(entry["offset"]))
                return flat.astype(np.int64).reshape(shape)
            if isinstance(value, dict) and set(value) == {"format"}:
                spec = parse_spec(value["format"])
                return spec.resolve(spec.scale if spec.scale is not None else 0)
            return tuple(value) if isinstance(value, list) else value

        nodes: list[Node] = []
        for item in header["nodes"]:
            if item["op"] not in NODE_TYPES:
                raise FormatError(f"{origin}: unknown node type {item['op']!r}; known: {', '.join(NODE_TYPES)}")
            nodes.append(NODE_TYPES[item["op"]](item["name"], item["inputs"],
                                                **{key: rich(value) for key, value in item["attributes"].items()}))
        preprocess = Preprocess(**header["preprocess"]) if header["preprocess"] else None
        if not isinstance(header["classes"], list):
            raise FormatError(f"{origin}: classes must be a list, not {header['classes']!r}")
        return Graph(tuple(nodes), preprocess, tuple(header["classes"]), header["name"], header.get("factory", ""))
    except HwqError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError, MemoryError) as error:
        raise FormatError(f"{origin} is malformed: {error!r}") from None


def load(path: str | Path) -> Graph:
    """Read a ``.hwq`` file.

    Raises
    ------
    FormatError
        Not such a file, another version, truncated, damaged, or malformed.
    ModelError
        The graph inside is not sound.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror}") from None
    return loads(data, str(path))
