"""The core's component tree, made again from a build folder: for Amaranth's own simulator."""

import hashlib

from hwq.rtl.accelerator import Accelerator
from hwq.rtl.rtlil import rtlil_text

from ..errors import FormatError
from ..lower import lower
from ..passes import apply_passes
from ..plan import plan_of
from .folder import Build

__all__ = ["rebuild"]


def rebuild(build: Build) -> Accelerator:
    """Return the core of a build, proven to be the one that was built: its RTLIL is the build's, to the byte.

    Raises
    ------
    FormatError
        The build keeps no plan, or another version of hwq or Amaranth made it.
    EnvironmentError_
        Its ``accel.il`` is missing.
    """
    built = build.file("accel.il").read_bytes()
    if build.plan is None:
        raise FormatError(f"{build.path} keeps no plan: build again")
    ready = apply_passes(build.graph)
    text = rtlil_text(lower(ready, plan_of(ready, build.plan)), "accel").encode()
    if text != built:
        raise FormatError(
            f"{build.path} was built by another version of hwq or Amaranth: the same plan gives other RTLIL now (hash "
            f"{hashlib.sha256(text).hexdigest()[:16]}..., built was {hashlib.sha256(built).hexdigest()[:16]}...). Build again, "
            "or verify with --simulator verilator, which reads the Verilog that was built")
    return lower(ready, plan_of(ready, build.plan))      # a tree is elaborated once
