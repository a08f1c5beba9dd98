"""What the TFLite reference kernels compute on integers, on int64 arrays.

Double rounding everywhere, as TensorFlow Lite Micro and tflite-runtime's reference resolver do it.
"""

import math

import numpy as np

__all__ = ["quantize_multiplier", "quantize_multipliers", "multiply", "mean_multiplier", "activation_range"]

HALF = 1 << 30


def quantize_multiplier(value: float) -> tuple[int, int]:
    """Return a real factor as ``mantissa * 2**(exponent - 31)``, mantissa in ``2**30 .. 2**31 - 1``, or (0, 0)."""
    fraction, exponent = math.frexp(value)
    mantissa = math.floor(fraction * (1 << 31) + 0.5)
    if mantissa == 1 << 31:
        mantissa, exponent = HALF, exponent + 1
    return (0, 0) if exponent < -31 or value == 0 else (mantissa, exponent)


def quantize_multipliers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `quantize_multiplier` of each value as two int64 arrays."""
    pairs = [quantize_multiplier(float(v)) for v in values]
    return np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int64)


def multiply(x: np.ndarray, mantissa: np.ndarray | int, exponent: np.ndarray | int) -> np.ndarray:
    """Return ``MultiplyByQuantizedMultiplier``: a doubling high product rounded half up, then a shift rounded half away.

    The caller makes sure that ``x << exponent`` fits 32 bits where the exponent is positive.
    """
    left, right = np.maximum(exponent, 0), np.maximum(-np.asarray(exponent, np.int64), 0)
    high = ((x << left) * mantissa + HALF) >> 31
    mask = (np.int64(1) << right) - 1
    return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0))


def mean_multiplier(ratio: float, count: int) -> tuple[int, int]:
    """Return mantissa and exponent of the MEAN kernel: the ratio's, with the division by ``count`` folded in."""
    mantissa, exponent = quantize_multiplier(ratio)
    shift = min(count.bit_length() - 1, 32, 31 + exponent)
    return (mantissa << shift) // count, exponent - shift


def activation_range(kind: str, scale: np.float32, zero: int, lo: int = -128, hi: int = 127) -> tuple[int, int]:
    """Return the codes that a fused activation clamps to; ``kind`` is NONE, RELU, RELU6 or RELU_N1_TO_1."""
    def code(value: float) -> int:
        ratio = float(np.float32(value) / np.float32(scale))
        return zero + int(math.floor(abs(ratio) + 0.5)) * (1 if ratio >= 0 else -1)
    low, high = {"NONE": (None, None), "RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}[kind]
    return (lo if low is None else max(lo, code(low)), hi if high is None else min(hi, code(high)))
