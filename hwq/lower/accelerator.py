"""Build the core's component tree from a plan."""

from math import prod

from amaranth.lib import wiring

from hwq.rtl.accelerator import Accelerator
from hwq.rtl.common import shape_of
from hwq.rtl.stage import gears

from ..ir.graph import Graph
from ..plan import Plan, frames_under_way

__all__ = ["lower"]


def lower(graph: Graph, plan: Plan) -> Accelerator:
    """Return the core for ``graph`` as planned; the technology is the planned device's.

    Module names are the layers' names, which come from the torch module.
    """
    technology = plan.device.technology
    stages: list[tuple[str, wiring.Component]] = []
    sources = {}
    for planned in plan.layers:
        name, reads = planned.layer.name, planned.layer.sources
        if buffer := planned.buffer(technology):
            stages.append((f"{name}_fifo", buffer))
            sources[f"{name}_fifo"], reads = reads, (f"{name}_fifo",)
        stages.append((name, planned.stage(technology)))
        sources[name] = reads
    last, stage = stages[-1]
    out_shape = stage.o.payload.shape().elem_shape                   # type: ignore[attr-defined]
    for name, gear in gears(out_shape, getattr(stage, "out_lanes", 1), 1):
        stages.append((name, gear))
        sources[name], last = (last,), name
    source, out = graph.input, graph.edges[graph.output.name]
    return Accelerator(stages, sources, in_range=(source.lo, source.hi), in_shape=shape_of(source.lo, source.hi),
                       in_lanes=plan.in_lanes, in_beats=prod(source.shape) // plan.in_lanes, out_shape=out_shape,
                       out_beats=prod(out.shape), frames=frames_under_way(plan), technology=technology)
