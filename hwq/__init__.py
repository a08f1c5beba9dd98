"""hwq: from a trained, quantized PyTorch network to a small FPGA, exact to the last bit.

The names below are the whole Python API; each is imported on first use, so that ``import hwq`` needs neither
torch nor amaranth.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_API = {
    "HwqError": "hwq.errors",
    "prepare": "hwq.quant", "calibrate": "hwq.quant", "freeze": "hwq.quant", "InputSpec": "hwq.quant",
    "convert": "hwq.frontend",
    "save": "hwq.ir", "load": "hwq.ir",
    "build": "hwq.build", "verify": "hwq.sim",
}
__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'hwq' has no attribute {name!r}")
    return getattr(import_module(_API[name]), name)
