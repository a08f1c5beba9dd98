"""Device-aware planning: layers, foldings, and whether they fit."""

from .devices import DEVICES, SHELL, Device, device
from .layers import Layer, split
from .planner import Plan, PlannedLayer, least_block_rams, make_plan, parse_fold

__all__ = ["DEVICES", "SHELL", "Device", "device", "Layer", "split", "Plan", "PlannedLayer", "least_block_rams", "make_plan", "parse_fold"]
