"""Runs an exported network in the qonnx executor and compares every tensor with the interpreter, bit by bit."""

import warnings
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from .. import interp, ir
from ..errors import EnvironmentError_, ToolError, VerifyError
from .check import first_difference
from .onnx_export import Exported, binary

__all__ = ["compare_export", "random_codes"]


def random_codes(graph: ir.Graph, count: int, seed: int) -> np.ndarray:
    """Return input codes (count, *input shape): the lowest, the highest, then random ones."""
    node = graph.input
    codes = np.random.default_rng(seed).integers(node.lo, node.hi + 1, (count, *node.shape))
    for k, code in enumerate((node.lo, node.hi)[:count]):
        codes[k] = code
    return codes


def _first(values: np.ndarray) -> np.ndarray:
    return np.moveaxis(values, -1, 1)


def compare_export(graph: ir.Graph, exported: Exported, codes: np.ndarray) -> tuple[str, dict[str, int]]:
    """Return the executor, and how many numbers of each edge were compared.

    Means over a number of pixels that is no power of two are not compared themselves: float32 rounds them.

    Raises
    ------
    EnvironmentError_
        qonnx is not installed.
    ToolError
        It refuses the model.
    VerifyError
        The first number that differs.
    """
    try:
        oracle = f"qonnx {version('qonnx')}"
    except PackageNotFoundError:
        raise EnvironmentError_("Comparing with an executor needs the package 'qonnx'; install it with: pip install 'hwq[qonnx]', "
                                "or export without comparing: --no-check") from None
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    wanted = interp.run(graph, codes)
    compared: dict[str, int] = {}
    for k, image in enumerate(codes):
        x = (_first(image[None]) * float(exported.units[graph.input.name])).astype(np.float32)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = execute_onnx(ModelWrapper(exported.model), {exported.input: x}, return_full_exec_context=True)
        except Exception as error:                       # anything that the executor does not like
            raise ToolError(f"{oracle} cannot run the exported network: {str(error).strip() or error!r}") from None
        for name, unit in exported.units.items():
            if not binary(unit) or name == graph.output.name:
                continue
            ours, theirs = _first(wanted[name][k:k + 1]), found[name].astype(np.float64) / float(unit)
            place = first_difference(ours, theirs)
            if place is not None:
                raise VerifyError(f"Edge '{name}' differs at input {k}, place {place[1:]} (channels first): integer network "
                                  f"{ours[place]} of shape {ours.shape}, {oracle} {theirs[place]:.9g} of shape {theirs.shape}")
            compared[name] = compared.get(name, 0) + ours.size
    return oracle, compared
