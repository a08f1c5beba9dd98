"""A block tree as RTLIL, the text that Yosys reads."""

import re

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

__all__ = ["TEXT", "rtlil_text", "without_brackets"]

# The platform that blocks see when text is made of them, None in Amaranth's simulator: those with a cell of their own tell by it.
TEXT = object()

_PLACE = re.compile(r"(?<=[^\s\[])\[(\d+)\]")
_NAME = re.compile(r"\\[^\s\[]+(?:\[\d+\])+")


def without_brackets(text: str) -> str:
    """Return RTLIL with lanes called ``payload.6``, not ``payload[6]`` as Amaranth has it.

    Yosys' abc9 (0.70; ECP5) takes that name for bit 6 of ``payload`` where the lane comes back from it, without a word:
    the netlist reads another lane.
    """
    return _NAME.sub(lambda match: _PLACE.sub(r".\1", match[0]), text)


def rtlil_text(block: Elaboratable, name: str) -> str:
    """Return the block and all in it as RTLIL with the top module ``name``; the same tree gives the same text."""
    return without_brackets(rtlil.convert(block, name=name, platform=TEXT, emit_src=False))
