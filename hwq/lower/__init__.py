"""Planned IR to component tree: the only place where graph and hardware meet."""

from .accelerator import lower

__all__ = ["lower"]
