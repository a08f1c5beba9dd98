"""Read a user's torch module with torch.fx into a chain of steps, and refuse by name all that cannot be done exactly."""

import io
import operator
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from ..errors import ModelError

__all__ = ["Op", "trace"]

SUPPORTED = ("Conv2d, Linear, BatchNorm1d/2d behind them, ReLU, MaxPool2d, AdaptiveAvgPool2d(1) or mean over (2, 3), "
             "Flatten, Dropout, Identity, and the functions relu, max_pool2d, adaptive_avg_pool2d, flatten, view, reshape, dropout")


@dataclass(frozen=True)
class Op:
    """One step of the chain.

    Attributes
    ----------
    kind : str
        ``conv``, ``linear``, ``bn``, ``relu``, ``maxpool``, ``gap`` or ``flatten``.
    name : str
        Dotted name in the user's module; for functions the name torch.fx gives.
    module : nn.Module or None
        The layer where it is one.
    kernel : (int, int)
        Of a max pooling.
    shape_in, shape_out : tuple of int
        Without the batch.
    """

    kind: str
    name: str
    module: nn.Module | None
    kernel: tuple[int, int]
    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]


def _refuse(name: str, attribute: str, value: Any, accepted: str) -> None:
    raise ModelError(f"Node '{name}': {attribute} = {value!r} is not supported; accepted: {accepted}")


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _check_conv(name: str, conv: nn.Conv2d) -> None:
    if conv.groups != 1:
        _refuse(name, "groups", conv.groups, "1")
    if tuple(conv.dilation) != (1, 1):
        _refuse(name, "dilation", tuple(conv.dilation), "1")
    if conv.padding_mode != "zeros":
        _refuse(name, "padding_mode", conv.padding_mode, "'zeros'")


def _check_pool(name: str, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: Any = False,
                return_indices: Any = False) -> tuple[int, int]:
    size = _pair(kernel)
    if stride is not None and stride != [] and _pair(stride) != size:
        _refuse(name, "stride", stride, f"the kernel size, {size}")
    if _pair(padding) != (0, 0):
        _refuse(name, "padding", padding, "0")
    if _pair(dilation) != (1, 1):
        _refuse(name, "dilation", dilation, "1")
    if ceil_mode:
        _refuse(name, "ceil_mode", ceil_mode, "False")
    if return_indices:
        _refuse(name, "return_indices", return_indices, "False")
    return size


def _check_adaptive(name: str, size: Any) -> None:
    if size not in (1, (1, 1), [1, 1]):
        _refuse(name, "output_size", size, "1 (global average)")


def _module(name: str, module: nn.Module, shape: tuple[int, ...]) -> tuple[str | None, tuple[int, int]]:
    """Return the kind (None: nothing to do at run time) and the pooling kernel."""
    if type(module) is nn.Conv2d:
        _check_conv(name, module)
        return "conv", (0, 0)
    if type(module) is nn.Linear:
        return "linear", (0, 0)
    if type(module) in (nn.BatchNorm2d, nn.BatchNorm1d):
        if module.running_mean is None:
            _refuse(name, "track_running_stats", False, "True")
        return "bn", (0, 0)
    if type(module) is nn.ReLU:
        return "relu", (0, 0)
    if type(module) is nn.MaxPool2d:
        return "maxpool", _check_pool(name, module.kernel_size, module.stride, module.padding, module.dilation,
                                      module.ceil_mode, module.return_indices)
    if type(module) is nn.AdaptiveAvgPool2d:
        _check_adaptive(name, module.output_size)
        return "gap", (0, 0)
    if type(module) is nn.Flatten:
        if module.start_dim != 1 or module.end_dim not in (-1, len(shape)):
            _refuse(name, "start_dim, end_dim", (module.start_dim, module.end_dim), "1, -1")
        return "flatten", (0, 0)
    if isinstance(module, nn.Dropout | nn.Dropout2d | nn.Identity):
        return None, (0, 0)
    hint = ""
    if isinstance(module, nn.AvgPool2d):
        hint = f" (count_include_pad = {module.count_include_pad}, kernel_size = {module.kernel_size})"
    raise ModelError(f"Node '{name}': layer {type(module).__name__}{hint} is not supported; supported: {SUPPORTED}")


def _function(node: fx.Node, shape: tuple[int, ...], out: tuple[int, ...]) -> tuple[str | None, tuple[int, int]]:
    name, args, kw = node.name, list(node.args[1:]), dict(node.kwargs)
    kw.pop("inplace", None)
    target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    if node.target in (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"):
        return "relu", (0, 0)
    if node.target in (F.max_pool2d, torch.max_pool2d) or target in ("max_pool2d", "boolean_dispatch", "_max_pool2d"):
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        given = dict(zip(names, args, strict=False)) | kw
        return "maxpool", _check_pool(name, given.pop("kernel_size"), **given)
    if node.target is F.adaptive_avg_pool2d:
        _check_adaptive(name, args[0] if args else kw.get("output_size"))
        return "gap", (0, 0)
    if node.target in (torch.mean, "mean"):
        given = dict(zip(("dim", "keepdim"), args, strict=False)) | kw
        axes = given.get("dim")
        if len(shape) != 3 or not isinstance(axes, tuple | list) or sorted(a % 4 for a in axes) != [2, 3]:
            _refuse(name, "dim", axes, "(2, 3), the whole image")
        if given.get("dtype") is not None:
            _refuse(name, "dtype", given["dtype"], "None")
        return ("gap" if given.get("keepdim") else "gap+flatten"), (0, 0)
    if node.target in (torch.flatten, "flatten", "view", "reshape", torch.reshape):
        if node.target in (torch.flatten, "flatten"):
            given = dict(zip(("start_dim", "end_dim"), args, strict=False)) | kw
            if given.get("start_dim", 0) != 1 or given.get("end_dim", -1) not in (-1, len(shape)):
                _refuse(name, "start_dim, end_dim", (given.get("start_dim", 0), given.get("end_dim", -1)), "1, -1")
        size = 1
        for axis in shape:
            size *= axis
        if out != (size,):
            _refuse(name, f"shape behind {target}", out, f"({size},): all but the batch in one axis")
        return "flatten", (0, 0)
    if node.target in (F.dropout, F.dropout2d, "contiguous"):
        return None, (0, 0)
    if node.target in (operator.add, torch.add, "add", "add_", operator.iadd, torch.cat):
        raise ModelError(f"Node '{name}': '{target}' joins branches (a skip connection), which is not supported yet; "
                         f"supported is one chain of: {SUPPORTED}")
    raise ModelError(f"Node '{name}': function '{target}' is not supported; supported: {SUPPORTED}")


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    meta = node.meta.get("tensor_meta")
    return None if meta is None or not hasattr(meta, "shape") else tuple(meta.shape)


def trace(model: nn.Module, example: torch.Tensor) -> list[Op]:
    """Return the chain of steps of ``model`` in order.

    Parameters
    ----------
    model : nn.Module
        A straight line of supported layers. Its mode is kept.
    example : tensor (n, c, h, w) or (n, features)
        Any input; only its shape matters.

    Raises
    ------
    ModelError
        torch.fx cannot trace it, the example does not fit, branches, a layer used twice, anything unsupported.
    """
    training = model.training
    model.eval()
    try:
        graph = fx.symbolic_trace(model)
    except Exception as error:
        raise ModelError(f"torch.fx cannot trace {type(model).__name__}: {error}; avoid control flow that depends on data") from None
    finally:
        model.train(training)
    try:
        graph.eval()
        with torch.no_grad(), redirect_stderr(io.StringIO()):     # it prints a traceback of its own
            ShapeProp(graph).propagate(example)
    except Exception as error:
        raise ModelError(f"{type(model).__name__} does not run on an example input of shape {tuple(example.shape)}: "
                         f"{str(error.__cause__ or error).splitlines()[0]}") from None
    finally:
        model.train(training)
    return _chain(graph, len(example))


def _chain(graph: fx.GraphModule, batch: int) -> list[Op]:
    modules = dict(graph.named_modules())
    ops: list[Op] = []
    seen: set[str] = set()
    current: fx.Node | None = None
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            if current is not None:
                raise ModelError(f"Node '{node.name}': the network has a second input; supported: one input")
            current = node
            continue
        if node.op == "output":
            if node.args[0] is not current:
                raise ModelError("The network must return the one tensor that its last layer makes")
            continue
        full = _shape(node)
        if node.op == "get_attr":
            raise ModelError(f"Node '{node.name}': the parameter '{node.target}' is used outside of a layer; use nn modules")
        if full is None:
            continue                                # sizes that feed view and reshape
        sources = [arg for arg in node.all_input_nodes if _shape(arg) is not None]
        if sources != [current]:
            if len(sources) > 1:
                _function(node, (), ())             # names additions and concatenations
            raise ModelError(f"Node '{node.name}' does not read the node just before it: branches are not supported; "
                             f"supported is one chain of: {SUPPORTED}")
        assert current is not None
        shape = (_shape(current) or ())[1:]
        if node.op == "call_module":
            name = str(node.target)
            if name in seen:
                raise ModelError(f"Layer '{name}' is used twice; supported: once each")
            seen.add(name)
            module = modules[name]
            kind, kernel = _module(name, module, shape)
        else:
            name, module = node.name, None
            kind, kernel = _function(node, shape, full[1:])
        if full[0] != batch:
            raise ModelError(f"Node '{name}' changes the batch axis: {_shape(current)} to {full}")
        current = node
        if kind == "gap+flatten":
            ops.append(Op("gap", name, module, kernel, shape, (shape[0], 1, 1)))
            ops.append(Op("flatten", f"{name}.flatten", None, kernel, (shape[0], 1, 1), full[1:]))
        elif kind is not None and not (kind == "flatten" and len(shape) == 1):
            ops.append(Op(kind, name, module, kernel, shape, full[1:]))
    if current is None or not any(op.kind in ("conv", "linear") for op in ops):
        raise ModelError("The network has no Conv2d and no Linear layer")
    return ops
