"""A plan as plain data and back: what a build keeps, so that its core can be made again from its folder."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hwq.rtl.common import Cost
from hwq.rtl.stage import Folding

from ..errors import FormatError
from ..ir.graph import Graph
from .devices import device
from .layers import split
from .planner import Plan, PlannedLayer

__all__ = ["plan_record", "plan_of"]


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data: device, lanes, and the folding of every layer."""
    return {"device": plan.device.name, "in_lanes": plan.in_lanes, "layers": [
        {"name": p.layer.name, "in_lanes": p.in_lanes, "fold": asdict(p.fold) if p.fold else None} for p in plan.layers]}


def plan_of(graph: Graph, record: Mapping[str, Any]) -> Plan:
    """Return the plan that a record describes.

    Parameters
    ----------
    graph : Graph
        After `hwq.passes.apply_passes`; the network that was planned.
    record : mapping
        Of `plan_record`.

    Raises
    ------
    FormatError
        The record is malformed, or belongs to another network.
    """
    layers = split(graph)
    try:
        target = device(record["device"])
        rows, lanes = list(record["layers"]), int(record["in_lanes"])
        if [row["name"] for row in rows] != [layer.name for layer in layers]:
            raise FormatError("The plan belongs to another network: it has the layers "
                              f"{', '.join(str(row['name']) for row in rows)}, the network has {', '.join(x.name for x in layers)}")
        planned, total = [], Cost()
        for layer, row in zip(layers, rows, strict=True):
            fold = Folding(**row["fold"]) if row["fold"] else None
            stage = layer.stage(fold or Folding(), row["in_lanes"], target.technology)
            planned.append(PlannedLayer(layer, fold, row["in_lanes"], getattr(stage, "cycles", 0), stage.cost))
            total += stage.cost
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"The plan is malformed ({type(error).__name__}: {error}); build again") from None
    size = 1
    for dim in layers[0].x.shape:
        size *= dim
    return Plan(tuple(planned), target, lanes, max(size // lanes, *(p.cycles for p in planned)), total)
