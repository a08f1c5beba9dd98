"""Stages where branches meet, and those that branches need: sums, concatenations, a ReLU or a quantizer of its own."""

from collections.abc import Iterator

import torch
from torch import nn

from ..errors import ModelError
from .activations import ActivationQuantizer
from .grid import Grid, require_exact
from .stages import Codes, Requant, Stage, Step, batchnorm_requant, shift_requant

__all__ = ["Add", "Concat", "Relu", "Quantize"]


class Add(Stage):
    """Sum of two tensors of one shape: on integers at the finer of their scales, then requantized.

    Parameters
    ----------
    activation : ActivationQuantizer or None
        None: the sums stay (the network's last layer).
    batchnorm : nn.BatchNorm2d or nn.BatchNorm1d or None
        Behind the sum: a multiplier of ``mult_bits`` a channel, as `Weighted` keeps its own; there are no weights to fold it into.
    """

    def __init__(self, name: str, sources: tuple[str, ...], activation: ActivationQuantizer | None,
                 batchnorm: nn.BatchNorm2d | nn.BatchNorm1d | None = None, mult_bits: int = 10) -> None:
        super().__init__(name, sources)
        self.activation, self.batchnorm, self.mult_bits = activation, batchnorm, mult_bits

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Sum, quantized."""
        return self._quantized(a + b if self.batchnorm is None else self.batchnorm(a + b))

    def mults(self, a: Grid, b: Grid) -> tuple[int, int]:
        """Return the powers of two that bring both operands to the finer scale."""
        fine = max(a.frac_bits, b.frac_bits)
        return 1 << (fine - a.frac_bits), 1 << (fine - b.frac_bits)

    def sums(self, a: Grid, b: Grid) -> Grid:
        """Return the grid of the sums."""
        up, across = self.mults(a, b)
        return Grid(a.lo * up + b.lo * across, a.hi * up + b.hi * across, max(a.frac_bits, b.frac_bits))

    def requant(self, a: Grid, b: Grid) -> Requant | None:
        """Return how sums become codes; None where they stay."""
        if self.activation is None:
            return None
        frac_bits, out = self.sums(a, b).frac_bits, self.activation.grid
        return self._sloped(shift_requant(frac_bits, out) if self.batchnorm is None
                            else batchnorm_requant(self.batchnorm, None, frac_bits, out, self.mult_bits, self.name))

    def grid(self, *grids: Grid) -> Grid:
        """See `Stage.grid`."""
        return self.sums(*grids) if self.activation is None else self.activation.grid

    def steps(self, *inputs: Codes) -> Iterator[Step]:
        """See `Stage.steps`: the sums, then the codes."""
        (a, grid_a), (b, grid_b) = inputs
        up, across = self.mults(grid_a, grid_b)
        sums, requant = self.sums(grid_a, grid_b), self.requant(grid_a, grid_b)
        bound = grid_a.largest * up + grid_b.largest * across
        require_exact(bound, self.name)
        total = a * up + b * across
        yield "", total, sums
        if requant is not None:
            yield from requant.steps(total, sums, self.name)


class Concat(Stage):
    """Channels of several tensors behind one another; all have one scale, see `hwq.quant.drafts`."""

    def forward(self, *x: torch.Tensor) -> torch.Tensor:
        """Concatenate."""
        return torch.cat(x, 1)

    def grid(self, *grids: Grid) -> Grid:
        """See `Stage.grid`.

        Raises
        ------
        ModelError
            The scales differ, which calibration does not leave.
        """
        scales = sorted({grid.frac_bits for grid in grids})
        if len(scales) > 1:
            raise ModelError(f"'{self.name}' concatenates activations of different scales, "
                             f"{', '.join(f'2**-{f}' for f in scales)}; call hwq.quant.calibrate(model, batches)")
        return Grid(min(grid.lo for grid in grids), max(grid.hi for grid in grids), scales[0])

    def steps(self, *inputs: Codes) -> Iterator[Step]:
        """See `Stage.steps`."""
        yield "", self(*(codes for codes, _ in inputs)), self.grid(*(grid for _, grid in inputs))


class Relu(Stage):
    """ReLU on codes that something else reads without it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Clamp below zero."""
        return torch.relu(x)

    def grid(self, *grids: Grid) -> Grid:
        """See `Stage.grid`."""
        return Grid(max(grids[0].lo, 0), max(grids[0].hi, 0), grids[0].frac_bits)

    def steps(self, *inputs: Codes) -> Iterator[Step]:
        """See `Stage.steps`."""
        (codes, grid), = inputs
        yield "", torch.relu(codes), self.grid(grid)


class Quantize(Stage):
    """Brings codes to another scale, where something else reads them as they are, or in front of a concatenation."""

    activation: ActivationQuantizer

    def __init__(self, name: str, sources: tuple[str, ...], activation: ActivationQuantizer) -> None:
        super().__init__(name, sources)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Quantize."""
        return self._quantized(x)

    def requant(self, grid: Grid) -> Requant:
        """Return how codes become codes."""
        return self._sloped(shift_requant(grid.frac_bits, self.activation.grid))

    def grid(self, *grids: Grid) -> Grid:
        """See `Stage.grid`."""
        return self.activation.grid

    def steps(self, *inputs: Codes) -> Iterator[Step]:
        """See `Stage.steps`."""
        (codes, grid), = inputs
        requant = self.requant(grid)
        yield "", requant(codes, grid.largest, self.name), requant.grid
