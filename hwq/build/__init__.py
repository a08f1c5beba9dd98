"""From a ``.hwq`` file to a bitstream, or to Verilog for vendor tools."""

from .flow import build
from .report import Report
from .summary import summary

__all__ = ["build", "Report", "summary"]
