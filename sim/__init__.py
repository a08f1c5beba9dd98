"""Verification: compiled simulation, cocotb benches, comparison with the interpreter."""
