"""The prepared network: a graph of stages that trains with fake quantizers and evaluates in exact integers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

from ..errors import ModelError
from .grid import Grid
from .inputs import InputSpec
from .stages import Stage, Step, Weighted

__all__ = ["QuantizedModel"]

Value = TypeVar("Value")


def _key(name: str) -> str:
    """Return the name under which torch holds a stage: without dots, and none of the container's own, such as ``values``."""
    key = name.replace(".", "__")
    return f"{key}_" if hasattr(nn.ModuleDict, key) else key


class QuantizedModel(nn.Module):
    """What `prepare` returns.

    In training mode ``model(x)`` runs on reals with fake-quantized weights and activations. In eval mode it runs on
    integers held in float64, with every bound checked to lie below 2**53, and returns logits in float64 that equal
    the interpreter's integers times their power-of-two scale, exactly.

    Attributes
    ----------
    stages : nn.ModuleDict
        Each behind those it reads, the last makes the result; keys are the layers' names with ``.`` replaced.
    input_spec : InputSpec
        The input codes.
    input_shape : tuple of int
        (c, h, w), of 1-D networks (c, 1, length), or (features,).
    float_weights : bool
        In training mode, compute with the float weights instead of their levels; false by default.
    scales_fixed : bool
        `fix_scales` was called, by `hwq.quant.freeze` or before it.
    notes : tuple of str
        What of the end was left out, for the user to read.
    rank : str
        Name of an argmax at the end, which the integer network does; this one gives the logits in either mode. Else empty.
    """

    frozen: torch.Tensor

    def __init__(self, stages: Sequence[Stage], input_spec: InputSpec, input_shape: tuple[int, ...], notes: tuple[str, ...] = (),
                 rank: str = "") -> None:
        super().__init__()
        self.stages = nn.ModuleDict({_key(stage.name): stage for stage in stages})
        if len(self.stages) != len(stages):
            raise ModelError("Two layers' names differ in '.' and '__' or in a last '_' only; rename one")
        self.input_spec, self.input_shape = input_spec, tuple(input_shape)
        self.register_buffer("frozen", torch.tensor(False))
        self.float_weights = False
        self.scales_fixed = False
        self.notes, self.rank = notes, rank

    def fix_scales(self) -> None:
        """End the learning of scales; unlike `hwq.quant.freeze` it leaves the batch norms in training."""
        for stage in self.weighted:
            stage.quantizer.fix()
        self.scales_fixed = True

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages.values())                # type: ignore[arg-type]

    @property
    def weighted(self) -> list[Weighted]:
        """The stages with weights, in order."""
        return [stage for stage in self if isinstance(stage, Weighted)]

    @property
    def batchnorms(self) -> list[nn.Module]:
        """The batch norms that are kept, in order."""
        return [stage.batchnorm for stage in self if stage.batchnorm is not None]

    def train(self, mode: bool = True) -> "QuantizedModel":
        """Set the mode; batch norms of a frozen model stay on their running statistics."""
        super().train(mode)
        if mode and bool(self.frozen):
            for norm in self.batchnorms:
                norm.eval()
        return self

    def _checked(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input, a line as an image of height 1."""
        if x.ndim == 3 and len(self.input_shape) == 3 and self.input_shape[1] == 1:
            x = x.unsqueeze(2)
        if tuple(x.shape[1:]) != self.input_shape:
            raise ModelError(f"Input must have the shape (n, {', '.join(map(str, self.input_shape))}), not {tuple(x.shape)}")
        return x

    def steps(self, x: torch.Tensor) -> Iterator[tuple[Stage, Step]]:
        """Yield every integer edge in order, from reals ``x`` as torch is fed; float64, channels first."""
        x = self._checked(x)
        values = _Values(self, (self.input_spec.codes(x), self.input_spec.grid))
        for stage in self:
            for step in stage.steps(*values.take(stage)):
                yield stage, step
            values.put(stage, step[1:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits, (n, classes)."""
        if not self.training:
            with torch.no_grad():
                *_, (_, (_, codes, grid)) = self.steps(x)
            return codes * 2.0 ** -grid.frac_bits / grid.divide
        x = self._checked(x)
        train_grid: Grid | None = self.input_spec.grid
        values = _Values(self, (x, train_grid))
        for stage in self:
            inputs = values.take(stage)
            tensors, grids = [tensor for tensor, _ in inputs], [grid for _, grid in inputs]
            x = stage(*tensors, grids[0], self.float_weights) if isinstance(stage, Weighted) else stage(*tensors)
            del inputs, tensors
            values.put(stage, (x, _train_grid(stage, grids)))
        return x


def _train_grid(stage: Stage, grids: list[Grid | None]) -> Grid | None:
    """Return the grid behind a stage, which places the next layer's bias; None while it is not calibrated."""
    if stage.activation is not None:
        return stage.activation.grid if bool(stage.activation.calibrated) else None
    known = [grid for grid in grids if grid is not None]
    return stage.grid(*known) if len(known) == len(grids) and not isinstance(stage, Weighted) else None


class _Values(Generic[Value]):
    """What each stage made, until the last stage that reads it has taken it."""

    def __init__(self, model: QuantizedModel, start: Value) -> None:
        self._left = Counter(source for stage in model for source in stage.sources)
        self._made = {"": start}

    def take(self, stage: Stage) -> list[Value]:
        """Return what a stage reads."""
        found = [self._made[source] for source in stage.sources]
        self._left.subtract(stage.sources)
        for source in set(stage.sources):
            if not self._left[source]:
                del self._made[source]
        return found

    def put(self, stage: Stage, value: Value) -> None:
        """Keep what it made."""
        self._made[stage.name] = value
