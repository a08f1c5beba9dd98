"""Quantizers of ONNX and QONNX, on constants and on edges: in real arithmetic, with the rounding that the file states."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from .onnx_context import Context, refuse
from .onnx_file import OnnxNode
from .onnx_values import ULP, Const, View, fractions_of
from .rounding import MODES, Step, round_exact, step

__all__ = ["int_quant", "bipolar_quant", "multi_threshold", "trunc", "quantize_linear", "dequantize_linear"]

Values = Sequence["Const | View | None"]


def _constant(node: OnnxNode, values: Values, position: int, what: str) -> Const:
    value = values[position] if position < len(values) else None
    if not isinstance(value, Const):
        refuse(node, f"its {what} must be a constant")
    assert isinstance(value, Const)
    if value.value.dtype.kind == "f" and not np.isfinite(value.value).all():
        refuse(node, f"its {what} holds NaN or infinity")
    return value


def _integer(node: OnnxNode, constant: Const, what: str, least: int | None = None, most: int | None = None) -> int:
    values = np.unique(constant.value)
    if values.size != 1 or values[0] != np.rint(values[0]):
        refuse(node, f"its {what} must be one integer, not {values[:4].tolist()}")
    number = int(values[0])
    if (least is not None and number < least) or (most is not None and number > most):
        refuse(node, f"its {what} = {number} is not supported; supported: {least}..{most}")
    return number


def _scale(node: OnnxNode, values: Values, position: int) -> Const:
    scale = _constant(node, values, position, "scale")
    if scale.value.size == 0 or (scale.value <= 0).any():
        refuse(node, f"its scale must be positive, not {float(scale.value.min(initial=0)):g}")
    return scale


def _mode(node: OnnxNode, default: str) -> str:
    mode = str(node.attributes.get("rounding_mode", default)).upper()
    if mode not in MODES:
        refuse(node, f"rounding_mode = {mode!r} is not supported; supported: {', '.join(MODES)}")
    return mode


def _flag(node: OnnxNode, name: str) -> bool:
    if name not in node.attributes:
        refuse(node, f"attribute {name} is missing; executors refuse it and documents differ on its default. Set it to 0 or 1")
    if node.attributes[name] not in (0, 1):
        refuse(node, f"{name} = {node.attributes[name]!r} is not supported; supported: 0, 1")
    return bool(node.attributes[name])


def _fold(node: OnnxNode, x: Const, scale: np.ndarray, zero: np.ndarray, lo: int, hi: int, mode: str, zero_first: bool) -> Const:
    """Quantize a constant as every executor does: it divides in floats of the constant's own precision."""
    value = x.value if x.value.dtype == np.float64 else x.value.astype(np.float32)
    if not np.isfinite(value).all():
        refuse(node, f"{int((~np.isfinite(value)).sum())} of {value.size} constants are NaN or infinite")
    try:
        with np.errstate(all="ignore"):
            quotient = value / scale.astype(value.dtype) + (zero.astype(value.dtype) if zero_first else value.dtype.type(0))
        shape = np.broadcast_shapes(quotient.shape, value.shape)
    except ValueError:
        refuse(node, f"a scale of the shape {scale.shape} does not go with a constant of the shape {value.shape}")
    if shape != value.shape:
        refuse(node, f"a scale of the shape {scale.shape} does not go with a constant of the shape {value.shape}")
    quotient = np.clip(quotient.astype(np.float64), -(1 << 40), 1 << 40)   # beyond, all codes are the last one
    if mode in ("ROUND", "HALF_EVEN"):
        codes = np.rint(quotient).astype(np.int64)
    else:
        codes = np.array([round_exact(mode, q) for q in fractions_of(quotient).reshape(-1)], np.int64).reshape(value.shape)
    codes = np.clip(codes + (0 if zero_first else zero.astype(np.int64)), lo, hi) - zero.astype(np.int64)
    return _on_grid(codes, scale)


def _on_grid(ints: np.ndarray, scale: np.ndarray) -> Const:
    scale = np.broadcast_to(np.asarray(scale, np.float64), ints.shape)
    return Const((ints.astype(np.float32) * scale.astype(np.float32)).astype(np.float32), ints, scale)


def _rows(scales: Sequence[Fraction], zeros: Sequence[int], lo: int, hi: int, mode: str, zero_first: bool) -> list[list[Step]]:
    """Return where the real value reaches each code above ``lo``."""
    rows = []
    for c in range(max(len(scales), len(zeros))):
        s, z = scales[c % len(scales)], zeros[c % len(zeros)]
        if zero_first:
            steps = [step(mode, k) for k in range(lo + 1, hi + 1)]
            rows.append([((place - z) * s, strict) for place, strict in steps])
        else:
            steps = [step(mode, k - z) for k in range(lo + 1, hi + 1)]
            rows.append([(place * s, strict) for place, strict in steps])
    return rows


def int_quant(ctx: Context, node: OnnxNode, values: Values) -> Const | View:
    """Quant and IntQuant: ``(clamp(round(x / s + z)) - z) * s``."""
    x = values[0]
    scale, zero = _scale(node, values, 1), _constant(node, values, 2, "zero point")
    bits = _integer(node, _constant(node, values, 3, "bit width"), "bit width", 1, 32 if isinstance(x, Const) else 16)
    signed, narrow, mode = _flag(node, "signed"), _flag(node, "narrow"), _mode(node, "ROUND")
    if (zero.value != np.rint(zero.value)).any():
        refuse(node, "a zero point that is no integer is not supported")
    lo, hi = (-(1 << bits - 1) + narrow, (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1 - narrow)
    if signed and bits == 1:
        return _one_bit(ctx, node, x, scale, zero)
    if lo >= hi:
        refuse(node, f"bit width {bits} with narrow = {int(narrow)} leaves one value")
    if isinstance(x, Const):
        return _fold(node, x, scale.value.astype(np.float64), zero.value.astype(np.float64), lo, hi, mode, True)
    assert isinstance(x, View)
    scales = ctx.per_channel(node, x, scale)
    zeros = [int(z) for z in ctx.per_channel(node, x, zero)]
    even = ([1 / s for s in scales], [Fraction(z) for z in zeros]) if mode in ("ROUND", "HALF_EVEN") else None
    count = max(len(scales), len(zeros))
    shift = tuple(-zeros[c % len(zeros)] * scales[c % len(scales)] for c in range(count))
    return ctx.quantize(node, x, _rows(scales, zeros, lo, hi, mode, True), lo, hi,
                        tuple(scales[c % len(scales)] for c in range(count)), shift, even=even)


def _one_bit(ctx: Context, node: OnnxNode, x: "Const | View | None", scale: Const, zero: Const) -> Const | View:
    """A signed Quant of one bit: +1 where ``x / s + z >= 0``, else -1, less z; rounding mode and narrow do not count."""
    if zero.value.any():
        refuse(node, "a signed bit width of 1 with a zero point is not supported")
    return _signs(ctx, node, x, scale)


def _signs(ctx: Context, node: OnnxNode, x: "Const | View | None", scale: Const) -> Const | View:
    if isinstance(x, Const):
        if not np.isfinite(x.value).all():
            refuse(node, f"{int((~np.isfinite(x.value)).sum())} of {x.value.size} constants are NaN or infinite")
        return _on_grid(np.where(x.value >= 0, 1, -1).astype(np.int64), scale.value)
    assert isinstance(x, View)
    scales = ctx.per_channel(node, x, scale)
    return ctx.quantize(node, x, [[(Fraction(0), False)] * 2], -1, 1, tuple(scales), (Fraction(0),) * len(scales))


def bipolar_quant(ctx: Context, node: OnnxNode, values: Values) -> Const | View:
    """BipolarQuant: +s where ``x >= 0``, else -s."""
    return _signs(ctx, node, values[0], _scale(node, values, 1))


def multi_threshold(ctx: Context, node: OnnxNode, values: Values) -> View:
    """MultiThreshold: ``out_scale * #{x >= T} + out_bias``."""
    x = values[0]
    table = _constant(node, values, 1, "thresholds")
    if not isinstance(x, View) or table.value.ndim != 2 or table.value.shape[1] < 1:
        refuse(node, f"thresholds of the shape {table.value.shape} on "
               f"{'a constant' if isinstance(x, Const) else 'a tensor'} are not supported")
    assert isinstance(x, View)
    layout = str(node.attributes.get("data_layout", "NCHW" if len(x.shape) == 4 else "NC"))
    axis = len(x.dims) if layout.endswith("C") else 1
    if axis > len(x.dims):
        refuse(node, f"data_layout = {layout!r} does not go with the shape {x.shape}")
    rows_in = fractions_of(np.sort(table.value, axis=1))
    if len(rows_in) not in (1, x.shape[axis]):
        refuse(node, f"{len(rows_in)} rows of thresholds do not go with the shape {x.shape}")
    rows = [[(place, False) for place in row] for row in rows_in]
    if len(rows) > 1:                              # into the edge's order of channels
        shape = [1] * len(x.shape)
        shape[axis] = len(rows)
        places = ctx.per_channel(node, x, Const(np.arange(len(rows)).reshape(shape)))
        rows = [rows[int(p)] for p in places] if len(places) > 1 else rows
    scale, bias = (Fraction(float(node.attributes.get(key, default))) for key, default in (("out_scale", 1.0), ("out_bias", 0.0)))
    if scale == 0:
        refuse(node, "out_scale = 0 is not supported")
    low = bias / scale                             # codes that stand for multiples of the scale need no zero point, and join others
    lo, bias = (int(low), Fraction(0)) if low.denominator == 1 and abs(low) <= 1 << 15 else (0, bias)
    return ctx.quantize(node, x, rows, lo, lo + len(rows[0]), (scale,), (bias,))


def trunc(ctx: Context, node: OnnxNode, values: Values) -> View:
    """Trunc of version 1 (5 inputs: the scale stays) and 2 (6 inputs: a scale for the output, and a clamp)."""
    x = values[0]
    if not isinstance(x, View) or x.edge is None or len(values) not in (5, 6):
        refuse(node, f"{len(values)} inputs, the first {type(x).__name__}, are not supported; supported: 5 (version 1) or 6 "
               "(version 2) behind a layer")
    assert isinstance(x, View) and x.edge is not None
    scales, zeros = ctx.per_channel(node, x, _scale(node, values, 1)), \
        ctx.per_channel(node, x, _constant(node, values, 2, "zero point"))
    if len(scales) != 1 or len(zeros) != 1 or zeros[0].denominator != 1:
        refuse(node, "supported: one scale and one integer zero point")
    s, z, mode = scales[0], int(zeros[0]), _mode(node, "FLOOR")
    old = _integer(node, _constant(node, values, 3, "input bit width"), "input bit width", 1, 32)
    peak = float(ctx.peak(x).max()) / float(s) + abs(z)
    if len(values) == 5:
        new = _integer(node, _constant(node, values, 4, "output bit width"), "output bit width", 1, old)
        unit = Fraction(1 << (old - new))
        reach = int(peak / unit) + 2
        if reach > 1 << 15:
            refuse(node, f"results of up to {reach:,} are not supported")
        lo, hi, scale, shift = -reach, reach, s, -z * s
    else:
        out = _scale(node, values, 4)
        new = _integer(node, _constant(node, values, 5, "output bit width"), "output bit width", 1, 16)
        if out.value.size != 1:
            refuse(node, "supported: one output scale")
        scale = Fraction(float(out.value.reshape(-1)[0]))
        unit = Fraction(2) ** round(float(np.log2(float(scale / s))))
        signed, narrow = (bool(node.attributes.get(key, default)) for key, default in (("signed", 1), ("narrow", 0)))
        lo, hi = (-(1 << new - 1) + narrow, (1 << new - 1) - 1) if signed else (0, (1 << new) - 1 - narrow)
        shift = -(z / unit) * scale
    rows = []
    for k in range(lo + 1, hi + 1):                # code >= k: a / unit beyond a place; a = half even (x / s + z) is an integer
        place, strict = step(mode, k)
        place *= unit
        least = place.numerator // place.denominator + 1 if strict else -(-place.numerator // place.denominator)
        at, open_ = step("HALF_EVEN", least)
        rows.append(((at - z) * s, open_))
    return ctx.quantize(node, x, [rows], lo, hi, (scale,), (shift,))


_TYPES = {2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767), 21: (0, 15), 22: (-8, 7), 25: (0, 3), 26: (-2, 1)}
_KINDS = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767)}


def _along(node: OnnxNode, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a scale or zero point so that it broadcasts to the shape."""
    if array.size == 1:
        return array.reshape((1,) * len(shape))
    axis = int(node.attributes.get("axis", 1))
    if array.ndim != 1 or node.attributes.get("block_size", 0):
        refuse(node, f"blocked quantization (a scale of the shape {array.shape}) is not supported; supported: one scale, or one "
               "for each index of an axis")
    if not -len(shape) <= axis < len(shape) or shape[axis] != array.size:
        refuse(node, f"{array.size} scales do not go with axis {axis} of the shape {shape}")
    wide = [1] * len(shape)
    wide[axis] = array.size
    return array.reshape(wide)


def _zero(ctx: Context, node: OnnxNode, values: Values, like: np.ndarray) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Return the zero points and the range of their type (None: no zero point is given)."""
    if len(values) < 3 or values[2] is None:
        return np.zeros(like.shape, np.int64), None
    zero = _constant(node, values, 2, "zero point")
    name = node.inputs[2]
    kind = ctx.types.get(name) or _KINDS.get(zero.value.dtype.name)
    return zero.value.astype(np.int64), kind


def quantize_linear(ctx: Context, node: OnnxNode, values: Values, zero_first: bool = False) -> Const | View:
    """QuantizeLinear: codes ``saturate(half even (x / s) + z)``, or of an edge ``saturate(half even (x / s + z))``."""
    x = values[0]
    scale = _scale(node, values, 1)
    zero, kind = _zero(ctx, node, values, scale.value)
    if kind is None:
        kind = _TYPES.get(int(node.attributes.get("output_dtype", 0) or 2))
    if kind is None:
        refuse(node, "its type is not supported; supported: integers of 2 to 16 bits")
    assert kind is not None and isinstance(x, Const | View)
    shape = x.value.shape if isinstance(x, Const) else x.shape
    s, z = _along(node, scale.value, shape), _along(node, zero, shape)
    lo, hi = kind
    if isinstance(x, Const):
        folded = _fold(node, x, s.astype(np.float64), z.astype(np.float64), lo, hi, "ROUND", False)
        assert folded.ints is not None
        codes = folded.ints + np.broadcast_to(z, folded.ints.shape)
        return Const(codes, codes, np.ones((1,) * codes.ndim))
    scales = ctx.per_channel(node, x, Const(s))
    zeros = [int(v) for v in ctx.per_channel(node, x, Const(z))]
    count = max(len(scales), len(zeros))
    inverse = [1 / v for v in scales]
    base = 0
    if x.edge is not None and not zero_first and len(set(zeros)) == 1 and zeros[0] % 2 and ctx.ties(x, inverse):
        base = zeros[0]                            # ties to even codes less z: the edge carries the codes less z
    shift = tuple((base - zeros[c % len(zeros)]) * scales[c % len(scales)] for c in range(count))
    rows = _rows(scales, zeros, lo, hi, "ROUND", zero_first)
    return ctx.quantize(node, x, rows, lo - base, hi - base, tuple(scales[c % len(scales)] for c in range(count)), shift,
                        integer=Fraction(base), even=(inverse, [Fraction(z - base) for z in zeros]))


def dequantize_linear(ctx: Context, node: OnnxNode, values: Values) -> Const | View:
    """DequantizeLinear: ``(x - z) * s``."""
    x = values[0]
    scale = _scale(node, values, 1)
    zero, _ = _zero(ctx, node, values, scale.value)
    assert isinstance(x, Const | View)
    shape = x.value.shape if isinstance(x, Const) else x.shape
    s, z = _along(node, scale.value, shape), _along(node, zero, shape)
    if isinstance(x, Const):
        if x.value.dtype.kind not in "iu":
            refuse(node, f"its input must hold integers, not {x.value.dtype}")
        return _on_grid(x.value.astype(np.int64) - z, s)
    if not x.integer:
        refuse(node, "its input must come from a QuantizeLinear")
    x = ctx.plain(node, x) if x.clipped else x     # a Relu or Clip of codes
    scales = ctx.per_channel(node, x, Const(s))
    zeros = [int(v) for v in ctx.per_channel(node, x, Const(z))]
    count = max(len(scales), len(zeros), len(x.shift))         # a Concat of codes may have shifts of its own for each channel
    view = x.but(scale=tuple(scales[c % len(scales)] for c in range(count)), integer=False,
                 shift=tuple((x.shift[c % len(x.shift)] - zeros[c % len(zeros)]) * scales[c % len(scales)] for c in range(count)))
    return view.but(error=(float(ctx.peak(view).max()) * 2 * ULP,))
