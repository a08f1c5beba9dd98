"""``accel.v``: plain Verilog-2001 from the core's RTLIL, for simulators and vendor tools."""

import re
from pathlib import Path

from ..toolchain import run_yosys

__all__ = ["write_verilog", "plain_names"]

# write_verilog keeps all attributes or none: drop all but those that place memories. Vivado calls the memories that Yosys
# calls "logic" "distributed"; Quartus has its own names, calls them "logic", and finds block RAM by itself. The ports of a
# RAM never meet at one address (hwq.rtl.memory asserts it): Quartus may leave its checks out.
_SCRIPT = """read_rtlil accel.il
chformal -remove
hierarchy -top accel
proc
opt_clean
setattr -unset src -unset generator -unset init_src -unset full_case */t:* */w:* */m:* */p:*
setattr -mod -unset src -unset generator -unset amaranth.hierarchy -unset top -unset keep_hierarchy *
setattr -set romstyle "logic" */m:* */a:rom_style=logic %i
setattr -set rom_style "distributed" */m:* */a:rom_style=logic %i
setattr -set ramstyle "no_rw_check" */m:* */a:ram_style=block %i
delete t:$scopeinfo
write_verilog accel.v
"""

_ESCAPED = re.compile(r"\\(\S+)\s")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")


def plain_names(text: str) -> str:
    """Return Verilog without escaped identifiers, such as ``\\accel.core``: some tools stumble over them.

    Each becomes letters, digits and ``_``, one name for all its places, unlike every other name of the file. Where names
    would meet, a number follows, in order of appearance; so the same text gives the same names.
    """
    taken = set(_PLAIN.findall(_ESCAPED.sub(" ", text)))
    names: dict[str, str] = {}

    def plain(match: re.Match[str]) -> str:
        escaped = match[1]
        if escaped not in names:
            wish = re.sub(r"[^A-Za-z0-9]+", "_", escaped).strip("_") or "n"
            wish = f"n{wish}" if wish[0].isdigit() else wish
            name, count = wish, 1
            # An escaped name that is plain already is a keyword of Verilog.
            while name in taken or name == escaped:
                count += 1
                name = f"{wish}_{count}"
            taken.add(name)
            names[escaped] = name
        return names[escaped]

    return _ESCAPED.sub(plain, text)


def write_verilog(folder: Path, *, title: str) -> None:
    """Write ``accel.v`` from ``accel.il`` in ``folder``; ``title`` becomes its first comment.

    Raises
    ------
    ToolError, EnvironmentError_
        Of Yosys.
    """
    run_yosys(_SCRIPT, folder / "logs" / "verilog.log", folder)
    file = folder / "accel.v"
    lines = file.read_text().splitlines(keepends=True)
    # The first line names the compiler that made Yosys; the report has the versions.
    body = "".join(lines[1:] if lines and lines[0].startswith("/*") else lines)
    file.write_text(f"// {title}\n{plain_names(body)}")
