"""From the component tree to files: RTLIL, Verilog, manifest, golden vectors."""

from .beats import element_bytes, pack_codes, unpack_results
from .core import SYNTH_PRELUDE, emit_core, write_vectors

__all__ = ["SYNTH_PRELUDE", "emit_core", "write_vectors", "pack_codes", "unpack_results", "element_bytes"]
