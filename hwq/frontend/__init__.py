"""Frontends: other frameworks' networks to the IR. Each is imported on first use, so that one needs no other's framework."""

from importlib import import_module
from typing import Any

__all__ = ["convert", "require_convertible", "trace_codes", "compare", "import_file", "compare_source"]

_HOME = {"convert": "torch_fx", "require_convertible": "torch_fx", "trace_codes": "torch_fx", "compare": "equality",
         "import_file": "importer", "compare_source": "importer"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
