"""Rewrites of the IR, one a file, and the ordered list that prepares a network for hardware."""

from ..ir.graph import Graph
from .absorb_pad import AbsorbPad
from .base import Pass
from .drop_dead import DropDead
from .ensure_requantize import EnsureRequantize
from .exact_scale import ExactScale, ScaleForm, exact_scale, exact_scales, fits, threshold_table, thresholds_of
from .fold_permute import FoldPermute
from .fuse_requantize import FuseRequantize
from .pull_crop import PullCrop

__all__ = ["Pass", "AbsorbPad", "DropDead", "FoldPermute", "FuseRequantize", "EnsureRequantize", "PullCrop", "HARDWARE_PASSES",
           "apply_passes", "ExactScale", "ScaleForm", "exact_scale", "exact_scales", "thresholds_of", "threshold_table", "fits"]

# The order matters: dead nodes first, so that a layer sees its true reader; then channels' orders go into weights; then crops,
# which take back borders, and borders that are left; then the missing requantizations, which take their layer's bias
# themselves; then the biases of all others move, so that no layer has a bias in hardware.
HARDWARE_PASSES: tuple[Pass, ...] = (DropDead(), FoldPermute(), PullCrop(), AbsorbPad(), EnsureRequantize(), FuseRequantize())


def apply_passes(graph: Graph, passes: tuple[Pass, ...] = HARDWARE_PASSES) -> Graph:
    """Return the graph after all passes, in order; its output is the same for every input."""
    for item in passes:
        graph = item.apply(graph)
    return graph
