"""One door for other frameworks' files: finds out what a file is, imports it, and compares it with its source."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import FormatError, ModelError
from ..formats import FixedPoint, parse_spec
from .builder import Imported
from .check import Report
from .onnx_context import InputGrid

__all__ = ["import_file", "compare_source", "input_grid"]


def input_grid(spec: str | None, scale: str | None = None) -> InputGrid | None:
    """Return what ``dfp:b=8,fl=6`` and a scale such as ``1/255`` say of the input, or None for None.

    Raises
    ------
    FormatError
        No fixed-point format, or neither ``fl`` nor a scale, or both.
    """
    if spec is None:
        if scale is not None:
            raise FormatError("An input scale needs an input format, such as udfp:b=8")
        return None
    found = parse_spec(spec)
    if found.kind not in ("dfp", "udfp"):
        raise FormatError(f"Input format {spec!r} must be dfp or udfp, such as dfp:b=8,fl=6")
    if (found.scale is None) == (scale is None):
        raise FormatError(f"Input format {spec!r} needs either fl or an input scale, such as 1/255")
    try:
        unit = Fraction(2) ** -found.scale if found.scale is not None else Fraction(str(scale))
    except (ValueError, ZeroDivisionError):
        raise FormatError(f"Input scale {scale!r} must be a positive number or quotient, such as 0.05 or 1/255") from None
    if unit <= 0:
        raise FormatError(f"Input scale {scale!r} must be positive")
    fmt = found.resolve(0)
    assert isinstance(fmt, FixedPoint)
    return InputGrid(unit, *fmt.range)


def import_file(path: str | Path, name: str | None = None, *, grid: InputGrid | None = None, output_bits: int | None = None,
                say: Callable[[str], None] = lambda text: None) -> Imported:
    """Return the integer network of a TensorFlow Lite or ONNX file.

    Parameters
    ----------
    path : path
        The file; what it is, is read from its content.
    name : str, optional
        Name of the network; default: the file's.
    grid : InputGrid, optional
        Of `input_grid`: ONNX files without a quantizer at the input need it.
    output_bits : int, optional
        See `import_onnx`.
    say : function of str
        Told what is being done.

    Raises
    ------
    FormatError, ModelError, EnvironmentError_
        What is wrong with the file or not supported, by name; a package that is missing.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror}") from None
    if head[4:8] == b"TFL3" or path.suffix == ".tflite":
        if grid is not None or output_bits is not None:
            raise ModelError(f"{path}: a TensorFlow Lite file says itself what its integers mean; leave input "
                             "format and output bits out")
        from .tflite_import import import_tflite
        return import_tflite(path, name, say)
    from .onnx_import import import_onnx
    return import_onnx(path, name, grid=grid, output_bits=output_bits, say=say)


def compare_source(imported: Imported, inputs: np.ndarray | None = None, count: int = 8, seed: int = 0,
                   say: Callable[[str], None] = lambda text: None) -> Report:
    """Return the comparison with the source framework, layer by layer.

    Parameters
    ----------
    imported : Imported
        Of `import_file`.
    inputs : array (n, ...), optional
        For TensorFlow Lite the input integers (n, *input shape), for ONNX its float inputs; default: random ones.
    count, seed : int
        Of the random inputs.
    say : function of str
        Told how many inputs are done.

    Raises
    ------
    EnvironmentError_, ToolError
        The source framework is missing or refuses the file.
    ModelError
        Inputs that the network does not take.
    """
    if imported.source == "tflite":
        from .tflite_check import compare_tflite
        node, given = imported.graph.input, inputs is not None
        if inputs is None:
            inputs = np.random.default_rng(seed).integers(node.lo, node.hi + 1, (count, *node.shape))
            inputs[:2] = np.array([node.lo, node.hi]).reshape(-1, *[1] * len(node.shape))[:len(inputs)]
        if inputs.dtype.kind not in "iu" or inputs.size % max(1, int(np.prod(node.shape))):
            raise ModelError(f"The network takes integers {node.lo}..{node.hi} of the shape {node.shape}, not "
                             f"{inputs.dtype} of {inputs.shape}")
        if given and imported.details["order"] is not None:    # in the file's order, which a TRANSPOSE turns
            shape, order = imported.details["order"]
            inputs = inputs.reshape(-1, *shape[1:]).transpose(order)
        return compare_tflite(imported, inputs.reshape(-1, *node.shape).astype(np.int64), say)
    from .onnx_check import compare_onnx, random_floats
    return compare_onnx(imported, random_floats(imported, count, seed) if inputs is None else inputs, say)
