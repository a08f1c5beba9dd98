"""Verification: simulations of the core, compared with the interpreter."""

from .folder import load_build
from .report import VerifyReport
from .verify import SIMULATORS, verify

__all__ = ["verify", "VerifyReport", "SIMULATORS", "load_build"]
