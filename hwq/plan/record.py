"""A plan as plain data and back: what a build keeps, so that its core can be made again from its folder."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hwq.rtl.common import Cost
from hwq.rtl.joins import Joining
from hwq.rtl.stage import Folding

from ..errors import FormatError
from ..ir.graph import Graph
from .devices import device
from .layers import split
from .planner import Plan, PlannedLayer

__all__ = ["plan_record", "plan_of"]


def plan_record(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain data: device, lanes, cycles, and the folding of every layer."""
    return {"device": plan.device.name, "in_lanes": plan.in_lanes, "cycles": plan.cycles, "layers": [
        {"name": p.layer.name, "in_lanes": list(p.in_lanes), "fold": asdict(p.fold) if p.fold else None,
         "fifo": p.fifo} for p in plan.layers]}


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
        rows, lanes, cycles = list(record["layers"]), int(record["in_lanes"]), int(record["cycles"])
        if [row["name"] for row in rows] != [layer.name for layer in layers]:
            raise FormatError("The plan belongs to another network: it has the layers "
                              f"{', '.join(str(row['name']) for row in rows)}, the network has {', '.join(x.name for x in layers)}")
        planned, total = [], Cost()
        for layer, row in zip(layers, rows, strict=True):
            fold: Folding | Joining | None = None
            if layer.joins:
                fold = Joining(**row["fold"] | {"depths": tuple(int(depth) for depth in row["fold"]["depths"])})
            elif row["fold"]:
                fold = Folding(**row["fold"])
            stage = layer.stage(fold or Folding(), at := tuple(int(count) for count in row["in_lanes"]), target.technology)
            planned.append(PlannedLayer(layer, fold, at, stage.cycles, stage.cost, int(row["fifo"])))
            total += stage.cost
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"The plan is malformed ({type(error).__name__}: {error}); build again") from None
    return Plan(tuple(planned), target, lanes, cycles, total)
