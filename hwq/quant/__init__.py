"""Quantization-aware training in torch: formats, fake quantizers, preparation of a user's model."""

from .prepare import InputSpec, QuantLayer, calibrate, freeze, prepare

__all__ = ["InputSpec", "QuantLayer", "prepare", "calibrate", "freeze"]
