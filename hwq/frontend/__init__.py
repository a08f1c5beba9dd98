"""Frontends: from other frameworks' networks to the integer IR."""

from .torch_fx import convert, trace_codes

__all__ = ["convert", "trace_codes"]
