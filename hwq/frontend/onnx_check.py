"""Runs onnxruntime, or the qonnx executor, beside the integer network and compares every quantizer and the output.

Layer by layer: each layer here gets the integers that the executor's quantizer before it gave, so that one rounding tie
does not make all that follows differ. A difference is excused where the executor's float32 error, whose bound is
carried along, reaches over the rounding step.
"""

import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from .. import interp, ir
from ..errors import EnvironmentError_, ModelError, ToolError
from .builder import Imported
from .check import Report, Tally
from .onnx_context import QuantCheck
from .onnx_rules import MICROSOFT
from .onnx_values import ULP, View

__all__ = ["compare_onnx", "random_floats", "encode_floats", "to_edge"]


def to_edge(view: View, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a tensor of the source (n, *tensor shape without batch) in the layout of its edge (n, *shape)."""
    if view.order is not None:
        result = np.empty((len(values), values[0].size), values.dtype)
        result[:, view.order] = values.reshape(len(values), -1)
        return result.reshape(-1, *shape)
    wide = [i + 1 for i, (_, axis) in enumerate(view.dims) if axis is not None]
    order = sorted(wide, key=lambda i: view.dims[i - 1][1])        # type: ignore[arg-type,return-value]
    rest = [i for i in range(1, values.ndim) if i not in wide]
    return values.transpose(0, *order, *rest).reshape(-1, *shape)


def _from_edge(view: View, values: np.ndarray) -> np.ndarray:
    """Return values in the layout of an edge as the tensor (n, *tensor shape without batch): `to_edge` undone."""
    shape = tuple(size for size, _ in view.dims)
    places = to_edge(view, np.arange(np.prod(shape)).reshape(1, *shape), values.shape[1:]).reshape(-1)
    made = np.empty((len(values), len(places)))
    made[:, places] = values.reshape(len(values), -1)
    return made.reshape(-1, *shape)


def _step(x: np.ndarray, check: QuantCheck) -> np.ndarray:
    """Return the codes of real values (..., channels) in float64."""
    codes = np.empty(x.shape, np.int64)
    rows = len(check.places)
    for c in range(rows):
        part = (..., slice(None)) if rows == 1 else (..., c)
        places, values = check.places[c], x[part]
        index = np.searchsorted(places, values, side="right")
        at = np.maximum(index - 1, 0)
        open_ = (index > 0) & (places[at] == values) & check.strict[c][at] if len(places) else np.zeros(values.shape, bool)
        codes[part] = check.lo + index - open_
    return codes


def _reals(view: View, edge: np.ndarray) -> np.ndarray:
    x = edge * np.array([float(s) for s in view.scale]) + np.array([float(t) for t in view.shift])
    return view.limited(x)


def _input_shape(imported: Imported) -> tuple[int, ...]:
    return tuple(size for size, _ in imported.details["dims"])


def _input_view(imported: Imported) -> View:
    return View("input", imported.details["dims"])


def _line(imported: Imported) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and shift from the source's input to what its quantizer takes, in the layout of the edge."""
    before, shape = imported.details["before"], imported.graph.input.shape
    parts = (np.array([float(v) for v in part]) for part in (before.scale, before.shift))
    scale, shift = (part.reshape(shape) if part.size == np.prod(shape) else part for part in parts)
    return scale, shift


def _reals_in(imported: Imported, x: np.ndarray) -> np.ndarray:
    """Return what the input's quantizer takes, in the layout of the edge, of the source's input (n, *shape)."""
    before: View = imported.details["before"]
    scale, shift = _line(imported)
    return before.limited(to_edge(_input_view(imported), x, imported.graph.input.shape) * scale + shift)


def random_floats(imported: Imported, count: int, seed: int) -> np.ndarray:
    """Return inputs for the source (n, *input shape without batch), float32, that reach all codes and a little beyond."""
    rng = np.random.default_rng(seed)
    shape = _input_shape(imported)
    grid = imported.details["grid"]
    if grid is not None:
        return (rng.integers(grid.lo, grid.hi + 1, (count, *shape)) * float(grid.scale)).astype(np.float32)
    check: QuantCheck = imported.details["checks"][_first(imported)]
    places = check.places[0]
    margin = (places[-1] - places[0]) / max(1, len(places) - 1) or 1.0
    scale, shift = _line(imported)
    x = rng.uniform(places[0] - margin, places[-1] + margin, (count, *imported.graph.input.shape))
    return _from_edge(_input_view(imported), (x - shift) / scale).astype(np.float32)


def _first(imported: Imported) -> str:
    return next(edge for edge, check in imported.details["checks"].items() if check.before is None)


def encode_floats(imported: Imported, x: np.ndarray) -> np.ndarray:
    """Return the input codes (n, *input shape of the graph) of the source's float inputs (n, *shape).

    Raises
    ------
    ModelError
        Another shape, NaN, or values that are not on the grid that the user stated.
    """
    x, graph, grid = np.asarray(x), imported.graph, imported.details["grid"]
    if x.shape[1:] != imported.details["file"].shape[1:] and x.shape[1:] != _input_shape(imported):
        raise ModelError(f"The network takes inputs of the shape {imported.details['file'].shape[1:]}, not {x.shape[1:]}")
    x = x.reshape(len(x), *_input_shape(imported)).astype(np.float64)
    if not np.isfinite(x).all():
        raise ModelError("The inputs hold NaN or infinity")
    if grid is not None:
        codes = np.rint(x / float(grid.scale))
        if (np.abs(codes * float(grid.scale) - x) > 1e-6 * np.maximum(np.abs(x), float(grid.scale))).any():
            raise ModelError(f"The inputs are no multiples of {float(grid.scale):.9g}, which the input format says")
        codes = codes.astype(np.int64)
    else:
        return _step(_reals_in(imported, x)[..., None], imported.details["checks"][_first(imported)])[..., 0]
    return to_edge(_input_view(imported), codes, graph.input.shape)


def _onnxruntime(imported: Imported, x: np.ndarray, tensors: list[str]) -> dict[str, np.ndarray]:
    import onnx
    import onnxruntime
    file = imported.details["file"]
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    have = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors) if name not in have)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    parts = [session.run(tensors, {file.input: value}) for value in x]
    return {name: np.concatenate([p[i] for p in parts]) for i, name in enumerate(tensors)}


def _qonnx(imported: Imported, x: np.ndarray, tensors: list[str]) -> dict[str, np.ndarray]:
    import onnx
    from onnx import helper
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    file = imported.details["file"]
    proto = onnx.ModelProto()
    proto.CopyFrom(file.model)
    graph = proto.graph
    known = {t.name for t in graph.initializer} | {file.input, file.output}
    del graph.value_info[:]                        # it wants every shape, and infers not all of them itself
    kinds = imported.details["kinds"]
    graph.value_info.extend(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
                            for name, (shape, kind) in kinds.items() if name not in known)
    for ends, name in ((graph.input, file.input), (graph.output, file.output)):
        end = next(e for e in ends if e.name == name)
        shape = x.shape[1:] if name == file.input else kinds.get(name, (None,))[0]
        end.CopyFrom(helper.make_tensor_value_info(name, end.type.tensor_type.elem_type or onnx.TensorProto.FLOAT, shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ModelWrapper(proto)
        parts = [execute_onnx(model, {file.input: value}, return_full_exec_context=True) for value in x]
    return {name: np.concatenate([p[name] for p in parts]) for name in tensors}


def _execute(imported: Imported, x: np.ndarray, tensors: list[str]) -> tuple[str, dict[str, np.ndarray]]:
    file = imported.details["file"]
    custom = any(node.domain not in ("", *MICROSOFT) for node in file.nodes)
    package = "qonnx" if custom else "onnxruntime"
    try:
        oracle = f"{package} {version(package)}"
    except PackageNotFoundError:
        raise EnvironmentError_(f"Comparing with the source needs the package '{package}'; install it with: pip install "
                                f"'hwq[{'qonnx' if custom else 'check'}]', or import without comparing: --no-check") from None
    count, batch, x = len(x), file.shape[0] or 1, x.astype(file.dtype)
    full = np.concatenate([x, np.repeat(x[-1:], -count % batch, axis=0)]).reshape(
        -1, batch, *_input_shape(imported) if None in file.shape[1:] else file.shape[1:])
    try:
        found = (_qonnx if custom else _onnxruntime)(imported, full, tensors)
        return oracle, {name: values[:count] for name, values in found.items()}
    except Exception as error:                     # anything that the executor does not like
        raise ToolError(f"{oracle} cannot run the file: "
                        f"{str(error).strip().splitlines()[0] if str(error).strip() else error!r}") from None


def compare_onnx(imported: Imported, x: np.ndarray, say: Callable[[str], None] = lambda text: None) -> Report:
    """Return the comparison of every quantizer's codes and of the output.

    Parameters
    ----------
    imported : Imported
        What `import_onnx` gave.
    x : float32 array (n, *input shape)
        Inputs of the source network.
    say : function of str
        Told how many inputs are done.

    Raises
    ------
    EnvironmentError_
        The executor is not installed.
    ToolError
        It refuses the file.
    """
    graph, checks = imported.graph, imported.details["checks"]
    out: View = imported.details["output"]
    names = [check.tensor for check in checks.values()] + [imported.details["output_tensor"]]
    tallies = {edge: Tally(edge, check.tensor) for edge, check in checks.items()}
    final = Tally("output", imported.details["output_tensor"])
    classes, oracle = 0, ""
    for start in range(0, len(x), 10):
        batch = np.asarray(x[start:start + 10], np.float32)
        oracle, theirs = _execute(imported, batch, list(dict.fromkeys(names)))
        codes = encode_floats(imported, batch)
        forced = {edge: _codes(check, theirs[check.tensor], graph.edges[edge].shape) for edge, check in checks.items()}
        ours = interp.run(graph, codes, forced)
        for edge, check in checks.items():
            tallies[edge].add(ours[edge], forced[edge], *_excused(imported, edge, check, ours, forced, batch))
        free = interp.run(graph, codes)[graph.output.name]
        ends = theirs[imported.details["output_tensor"]]
        if (grid := imported.details["output_grid"]) is not None:               # they are codes of what the network gives
            ends = (ends.astype(np.float64) - grid[1]) * float(grid[0])
        classes += _output(final, graph, out, ours, free, ends)
        say(f"{start + len(batch)} of {len(x)} inputs")
    return Report(oracle, len(x), (*(t.row for t in tallies.values()), final.row), classes)


def _codes(check: QuantCheck, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    values = to_edge(check.after, tensor.astype(np.float64), shape)
    if check.integer is not None:
        return np.rint(values - float(check.integer)).astype(np.int64)
    scale, shift = (np.array([float(v) for v in part]) for part in (check.after.scale, check.after.shift))
    return np.rint((values - shift) / scale).astype(np.int64)


def _excused(imported: Imported, edge: str, check: QuantCheck, ours: dict[str, np.ndarray], forced: dict[str, np.ndarray],
             batch: np.ndarray) -> tuple[np.ndarray, float]:
    """Return where the executor's own error reaches the step to its code, and the largest bound in steps."""
    places = check.places
    rounding = 4 * ULP * float(np.abs(places).max(initial=0))
    if check.before is None:
        values = batch.reshape(len(batch), *_input_shape(imported)).astype(np.float64)
        x = _reals_in(imported, values).reshape(ours[edge].shape)
        error = np.array([rounding + 4 * ULP * float(np.abs(x).max(initial=0))])
    else:
        source = check.before.edge
        assert source is not None
        found = [forced.get(e, ours[e]) * m for e, m in check.terms] or [forced.get(source, ours[source])]
        x = _reals(check.before, sum(found[1:], found[0]))
        error = np.array(check.before.error) + rounding
    low, high = _step(x - error, check), _step(x + error, check)
    step = (places[0][-1] - places[0][0]) / max(1, places.shape[1] - 1) or 1.0
    mine, theirs = ours[edge], forced[edge]        # both must be among the codes that the bound leaves open
    return (low <= theirs) & (theirs <= high) & (low <= mine) & (mine <= high), float(error.max() / step)


def _output(tally: Tally, graph: ir.Graph, out: View, ours: dict[str, np.ndarray], free: np.ndarray, tensor: np.ndarray) -> int:
    """Compare the output's reals, and return for how many inputs the largest is another one."""
    last = ours[graph.output.name]
    if out.integer and not out.dims or graph.by_name[graph.output.inputs[0]].op in ("ArgMax", "TopK"):
        found = tensor.reshape(last.shape).astype(np.int64)
        tally.add(last, found)
        return int((free != found).any(axis=tuple(range(1, free.ndim))).sum())
    theirs = to_edge(out, tensor.reshape(len(last), *(size for size, _ in out.dims)).astype(np.float64), last.shape[1:])
    scale = float(out.scale[0])
    shift = np.array([float(t) for t in out.shift])
    gap = (theirs - (last * scale + shift)) / scale
    error = np.broadcast_to(np.array(out.error) + 2 * ULP * float(np.abs(theirs).max(initial=0)), gap.shape[-1:]) / abs(scale)
    # a difference below half an integer that the bound excuses is no difference of integers
    beyond = np.abs(gap) > error
    tally.add(np.where(beyond, last, 0).astype(np.float64), np.where(beyond, last + gap, 0), None, float(error.max()))
    ours_flat, flat = free.reshape(len(free), -1), theirs.reshape(len(theirs), -1)
    return int((ours_flat.argmax(axis=1) != flat.argmax(axis=1)).sum())
