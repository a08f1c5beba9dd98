"""From the component tree to files: RTLIL, Verilog, manifest, golden vectors."""

from .core import SYNTH_PRELUDE, emit_core, pack_codes, pack_results, write_vectors

__all__ = ["SYNTH_PRELUDE", "emit_core", "pack_codes", "pack_results", "write_vectors"]
