"""Device-aware planning: layers, foldings, and whether they fit."""

from .devices import DEVICES, SHELL, Device, device
from .layers import Layer, split
from .planner import Plan, PlannedLayer, Wish, least_block_rams, make_plan, next_step, parse_fold
from .record import plan_of, plan_record
from .settle import frames_under_way

__all__ = ["DEVICES", "SHELL", "Device", "device", "Layer", "split", "Plan", "PlannedLayer", "Wish", "frames_under_way", "least_block_rams", "make_plan",
           "next_step", "parse_fold", "plan_record", "plan_of"]
