"""Read a user's torch module with torch.fx into a graph of operators, and refuse by name all that cannot be done exactly."""

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from ..errors import ModelError
from .found import Found, refuse
from .lines import wide, widened
from .operators import PRELUS, function, layer, prelu
from .shuffles import shuffle_of
from .slices import PARTS, Part, slice_of

__all__ = ["Op", "trace"]

INPUT = -1


@dataclass(frozen=True)
class Op:
    """One operator.

    Attributes
    ----------
    found : Found
        What it is; its kind is never empty.
    name : str
        Dotted name in the user's module; of a function, that of the module that calls it and the function's. Unique.
    module : nn.Module or None
        The layer where it is one.
    sources : tuple of int
        Places in the list of the operators that it reads; -1: the network's input.
    shape_in, shape_out : tuple of int
        Without the batch, and at least (channels, 1, length); the first source's.
    """

    found: Found
    name: str
    module: nn.Module | None
    sources: tuple[int, ...]
    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]

    @property
    def kind(self) -> str:
        """Short for ``found.kind``."""
        return self.found.kind


class _Values(ShapeProp):
    """Runs the graph as it is read: an operator that works in place changes its own copy.

    What is no tensor, such as sizes, is kept as ``meta["value"]``.
    """

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if not isinstance(result, torch.Tensor):
            n.meta["value"] = result
        return result

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))


def trace(model: nn.Module, example: torch.Tensor) -> list[Op]:
    """Return the operators of ``model``, each behind those it reads; the last one's result is the network's.

    Parameters
    ----------
    model : nn.Module
        Supported layers and functions, from one input to one output. Its mode is kept.
    example : tensor (n, c, h, w), (n, c, length) or (n, features)
        Any input; only its shape matters.

    Raises
    ------
    ModelError
        torch.fx cannot trace it, the example does not fit, a layer with weights used twice, anything unsupported; an operator in
        place whose input is read again, so that what is traced is another function.
    """
    training = model.training
    model.eval()
    try:
        graph = fx.symbolic_trace(model)
    except Exception as error:
        raise ModelError(f"torch.fx cannot trace {type(model).__name__}: {error}; avoid control flow that "
                         "depends on data") from None
    finally:
        model.train(training)
    values = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    try:
        graph.eval()
        with torch.no_grad(), redirect_stderr(io.StringIO()):     # it prints a traceback of its own
            found = _seeded(_Values(graph).propagate, values)
            wanted = _seeded(model.eval(), values)
    except Exception as error:
        raise ModelError(f"{type(model).__name__} does not run on an example input of shape {tuple(example.shape)}: "
                         f"{str(error.__cause__ or error).splitlines()[0]}") from None
    finally:
        model.train(training)
    ops = _Reader(graph, len(example)).ops
    _require_same(wanted, found, type(model).__name__)
    return ops


def _seeded(run: Any, values: torch.Tensor) -> Any:
    with torch.random.fork_rng(devices=[]):                       # dropout may be on where the user says so
        torch.manual_seed(0)
        return run(values.clone())


def _require_same(wanted: torch.Tensor, found: torch.Tensor, name: str) -> None:
    """Compare far above rounding; NaN and infinite weights are refused elsewhere."""
    largest = wanted.abs().max()
    if bool(torch.isfinite(largest)) and bool((wanted - found).abs().max() > 1e-3 * largest):
        raise ModelError(f"{name} computes another function than torch.fx records of it: an operation in place, such as x += y or "
                         "ReLU(inplace=True), changes a tensor that is read again; write x = x + y, and leave inplace out")


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    meta = node.meta.get("tensor_meta")
    return None if meta is None or not hasattr(meta, "shape") else tuple(meta.shape)


def _base(node: fx.Node) -> str:
    """Return the name for a function: that of the module that calls it, then its own."""
    stack = node.meta.get("nn_module_stack")
    path = str(next(reversed(stack))) if stack else ""
    return f"{path}.{re.sub(r'_[0-9]+$', '', node.name)}" if path else node.name


def _operands(node: fx.Node) -> list[fx.Node]:
    """Return the nodes that a node reads in order, one as often as it is read."""
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), lambda each: found.append(each))
    return found


class _Reader:
    """Goes through the nodes that the output depends on, in order."""

    def __init__(self, graph: fx.GraphModule, batch: int) -> None:
        self.graph, self.modules = graph, dict(graph.named_modules())
        self.batch = batch
        self.ops: list[Op] = []
        self.place: dict[fx.Node, int] = {}                       # where a node's value is made
        self.names = set(self.modules)                            # that no function may take
        self.seen: set[str] = set()
        self.shuffles: dict[fx.Node, tuple[int, ...] | None] = {}     # last node of a shuffle: its order; nodes inside of one: None
        needed = self._needed(graph)
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                if self.place:
                    raise ModelError(f"Node '{node.name}': the network has a second input; supported: one input")
                self.place[node] = INPUT
            elif node in needed:
                self._read(node)
        if not any(op.kind in ("conv", "linear") for op in self.ops):
            raise ModelError("The network has no Conv2d and no Linear layer")

    @staticmethod
    def _needed(graph: fx.GraphModule) -> set[fx.Node]:
        result = next(node for node in graph.graph.nodes if node.op == "output").args[0]
        if not isinstance(result, fx.Node) or _shape(result) is None:
            raise ModelError("The network must return one tensor, not several and nothing else")
        needed: set[fx.Node] = set()
        stack = [result]
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack += node.all_input_nodes
        return needed

    def _name(self, base: str) -> str:
        name, count = base, 1
        while name in self.names:
            name, count = f"{base}_{count}", count + 1
        self.names.add(name)
        return name

    def _read(self, node: fx.Node) -> None:
        full = _shape(node)
        if node.op == "get_attr" and all(user.target in PRELUS for user in node.users):
            return
        if node.op == "get_attr":
            raise ModelError(f"Node '{node.name}': the parameter '{node.target}' is used outside of a layer; use nn modules")
        if full is None:
            return                                                # sizes that feed view and reshape
        if node not in self.shuffles and (shuffle := shuffle_of(node, lambda each: (_shape(each) or ())[1:])) is not None:
            self.shuffles |= {shuffle[1]: shuffle[2], **dict.fromkeys(shuffle[0])}
        if node in self.shuffles and self.shuffles[node] is None:
            self.place[node] = self.place[next(source for source in _operands(node) if source in self.place)]
            return
        part = slice_of(node, lambda each: (_shape(each) or ())[1:])
        sources = [source for source in _operands(node) if source in self.place] if part is None else [part.source]
        for source in _operands(node) if part is None else ():
            if source.target in PARTS:
                raise ModelError(f"Node '{node.name}' reads all parts of '{source.name}' at once; name them: a, b = x.chunk(2, 1)")
        shapes = [(_shape(source) or ())[1:] for source in sources]
        shape, out = shapes[0] if shapes else (), full[1:]
        module = None
        if node.op == "call_module":
            name, module = str(node.target), self.modules[str(node.target)]
            module = widened(module, shape)
            found = layer(name, module, wide(shape), wide(out))
            if name in self.seen:
                if found.kind in ("conv", "linear", "bn"):
                    raise ModelError(f"Layer '{name}' is used twice; supported: once each, for layers with weights")
                name = self._name(name)                           # a ReLU module may serve many places
            self.seen.add(name)
        else:
            name = self._name(_base(node))
            moved = self.shuffles.get(node)
            shape = shape if moved is None else out               # of what it begins with, which its end has too
            if node.target in PRELUS:
                module = self._prelu(node)
                found = prelu(name, module)
            elif part is not None:
                found = Found("")
            else:
                found = function(name, node, shape, out) if moved is None else Found("shuffle", order=moved)
        if not full or full[0] != self.batch:
            raise ModelError(f"Node '{name}' changes the batch axis: {_shape(sources[0])} to {full}")
        if found.kind == "add" and shapes != [out, out]:
            refuse(name, "shapes of the operands", tuple(shapes), "two of one shape: nothing is broadcast")
        places = [self.place[source] for source in sources]
        shape, out = wide(shape), wide(out)
        if found.kind == "gap+flatten":
            places = [self._append(Found("gap"), name, module, places, shape, (shape[0], 1, 1))]
            found, name, shape, module = Found("flatten"), self._name(f"{name}.flatten"), (shape[0], 1, 1), None
        if part is not None:
            self.place[node] = self._taken(part, name, places[0], shape)
            return
        nothing = not found.kind or (found.kind == "flatten" and len(shape) == 1) or (found.kind == "concat" and len(sources) == 1)
        self.place[node] = places[0] if nothing else self._append(found, name, module, places, shape, out)

    def _taken(self, part: Part, name: str, place: int, shape: tuple[int, ...]) -> int:
        """Append what a slice of a tensor of a (wide) shape does, and return its place."""
        steps: list[tuple[Found, tuple[int, ...]]] = []           # with the shape behind each
        if any(part.pads):
            top, left, bottom, right = part.pads
            steps.append((Found("pad", pads=part.pads), (shape[0], shape[1] + top + bottom, shape[2] + left + right)))
        if len(part.channels) < shape[0]:
            steps.append((Found("select", order=part.channels), (len(part.channels), *(steps[-1][1] if steps else shape)[1:])))
        if part.flat:
            steps.append((Found("flatten"), (len(part.channels),)))
        for k, (found, out) in enumerate(steps):
            place = self._append(found, self._name(f"{name}.{found.kind}") if k else name, None, [place], shape, out)
            shape = out
        return place

    def _prelu(self, node: fx.Node) -> nn.PReLU | None:
        """Return the layer that a call of prelu is, with the very parameter; None where its slope is none of the module's own."""
        source = dict(zip(("input", "weight"), node.args, strict=False)) | node.kwargs
        weight = source.get("weight")
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            return None
        holder, _, last = str(weight.target).rpartition(".")
        slope = getattr(self.graph.get_submodule(holder), last)
        made = nn.PReLU(slope.numel())
        made.weight = slope if isinstance(slope, nn.Parameter) else nn.Parameter(slope, requires_grad=False)
        return made

    def _append(self, found: Found, name: str, module: nn.Module | None, sources: Sequence[int], shape: tuple[int, ...],
                out: tuple[int, ...]) -> int:
        self.ops.append(Op(found, name, module, tuple(sources), shape, out))
        return len(self.ops) - 1
