"""The manifest: what a program needs to know of a core, beside the core."""

from dataclasses import asdict
from typing import Any, TypedDict

from hwq.rtl.accelerator import Accelerator

from ..ir.graph import Graph
from ..ir.storage import content_hash
from ..plan import Plan, plan_record

__all__ = ["Manifest", "make_manifest"]

# Port, direction, meaning.
_PORTS = (
    ("clk", "input", "clock, rising edge"), ("rst", "input", "reset, synchronous, active high"),
    ("s_axis_tdata", "input", "codes of a beat"), ("s_axis_tvalid", "input", "there is a beat"),
    ("s_axis_tready", "output", "the core takes it"), ("s_axis_tlast", "input", "last beat of the frame"),
    ("m_axis_tdata", "output", "one result"), ("m_axis_tvalid", "output", "there is a result"),
    ("m_axis_tready", "input", "it is taken"), ("m_axis_tlast", "output", "last result of the frame"),
    ("m_axis_tuser", "output", "with tlast: 1 if the input frame was too short or too long"),
)


class Manifest(TypedDict, total=False):
    """What ``manifest.json`` holds: ports and formats of the core, and of which network it is; ``files`` has hashes."""

    format: int
    name: str
    model_hash: str
    target: str
    device: str
    input: dict[str, Any]
    output: dict[str, Any]
    ports: list[dict[str, Any]]
    classes: list[str]
    cycles: int
    startup_cycles: int
    plan: dict[str, Any]
    link: dict[str, int]
    files: dict[str, str]


def make_manifest(graph: Graph, plan: Plan, core: Accelerator, target: str) -> Manifest:
    """Return the manifest of a core, still without ``files``."""
    guard, framer = core.guard, core.framer
    out = graph.edges[graph.output.name]
    widths = {"s_axis_tdata": 8 * guard.bytes, "m_axis_tdata": 8 * framer.bytes}
    ports = [{"name": name, "direction": direction, "width": widths.get(name, 1), "meaning": meaning}
             for name, direction, meaning in _PORTS]
    return {
        "format": 1, "name": graph.name, "model_hash": content_hash(graph), "target": target, "device": plan.device.name,
        "input": {"bytes": guard.bytes, "beats": guard.beats, "lanes": guard.lanes, "width": guard.shape.width,
                  "signed": guard.shape.signed, "shape": list(graph.input.shape), "lo": graph.input.lo, "hi": graph.input.hi,
                  "preprocess": asdict(graph.preprocess) if graph.preprocess else None},
        "output": {"bytes": framer.bytes, "beats": framer.beats, "width": framer.shape.width, "signed": framer.shape.signed,
                   "shape": list(out.shape), "lo": out.lo, "hi": out.hi},
        "ports": ports, "classes": list(graph.classes),
        "cycles": plan.cycles, "startup_cycles": plan.device.technology.startup_cycles,
        "plan": plan_record(plan),
    }
