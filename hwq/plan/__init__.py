"""Device-aware planning: layers, foldings, and whether they fit."""

from .depths import least_depths
from .devices import DEVICES, SHELL, Device, device, fewer_bits, hinting
from .layers import Layer, split
from .options import Wish, cycles_for, parse_fold
from .planner import Plan, PlannedLayer, Planner, least_block_rams, make_plan
from .record import plan_of, plan_record
from .timing import frames_under_way, joined

__all__ = ["DEVICES", "SHELL", "Device", "device", "fewer_bits", "hinting", "Layer", "split", "Plan", "PlannedLayer", "Planner",
           "Wish", "cycles_for", "frames_under_way", "joined", "least_block_rams", "least_depths", "make_plan", "parse_fold",
           "plan_record", "plan_of"]
