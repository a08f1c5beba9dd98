"""From a prepared torch network to the integer IR, and the torch side of every edge for comparison."""

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from .. import ir
from ..errors import ModelError
from ..ir.infer import channel_ranges
from ..passes.exact_scale import exact_scale, thresholds_of
from ..passes.fold_permute import FoldPermute
from ..quant.activations import ActivationQuantizer
from ..quant.grid import Grid
from ..quant.joins import Add, Concat, Quantize, Relu
from ..quant.model import QuantizedModel
from ..quant.stages import Requant, Stage, Weighted
from ..quant.windows import Average, AvgPool, Flatten, MaxPool, Pad, Select, Shuffle, Unflatten, Upsample
from .torch_slopes import sloped

__all__ = ["convert", "require_convertible", "trace_codes"]


_PARTS = ("act", "sign", "order", "sum", "flat", "each")         # what else of a stage may be an edge


def _names(model: QuantizedModel) -> dict[Stage | None, str]:
    """Return a safe and unique node name for every stage, from its dotted name; of None for an argmax at the end."""
    taken = {"input", "output"}
    names: dict[Stage | None, str] = {}
    for stage in (*model, *([None] if model.rank else [])):
        base = re.sub(r"[^A-Za-z0-9_.]", "_", stage.name if stage is not None else model.rank) or "layer"
        name, count = base, 2
        while taken & (mine := {name, *(f"{name}.{part}" for part in _PARTS)}):
            name, count = f"{base}_{count}", count + 1
        taken |= mine
        names[stage] = name
    return names


def _ordered(values: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """Return values, one or one a feature in torch's order, in the integer network's."""
    return values if order is None or len(values) == 1 else values[order]


def _ints(x: torch.Tensor) -> np.ndarray:
    return x.detach().cpu().numpy().astype(np.int64)


def _orders(model: QuantizedModel) -> dict[str, np.ndarray | None]:
    """Return for each stage which of torch's features stands at each place here; None where none is elsewhere.

    Torch flattens channels first, the IR channels last.
    """
    orders: dict[str, np.ndarray | None] = {"": None}
    for stage in model:
        found = [orders[source] for source in stage.sources]
        if isinstance(stage, Flatten):
            c, h, w = stage.shape
            order = np.arange(c * h * w).reshape(c, h, w).transpose(1, 2, 0).ravel()
            orders[stage.name] = order if c > 1 and h * w > 1 else None
        elif isinstance(stage, Weighted | Unflatten):
            orders[stage.name] = None
        elif isinstance(stage, Select) and found[0] is not None:
            kept = np.searchsorted(stage.channels, found[0][np.isin(found[0], stage.channels)])
            orders[stage.name] = None if np.array_equal(kept, np.arange(len(kept))) else kept
        elif isinstance(stage, Concat | Add) and any(order is not None for order in found):
            orders[stage.name] = _joined(stage, model, found)
        else:
            orders[stage.name] = found[0]
    return orders


def _joined(stage: Stage, model: QuantizedModel, found: list[np.ndarray | None]) -> np.ndarray:
    """Return the order of the flat tensor that a stage joins."""
    counts = [_features(model, source) for source in stage.sources]
    orders = [np.arange(count) if order is None else order for count, order in zip(counts, found, strict=True)]
    if isinstance(stage, Concat):
        return np.concatenate([order + sum(counts[:k]) for k, order in enumerate(orders)])
    if (orders[0] != orders[1]).any():
        raise ModelError(f"'{stage.name}' adds tensors that were flattened from images of different shapes: torch holds them "
                         "channel by channel, the hardware pixel by pixel. Add before Flatten, or behind a Linear layer")
    return orders[0]


def _features(model: QuantizedModel, name: str) -> int:
    """Return the length of a flat tensor."""
    stage = next((stage for stage in model if stage.name == name), None)
    if stage is None:
        return model.input_shape[0]
    if isinstance(stage, Flatten):
        return int(np.prod(stage.shape))
    if isinstance(stage, Weighted):
        return int(stage.weight.shape[0])
    if isinstance(stage, Select):
        return len(stage.channels)
    counts = [_features(model, source) for source in stage.sources]
    return sum(counts) if isinstance(stage, Concat) else counts[0]


class _Builder:
    """Makes the nodes of one stage after the other."""

    def __init__(self, model: QuantizedModel) -> None:
        self.names, self.orders = _names(model), _orders(model)
        shape, grid = model.input_shape, model.input_spec.grid
        channels_last = (shape[1], shape[2], shape[0]) if len(shape) == 3 else tuple(shape)
        self.nodes: list[ir.Node] = [ir.Input("input", (), channels_last, grid.lo, grid.hi, grid.frac_bits)]
        self.grids = {"": grid}
        self.edges = {"": "input"}

    def add(self, stage: Stage) -> None:
        """Append the stage's nodes."""
        grids = [self.grids[source] for source in stage.sources]
        for kind, rule in _RULES.items():
            if isinstance(stage, kind):
                rule(self, stage, self.names[stage], tuple(self.edges[source] for source in stage.sources), *grids)
                break
        else:
            raise ModelError(f"Layer '{stage.name}': no rule turns a {type(stage).__name__} into the IR")
        self.edges[stage.name] = self.nodes[-1].name
        self.grids[stage.name] = stage.grid(*grids)

    def weighted(self, stage: Weighted, name: str, sources: tuple[str, ...], grid: Grid) -> None:
        weight, bias = _ints(stage.weight_codes()), _ints(stage.bias_codes(grid))
        fmt = stage.quantizer.format()
        if stage.is_conv:
            self.nodes.append(ir.Conv2d(name, sources, weight.transpose(0, 2, 3, 1), bias, fmt, stage.stride, stage.pads,
                                        stage.dilation, stage.groups))
        else:
            order = self.orders[stage.sources[0]]
            self.nodes.append(ir.Linear(name, sources, weight if order is None else weight[:, order], bias, fmt))
        low, high = channel_ranges(self.nodes[-1], ir.Edge((), grid.lo, grid.hi))        # type: ignore[arg-type]
        self.requantize(f"{name}.act", stage, name, stage.requant(grid), low, high)

    def requantize(self, name: str, stage: Stage, source: str, requant: Requant | None, low: np.ndarray, high: np.ndarray) -> None:
        """Append what makes codes of integers between ``low`` and ``high``, one or one a channel."""
        if requant is None:
            return
        grid, order = requant.grid, self.orders[stage.name]
        if requant.slope is None:
            fields: dict[str, Any] = {"mult": _ints(requant.mult), "offset": _ints(requant.offset), "shift": requant.shift,
                                      "lo": grid.lo, "hi": grid.hi, "frac_bits": grid.frac_bits}
        else:
            fields, sign = sloped(requant, low, high, stage.name)
            if (sign < 0).any():
                most = max(abs(int(low.min())), abs(int(high.max())))
                self.nodes.append(ir.Requantize(f"{self.names[stage]}.sign", (source,), _ordered(sign, order), lo=-most, hi=most))
                source = self.nodes[-1].name
        fields = {key: _ordered(value, order) if isinstance(value, np.ndarray) else value for key, value in fields.items()}
        self.nodes.append(ir.Requantize(name, (source,), **fields))

    def average(self, stage: Average, name: str, sources: tuple[str, ...], grid: Grid) -> None:
        if isinstance(stage, AvgPool) and stage.factors is not None and stage.shape is not None:
            sums, (height, width), channels = stage.sums(grid), np.shape(stage.factors), stage.shape[0]
            self.nodes += [ir.AvgPool2d(f"{name}.sum", sources, stage.kernel, stage.stride, stage.pads),
                           ir.Flatten(f"{name}.flat", (f"{name}.sum",)),
                           ir.Requantize(f"{name}.each", (f"{name}.flat",), np.repeat(stage.factors, channels), lo=sums.lo,
                                         hi=sums.hi, frac_bits=sums.frac_bits),
                           ir.Unflatten(name, (f"{name}.each",), shape=(height, width, channels))]
        elif isinstance(stage, AvgPool):
            self.nodes.append(ir.AvgPool2d(name, sources, stage.kernel, stage.stride, stage.pads))
        else:
            self.nodes.append(ir.GlobalAvgPool2d(name, sources))
        if stage.activation is None:
            return
        out, sums = stage.activation.grid, stage.sums(grid)
        p, q = stage.fraction(grid)
        thresholds = thresholds_of(lambda a: (2 * a * p + q) // (2 * q), sums.lo, sums.hi, out.lo, out.hi)
        scale = exact_scale(thresholds, out.lo, sums.lo, sums.hi, two_offsets=True)
        self.nodes.append(ir.Requantize(
            f"{name}.act", (name,), np.array([scale.mult]), np.array([scale.offset]), scale.shift, out.lo, out.hi,
            np.array([] if scale.offset_neg is None else [scale.offset_neg], np.int64), frac_bits=out.frac_bits))

    def sum(self, stage: Add, name: str, sources: tuple[str, ...], *grids: Grid) -> None:
        self.nodes.append(ir.Add(name, sources, stage.mults(*grids)))
        sums = stage.sums(*grids)
        self.requantize(f"{name}.act", stage, name, stage.requant(*grids), np.array([sums.lo]), np.array([sums.hi]))

    def unflatten(self, stage: Unflatten, name: str, sources: tuple[str, ...], grid: Grid) -> None:
        c, h, w = stage.shape
        here = self.orders[stage.sources[0]]                      # which of torch's features stands where
        wanted = np.arange(c * h * w).reshape(c, h, w).transpose(1, 2, 0).ravel()
        self.nodes += [ir.Permute(f"{name}.order", sources, order=wanted if here is None else np.argsort(here)[wanted]),
                       ir.Unflatten(name, (f"{name}.order",), shape=(h, w, c))]

    def shuffle(self, stage: Shuffle, name: str, sources: tuple[str, ...], grid: Grid) -> None:
        here, order = self.orders[stage.sources[0]], np.array(stage.channels)
        self.nodes.append(ir.Permute(name, sources, order=order if here is None else np.argsort(here)[order[here]]))

    def select(self, stage: Select, name: str, sources: tuple[str, ...], grid: Grid) -> None:
        here, channels = self.orders[stage.sources[0]], np.array(stage.channels)
        self.nodes.append(ir.Select(name, sources, channels if here is None else np.flatnonzero(np.isin(here, channels))))

    def relu(self, stage: Relu, name: str, sources: tuple[str, ...], grid: Grid) -> None:
        self.nodes.append(ir.Requantize(name, sources, lo=0, hi=stage.grid(grid).hi, frac_bits=grid.frac_bits))


_RULES: dict[type[Stage], Callable[..., None]] = {
    Weighted: _Builder.weighted, Average: _Builder.average, Add: _Builder.sum, Relu: _Builder.relu,
    Quantize: lambda to, stage, name, sources, grid: to.requantize(
        name, stage, sources[0], stage.requant(grid), np.array([grid.lo]), np.array([grid.hi])),
    Concat: lambda to, stage, name, sources, *grids: to.nodes.append(ir.Concat(name, sources)),
    MaxPool: lambda to, stage, name, sources, grid: to.nodes.append(
        ir.MaxPool2d(name, sources, stage.kernel, stage.stride, stage.pads)),
    Pad: lambda to, stage, name, sources, grid: to.nodes.append(ir.Pad(name, sources, stage.pads)),
    Upsample: lambda to, stage, name, sources, grid: to.nodes.append(ir.Upsample(name, sources, stage.factor)),
    Unflatten: _Builder.unflatten, Shuffle: _Builder.shuffle, Select: _Builder.select,
    Flatten: lambda to, stage, name, sources, grid: to.nodes.append(ir.Flatten(name, sources)),
}


def convert(model: QuantizedModel, name: str = "network", classes: Sequence[str] = ()) -> ir.Graph:
    """Return the integer network that equals ``model`` in eval mode, on every edge.

    Layers keep their dotted names; the requantization behind a layer or addition is called ``<layer>.act``.

    Parameters
    ----------
    model : QuantizedModel
        Prepared and calibrated; frozen or not.
    name : str
        Name of the network.
    classes : sequence of str
        Names of the outputs, or empty.

    Raises
    ------
    ModelError
        Not a prepared or not a calibrated model; NaN or infinite weights; class names that do not match; channels in an order that
        no weights can take up, see `FoldPermute`.
    """
    if not isinstance(model, QuantizedModel):
        raise ModelError(f"convert takes what hwq.quant.prepare returns, not a {type(model).__name__}")
    builder = _Builder(model)
    for stage in model:
        builder.add(stage)
    if builder.orders[stage.name] is not None:
        shape = next(flat.shape for flat in reversed(list(model)) if isinstance(flat, Flatten))
        raise ModelError(f"The network ends in a Flatten of {shape} (channels, height, width): torch gives it channel by "
                         "channel, the hardware pixel by pixel. End in a Linear layer or a global average, "
                         "or leave the Flatten out")
    if model.rank:
        builder.nodes.append(ir.ArgMax(builder.names[None], (builder.nodes[-1].name,)))
    builder.nodes.append(ir.Output("output", (builder.nodes[-1].name,)))
    preprocess = ir.Preprocess(model.input_spec.bits) if len(model.input_shape) == 3 else None
    graph = ir.Graph(tuple(builder.nodes), preprocess, tuple(classes), name)
    FoldPermute().apply(graph)
    return graph


def require_convertible(model: QuantizedModel) -> None:
    """Raise now, before it is calibrated and trained, what `convert` would refuse afterwards."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, ActivationQuantizer) and not bool(module.calibrated):
            module.frac_bits.fill_(4)                             # any scale will do
            module.calibrated.fill_(True)
    convert(twin.eval())


def _channels_last(codes: torch.Tensor) -> np.ndarray:
    array = _ints(codes)
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _edges(model: QuantizedModel, x: torch.Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the edges by name, flattened ones in the integer network's order; ``output`` is what torch's user gets."""
    names, orders = _names(model), _orders(model)
    result = np.zeros(0, np.int64)
    yield "input", _channels_last(model.input_spec.codes(x))
    for stage, (suffix, codes, _) in model.steps(x):
        array = result = _channels_last(codes)
        order = orders[stage.name]
        yield names[stage] + suffix, array if order is None else array[:, order]
    if model.rank:
        result = result.argmax(axis=-1)[..., None]
        yield names[None], result
    yield "output", result


def trace_codes(model: QuantizedModel, images: np.ndarray | torch.Tensor) -> dict[str, np.ndarray]:
    """Return what torch computes on every edge of the network that `convert` makes, as int64, channels last.

    Parameters
    ----------
    model : QuantizedModel
        Calibrated.
    images : uint8 array or tensor (n, h, w[, c]), or a float tensor as torch is fed
        Inputs.
    """
    if isinstance(images, torch.Tensor) and images.dtype == torch.uint8:
        images = images.cpu().numpy()
    x = images if isinstance(images, torch.Tensor) else model.input_spec.tensor(images)
    with torch.no_grad():
        return dict(_edges(model, x.to(next(model.parameters()).device)))
