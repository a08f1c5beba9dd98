"""Read-only facts about a network: ranges, widths, bits, multiplications."""

from .facts import LayerFacts, block_rams, layer_facts, totals
from .requant import RequantFacts, requant_facts

__all__ = ["LayerFacts", "layer_facts", "block_rams", "totals", "RequantFacts", "requant_facts"]
