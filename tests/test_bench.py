"""The measurements' own text: tables go between marks, and nothing else changes."""

import pytest

from bench.__main__ import replaced
from bench.peers import PEERS, table


def test_only_what_stands_between_the_marks_is_replaced():
    text = "a\n<!-- bench busy -->\nold\n<!-- end -->\nb\n<!-- bench wired -->\n<!-- end -->\nc\n"
    once = replaced(text, "wired", r"1 \g<0> 2")
    assert once == "a\n<!-- bench busy -->\nold\n<!-- end -->\nb\n<!-- bench wired -->\n1 \\g<0> 2\n<!-- end -->\nc\n"
    assert replaced(replaced(once, "busy", "x\ny"), "wired", "z") == (
        "a\n<!-- bench busy -->\nx\ny\n<!-- end -->\nb\n<!-- bench wired -->\nz\n<!-- end -->\nc\n")
    with pytest.raises(ValueError, match="the mark <!-- bench networks --> once"):
        replaced(text, "networks", "new")


def test_every_row_has_every_column():
    lines = table([*PEERS, {"net": "N3", "who": "**hwq core**", "part": "up5k", "note": "does not fit"}]).splitlines()
    assert len(lines) == len(PEERS) + 3 and len({line.count("|") for line in lines}) == 1
