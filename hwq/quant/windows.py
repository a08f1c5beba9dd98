"""Stages without weights that read one tensor: pooling, borders, enlargement, flattening, other or fewer channels."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from .activations import ActivationQuantizer
from .grid import Grid, require_exact
from .stages import Codes, Stage, Step

__all__ = ["MaxPool", "Average", "AvgPool", "GlobalAvgPool", "Pad", "Upsample", "Flatten", "Unflatten", "Shuffle", "Select"]

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


class Move(Stage):
    """Base of stages that move integers as they move reals."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Move."""
        raise NotImplementedError

    def grid(self, *grids: Grid) -> Grid:
        """See `Stage.grid`: the input's."""
        return grids[0]

    def steps(self, *inputs: Codes) -> Iterator[Step]:
        """See `Stage.steps`."""
        (codes, grid), = inputs
        yield "", self(codes), self.grid(grid)


class MaxPool(Move):
    """Largest of each window; padding (top, left, bottom, right), at most half of the kernel before, never wins."""

    def __init__(self, name: str, sources: tuple[str, ...], kernel: Pair, stride: Pair, pads: Pads) -> None:
        super().__init__(name, sources)
        self.kernel, self.stride, self.pads = kernel, stride, pads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Largest of each window."""
        return F.max_pool2d(x, self.kernel, self.stride, self.pads[:2], ceil_mode=self.pads[:2] != self.pads[2:])


class Pad(Move):
    """Border of zeros, or a crop where a side is below 0: (top, left, bottom, right)."""

    def __init__(self, name: str, sources: tuple[str, ...], pads: Pads) -> None:
        super().__init__(name, sources)
        self.pads = pads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad."""
        top, left, bottom, right = self.pads
        return F.pad(x, (left, right, top, bottom))

    def grid(self, *grids: Grid) -> Grid:
        """See `Stage.grid`: zero joins, if there is a border."""
        grid = grids[0]
        return grid if max(self.pads) <= 0 else Grid(min(grid.lo, 0), max(grid.hi, 0), grid.frac_bits, grid.divide)


class Upsample(Move):
    """Every pixel ``factor`` times, vertically and horizontally."""

    def __init__(self, name: str, sources: tuple[str, ...], factor: Pair) -> None:
        super().__init__(name, sources)
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Enlarge."""
        return x.repeat_interleave(self.factor[0], 2).repeat_interleave(self.factor[1], 3)


class Flatten(Move):
    """(n, c, h, w) to (n, c*h*w), in torch's order; ``shape`` is (c, h, w)."""

    def __init__(self, name: str, sources: tuple[str, ...], shape: tuple[int, int, int]) -> None:
        super().__init__(name, sources)
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Flatten."""
        return x.flatten(1)


class Unflatten(Move):
    """(n, features) to (n, c, h, w), in torch's order; ``shape`` is (c, h, w). On integers it yields features pixel by pixel."""

    def __init__(self, name: str, sources: tuple[str, ...], shape: tuple[int, int, int]) -> None:
        super().__init__(name, sources)
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Unflatten."""
        return x.reshape(-1, *self.shape)

    def steps(self, *inputs: Codes) -> Iterator[Step]:
        """See `Stage.steps`."""
        (codes, grid), = inputs
        image = self(codes)
        yield ".order", image.permute(0, 2, 3, 1).flatten(1), grid
        yield "", image, grid


class _Taken(Move):
    """Channels, or features, by number: ``out[i] = in[channels[i]]``."""

    def __init__(self, name: str, sources: tuple[str, ...], channels: tuple[int, ...]) -> None:
        super().__init__(name, sources)
        self.channels = list(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take them."""
        return x[:, self.channels]


class Shuffle(_Taken):
    """All channels, or features, in another order."""


class Select(_Taken):
    """Some of the channels, or features, ascending."""


class Average(Stage):
    """Base of means over ``pixels`` pixels; on integers the sum, then the division inside the requantization.

    Parameters
    ----------
    activation : ActivationQuantizer or None
        None: the sums stay (the network's last layer).
    """

    def __init__(self, name: str, sources: tuple[str, ...], pixels: int, activation: ActivationQuantizer | None) -> None:
        super().__init__(name, sources)
        self.pixels, self.activation = pixels, activation

    def _mean(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _sum(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mean."""
        y = self._mean(x)
        return y if self.activation is None else self.activation(y)

    def fraction(self, grid: Grid) -> tuple[int, int]:
        """Return (p, q) such that the code of a sum ``a`` is ``clamp(floor(a * p / q + 1/2))``."""
        assert self.activation is not None
        up = self.activation.grid.frac_bits - grid.frac_bits
        return 1 << max(up, 0), self.pixels << max(-up, 0)

    def sums(self, grid: Grid) -> Grid:
        """Return the grid of the sums."""
        return Grid(grid.lo * self.pixels, grid.hi * self.pixels, grid.frac_bits, self.pixels)

    def grid(self, *grids: Grid) -> Grid:
        """See `Stage.grid`."""
        return self.sums(grids[0]) if self.activation is None else self.activation.grid

    def steps(self, *inputs: Codes) -> Iterator[Step]:
        """See `Stage.steps`: the sums, then the codes."""
        (codes, grid), = inputs
        sums = self.sums(grid)
        require_exact(sums.largest, self.name)
        total = self._sum(codes)
        yield "", total, sums
        if self.activation is not None:
            p, q = self.fraction(grid)
            out = self.activation.grid
            require_exact(sums.largest * 2 * p + q, self.name)
            exact = torch.div(total.to(torch.int64) * (2 * p) + q, 2 * q, rounding_mode="floor")
            yield ".act", exact.clamp(out.lo, out.hi).to(torch.float64), out


class GlobalAvgPool(Average):
    """Mean over the whole image, (n, c, 1, 1)."""

    def _mean(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True)

    def _sum(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum((2, 3), keepdim=True)


class AvgPool(Average):
    """Mean over each window; padding (top, left, bottom, right) counts as zeros.

    Parameters
    ----------
    shape : (int, int, int), optional
        Channels and size of the image, where padding does not count: then each sum is first multiplied by ``pixels`` over the
        window's pixels inside, and ``pixels`` is the least common multiple of those.
    """

    def __init__(self, name: str, sources: tuple[str, ...], kernel: Pair, stride: Pair, pads: Pads,
                 activation: ActivationQuantizer | None, shape: tuple[int, int, int] | None = None) -> None:
        super().__init__(name, sources, kernel[0] * kernel[1], activation)
        self.kernel, self.stride, self.pads = kernel, stride, pads
        self.factors: list[list[int]] | None = None               # of each window
        self.shape = shape
        if shape is not None:
            counts = self._plain_sum(torch.ones(1, 1, *shape[1:], dtype=torch.float64))[0, 0].long()
            self.pixels = math.lcm(*counts.flatten().tolist())
            self.factors = (self.pixels // counts).tolist()

    def _mean(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, self.kernel, self.stride, self.pads[:2], count_include_pad=self.factors is None)

    def _plain_sum(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, self.kernel, self.stride, self.pads[:2], divisor_override=1)

    def _sum(self, x: torch.Tensor) -> torch.Tensor:
        total = self._plain_sum(x)
        return total if self.factors is None else total * torch.tensor(self.factors, dtype=x.dtype, device=x.device)

    def sums(self, grid: Grid) -> Grid:
        """See `Average.sums`."""
        return super().sums(Grid(min(grid.lo, 0), max(grid.hi, 0), grid.frac_bits)
                            if any(self.pads) and self.factors is None else grid)

    def steps(self, *inputs: Codes) -> Iterator[Step]:
        """See `Stage.steps`: where padding does not count, first the sums, pixel by pixel, and their multiples."""
        (codes, grid), = inputs
        if self.factors is not None:
            plain, sums = self._plain_sum(codes), self.sums(grid)
            yield ".sum", plain, sums
            yield ".flat", plain.permute(0, 2, 3, 1).flatten(1), sums
            yield ".each", self._sum(codes).permute(0, 2, 3, 1).flatten(1), sums
        yield from super().steps(*inputs)
