"""From a prepared torch network to the integer IR, and the torch side of every edge for comparison."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from .. import ir
from ..errors import ModelError
from ..passes.exact_scale import exact_scale, thresholds_of
from ..quant.grid import Grid
from ..quant.model import QuantizedModel
from ..quant.stages import Flatten, GlobalAvgPool, MaxPool, Requant, Stage, Weighted

__all__ = ["convert", "trace_codes"]


def _names(model: QuantizedModel) -> dict[Stage, str]:
    """Return a safe and unique node name for every stage, from its dotted name."""
    taken = {"input", "output"}
    names: dict[Stage, str] = {}
    for stage in model:
        base = re.sub(r"[^A-Za-z0-9_.]", "_", stage.name) or "layer"
        name, count = base, 2
        while name in taken or f"{name}.act" in taken:
            name, count = f"{base}_{count}", count + 1
        taken |= {name, f"{name}.act"}
        names[stage] = name
    return names


def _ints(x: torch.Tensor) -> np.ndarray:
    return x.detach().cpu().numpy().astype(np.int64)


class _Builder:
    """Makes the nodes of one stage after the other."""

    def __init__(self, model: QuantizedModel, names: dict[Stage, str]) -> None:
        self.model, self.names = model, names
        shape, grid = model.input_shape, model.input_spec.grid
        channels_last = (shape[1], shape[2], shape[0]) if len(shape) == 3 else tuple(shape)
        self.nodes: list[ir.Node] = [ir.Input("input", (), channels_last, grid.lo, grid.hi, grid.frac_bits)]
        self.grid: Grid = grid
        self.flattened: tuple[int, int, int] | None = None

    @property
    def last(self) -> str:
        return self.nodes[-1].name

    def add(self, stage: Stage) -> None:
        """Append the stage's nodes and follow its grid."""
        name = self.names[stage]
        if isinstance(stage, Weighted):
            self._weighted(stage, name)
        elif isinstance(stage, MaxPool):
            self.nodes.append(ir.MaxPool2d(name, (self.last,), stage.kernel, stage.kernel))
        elif isinstance(stage, GlobalAvgPool):
            self._global(stage, name)
        elif isinstance(stage, Flatten):
            self.nodes.append(ir.Flatten(name, (self.last,)))
            self.flattened = stage.shape
        else:
            raise ModelError(f"Layer '{stage.name}': no rule turns a {type(stage).__name__} into the IR")

    def _weighted(self, stage: Weighted, name: str) -> None:
        weight, bias = _ints(stage.weight_codes()), _ints(stage.bias_codes(self.grid))
        fmt = stage.quantizer.format()
        if stage.is_conv:
            self.nodes.append(ir.Conv2d(name, (self.last,), weight.transpose(0, 2, 3, 1), bias, fmt, stage.stride, stage.pads))
        else:
            if self.flattened is not None:              # torch flattens channels first, the IR channels last
                c, h, w = self.flattened
                weight = weight.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(len(weight), -1)
                self.flattened = None
            self.nodes.append(ir.Linear(name, (self.last,), weight, bias, fmt))
        requant = stage.requant(self.grid)
        if requant is not None:
            self._requantize(name, requant)
            self.grid = requant.grid
        else:
            self.grid = Grid(0, 0, self.grid.frac_bits + fmt.frac_bits)

    def _requantize(self, name: str, requant: Requant) -> None:
        mult, offset, shift = _ints(requant.mult), _ints(requant.offset), requant.shift
        grid = requant.grid
        self.nodes.append(ir.Requantize(f"{name}.act", (name,), mult, offset, shift, grid.lo, grid.hi,
                                        frac_bits=grid.frac_bits))

    def _global(self, stage: GlobalAvgPool, name: str) -> None:
        self.nodes.append(ir.GlobalAvgPool2d(name, (self.last,)))
        if stage.activation is None:
            return
        out = stage.activation.grid
        p, q = stage.fraction(self.grid)
        lo, hi = self.grid.lo * stage.pixels, self.grid.hi * stage.pixels
        thresholds = thresholds_of(lambda a: (2 * a * p + q) // (2 * q), lo, hi, out.lo, out.hi)
        scale = exact_scale(thresholds, out.lo, lo, hi, two_offsets=True)
        self.nodes.append(ir.Requantize(
            f"{name}.act", (name,), np.array([scale.mult]), np.array([scale.offset]), scale.shift, out.lo, out.hi,
            np.array([] if scale.offset_neg is None else [scale.offset_neg], np.int64), frac_bits=out.frac_bits))
        self.grid = out


def convert(model: QuantizedModel, name: str = "network", classes: Sequence[str] = ()) -> ir.Graph:
    """Return the integer network that equals ``model`` in eval mode, on every edge.

    Layers keep their dotted names; the requantization behind a layer is called ``<layer>.act``.

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
        Not a prepared or not a calibrated model; NaN or infinite weights; class names that do not match.
    """
    if not isinstance(model, QuantizedModel):
        raise ModelError(f"convert takes what hwq.quant.prepare returns, not a {type(model).__name__}")
    builder = _Builder(model, _names(model))
    for stage in model:
        builder.add(stage)
    if builder.flattened is not None and builder.flattened[0] > 1 and builder.flattened[1:] != (1, 1):
        raise ModelError(f"The network ends in a Flatten of {builder.flattened} (channels, height, width): torch gives it channel by "
                         "channel, the hardware pixel by pixel. End in a Linear layer or a global average, or leave the Flatten out")
    builder.nodes.append(ir.Output("output", (builder.last,)))
    preprocess = ir.Preprocess(model.input_spec.bits) if len(model.input_shape) == 3 else None
    return ir.Graph(tuple(builder.nodes), preprocess, tuple(classes), name)


def _channels_last(codes: torch.Tensor) -> np.ndarray:
    array = _ints(codes)
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def _edges(model: QuantizedModel, x: torch.Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the edges by name, flattened ones in the integer network's order; ``output`` is what torch's user gets."""
    names = _names(model)
    result = np.zeros(0, np.int64)
    yield "input", _channels_last(model.input_spec.codes(x))
    for stage, (suffix, codes, _) in model.steps(x):
        array = result = _channels_last(codes)
        if isinstance(stage, Flatten):
            c, h, w = stage.shape
            array = array.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(len(array), -1)
        yield names[stage] + suffix, array
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
