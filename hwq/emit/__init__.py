"""From the component tree to files: RTLIL, Verilog, manifest, golden vectors, test bench."""

from .beats import element_bytes, pack_codes, unpack_results
from .bench import template, vector_codes, write_bench, write_vectors
from .core import SYNTH_PRELUDE, emit_core
from .manifest import Manifest, make_manifest
from .verilog import plain_names, write_verilog

__all__ = ["SYNTH_PRELUDE", "Manifest", "element_bytes", "emit_core", "make_manifest", "pack_codes", "plain_names", "template",
           "unpack_results", "vector_codes", "write_bench", "write_vectors", "write_verilog"]
