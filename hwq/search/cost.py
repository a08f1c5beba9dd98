"""What a network costs: bits of everything stored, and block RAMs by the planner's packing."""

import numpy as np

from ..arith import width_of
from ..ir.graph import Graph
from ..ir.nodes import Conv2d, Linear, Requantize
from ..passes import apply_passes
from ..plan import Device, least_block_rams

__all__ = ["stored_bits", "block_rams"]


def _column(values: np.ndarray) -> int:
    """Bits of an array of constants, each in the least width that holds all of them."""
    return int(values.size) * width_of(int(values.min()), int(values.max()))[0] if values.size else 0


def stored_bits(graph: Graph) -> int:
    """Return the bits of all constants: weights in their formats, and every layer's biases, multipliers, offsets, thresholds.

    A constant per channel counts as often as there are channels, in the width that holds the layer's largest; one that
    is the same for the whole layer counts once.
    """
    total = 0
    for node in graph:
        if isinstance(node, Conv2d | Linear) and node.weight_format is not None:
            total += node.weight.size * node.weight_format.width
            total += _column(node.bias) if node.bias.any() else 0
        elif isinstance(node, Requantize):
            total += sum(_column(values) for values in (node.mult, node.offset, node.offset_neg, node.thresholds) if values.size)
    return total


def block_rams(graph: Graph, device: Device) -> int:
    """Return the block RAMs of weights and line buffers in each layer's most economical folding on the device."""
    return least_block_rams(apply_passes(graph), device)
