"""From the component tree to files: RTLIL, Verilog, manifest, golden vectors, test bench."""

from .bench import pack_codes, pack_results, template, vector_codes, write_bench, write_vectors
from .core import SYNTH_PRELUDE, emit_core
from .manifest import Manifest, make_manifest
from .verilog import plain_names, write_verilog

__all__ = ["SYNTH_PRELUDE", "Manifest", "emit_core", "make_manifest", "pack_codes", "pack_results", "plain_names", "template",
           "vector_codes", "write_bench", "write_vectors", "write_verilog"]
