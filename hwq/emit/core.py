"""Write the core: ``accel.il`` is what gets built, ``accel.v`` its sibling for simulators and vendor tools."""

import json
from pathlib import Path

import numpy as np
from amaranth.back import rtlil

from hwq.rtl.accelerator import Accelerator

from .. import interp
from ..ir.graph import Graph
from ..ir.storage import content_hash, save
from ..plan import Plan, plan_record
from ..toolchain import run_yosys

__all__ = ["SYNTH_PRELUDE", "emit_core", "write_vectors"]

# Assertions are for simulation. The ports of every memory never meet at one address (hwq.rtl.memory asserts it), which
# the emulation of collisions would cost about 44 cells a block to respect.
SYNTH_PRELUDE = """read_rtlil accel.il
chformal -remove
hierarchy -top accel
setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:COLLISION_X_MASK=1'0 %i
"""

# write_verilog keeps all attributes or none: drop all but the two that place memories.
_VERILOG = """read_rtlil accel.il
chformal -remove
hierarchy -top accel
proc
opt_clean
setattr -unset src -unset generator -unset init_src -unset full_case */t:* */w:* */m:* */p:*
setattr -mod -unset src -unset generator -unset amaranth.hierarchy -unset top -unset keep_hierarchy *
delete t:$scopeinfo
write_verilog accel.v
"""


def emit_core(graph: Graph, plan: Plan, core: Accelerator, folder: Path, *, target: str) -> dict:
    """Write ``model.hwq``, ``accel.il``, ``accel.v`` and ``manifest.json`` to ``folder``; return the manifest.

    ``graph`` is the user's network: what verification compares with.
    """
    save(graph, folder / "model.hwq")
    (folder / "accel.il").write_text(rtlil.convert(core, name="accel", emit_src=False))
    run_yosys(_VERILOG, folder / "logs" / "verilog.log", folder)
    guard, framer = core.guard, core.framer
    manifest = {
        "format": 1, "name": graph.name, "model_hash": content_hash(graph), "target": target, "device": plan.device.name,
        "input": {"bytes": guard.bytes, "beats": guard.beats, "lanes": guard.lanes, "width": guard.shape.width,
                  "signed": guard.shape.signed},
        "output": {"bytes": framer.bytes, "beats": framer.beats, "width": framer.shape.width, "signed": framer.shape.signed},
        "cycles": plan.cycles, "startup_cycles": plan.device.technology.startup_cycles,
        "plan": plan_record(plan),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def write_vectors(graph: Graph, folder: Path, codes: np.ndarray) -> None:
    """Write golden vectors: input codes and the interpreter's results, one ``.npy`` each."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "input.npy", codes.astype(np.int64), allow_pickle=False)
    np.save(folder / "output.npy", interp.run_batches(graph, codes), allow_pickle=False)
