"""Write the core: ``accel.il`` is what gets built, ``accel.v`` its sibling for simulators and vendor tools."""

import json
from pathlib import Path

from hwq.rtl.accelerator import Accelerator
from hwq.rtl.rtlil import rtlil_text

from ..ir.graph import Graph
from ..ir.storage import save
from ..plan import Plan
from .manifest import Manifest, make_manifest
from .verilog import NO_CONTENTS, write_verilog

__all__ = ["SYNTH_PRELUDE", "emit_core"]

# Assertions are for simulation. The ports of every memory never meet at one address (hwq.rtl.memory asserts it), which
# the emulation of collisions would cost about 44 cells a block to respect.
SYNTH_PRELUDE = f"""read_rtlil accel.il
chformal -remove
hierarchy -top accel
{NO_CONTENTS}
setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:COLLISION_X_MASK=1'0 %i
"""


def emit_core(graph: Graph, plan: Plan, core: Accelerator, folder: Path, *, target: str) -> Manifest:
    """Write ``model.hwq``, ``accel.il``, ``accel.v`` and ``manifest.json`` to ``folder``; return the manifest.

    ``graph`` is the user's network: what verification compares with.
    """
    save(graph, folder / "model.hwq")
    (folder / "accel.il").write_text(rtlil_text(core, "accel"))
    manifest = make_manifest(graph, plan, core, target)
    write_verilog(folder, title=f"{graph.name}, network {manifest['model_hash'][:16]}, for {plan.device.name}; "
                                "made by hwq, do not edit")
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest
