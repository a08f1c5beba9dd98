"""Build the core's component tree from a plan."""

from amaranth.lib import wiring

from hwq.rtl.accelerator import Accelerator
from hwq.rtl.common import shape_of
from hwq.rtl.stage import Folding, gears

from ..ir.graph import Graph
from ..plan import Plan, frames_under_way

__all__ = ["lower"]


def lower(graph: Graph, plan: Plan) -> Accelerator:
    """Return the core for ``graph`` as planned; the technology is the planned device's.

    Module names are the layers' names, which come from the torch module.
    """
    technology = plan.device.technology
    stages: list[tuple[str, wiring.Component]] = []
    lanes = plan.in_lanes
    for planned in plan.layers:
        stage = planned.layer.stage(planned.fold or Folding(), planned.in_lanes, technology)
        stages.append((planned.layer.name, stage))
        lanes = getattr(stage, "out_lanes", 1)
    out = graph.edges[graph.output.name]
    out_shape = stages[-1][1].o.payload.shape().elem_shape           # type: ignore[attr-defined]
    stages += gears(out_shape, lanes, 1)
    source = graph.input
    size, results = 1, 1
    for dim in source.shape:
        size *= dim
    for dim in out.shape:
        results *= dim
    return Accelerator(stages, in_range=(source.lo, source.hi), in_shape=shape_of(source.lo, source.hi),
                       in_lanes=plan.in_lanes, in_beats=size // plan.in_lanes, out_shape=out_shape, out_beats=results,
                       frames=frames_under_way(plan), technology=technology)
