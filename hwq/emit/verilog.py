"""``accel.v``: plain Verilog-2001 from the core's RTLIL, for simulators and vendor tools."""

import re
from pathlib import Path

from hwq.rtl.memory import SPRAM

from ..toolchain import run_yosys

__all__ = ["NO_CONTENTS", "write_verilog", "plain_names"]

# Large RAM has no contents at the start; Amaranth gives every memory zeros.
NO_CONTENTS = f"delete t:$meminit_v2 r:MEMID=\\\\{SPRAM} %i"

# write_verilog keeps all attributes or none: drop all but those that place memories. Vivado has no rom_style "logic", and
# its "distributed" is an error in Yosys where a family has no such ROM: small tables are left to Vivado, which takes LUTs.
# Quartus has names of its own and finds block RAM by itself. The ports of a RAM never meet at one address (hwq.rtl.memory
# asserts it), so Quartus may leave its checks out.
_SCRIPT = f"""read_rtlil accel.il
chformal -remove
hierarchy -top accel
{NO_CONTENTS}
proc
opt_clean
setattr -unset src -unset generator -unset init_src -unset full_case */t:* */w:* */m:* */p:*
setattr -mod -unset src -unset generator -unset amaranth.hierarchy -unset top -unset keep_hierarchy *
setattr -set romstyle "logic" */m:* */a:rom_style=logic %i
setattr -unset rom_style */m:* */a:rom_style=logic %i
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
