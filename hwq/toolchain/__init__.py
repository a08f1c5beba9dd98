"""Finds the tools and runs each in a child process with its log. Standard library only."""

from .find import TOOLS, Tool, find, ice40_cells, overridden, verilator_include, versions
from .run import Child, require_output, run, run_many, run_yosys

__all__ = ["TOOLS", "Tool", "find", "overridden", "versions", "ice40_cells", "verilator_include", "Child", "run", "run_many",
           "run_yosys", "require_output"]
