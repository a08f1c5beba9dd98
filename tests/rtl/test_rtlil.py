# amaranth: UnusedElaboratable=no
"""Names in the text that Yosys reads."""

import re

from amaranth.hdl import Shape

from hwq.rtl.join import StreamConcat
from hwq.rtl.rtlil import rtlil_text, without_brackets


def test_lanes_have_no_brackets():
    text = rtlil_text(StreamConcat([Shape(4), Shape(4)], Shape(4), 2, [1, 1]), "top")
    assert r"payload.1" in text and not re.search(r"\\[^\s\[]*\[", text)


def test_slices_and_other_names_stay():
    text = ("wire width 3 \\a[6]\nwire width 2 \\m[0][12]\n  connect \\a[6] \\b [20:18]\n  connect \\a [6] $c [1]\n"
            "  cell \\$add $1\n")
    assert without_brackets(text) == \
        "wire width 3 \\a.6\nwire width 2 \\m.0.12\n  connect \\a.6 \\b [20:18]\n  connect \\a [6] $c [1]\n  cell \\$add $1\n"
