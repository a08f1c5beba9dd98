"""Verification: compiled simulation, and comparison with the interpreter."""

from .verify import VerifyReport, verify

__all__ = ["verify", "VerifyReport"]
