"""Stages of a prepared network: what is trained, and the very integers that the hardware computes.

A stage has two faces. ``forward`` works on reals with fake quantizers, for training. ``steps`` takes integers (float64,
(n, c, h, w)) with their grids and yields every integer tensor the stage makes, with a suffix for its name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import ModelError
from .activations import ActivationQuantizer
from .grid import Grid, require_exact, round_half_up
from .slopes import Slope
from .weights import WeightQuantizer, check_finite, power_of_two

__all__ = ["Stage", "Weighted", "Requant", "Codes", "Step", "shift_requant", "batchnorm_line", "batchnorm_requant"]

Codes = tuple[torch.Tensor, Grid]
Step = tuple[str, torch.Tensor, Grid]


@dataclass(frozen=True)
class Requant:
    """``clamp((acc * mult + offset) >> shift, lo, hi)``; mult and offset float64 integers, (1,) or (channels,).

    With a slope ``p / 2**q`` (see `Slope.ratio`) what is negative before it is rounded, without the half in ``offset``, is first
    multiplied by it, and then rounded half up as well.
    """

    mult: torch.Tensor
    offset: torch.Tensor
    shift: int
    grid: Grid
    slope: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, acc: torch.Tensor, bound: float, name: str) -> torch.Tensor:
        """Apply to integers of magnitude up to ``bound``, which is checked to stay exact."""
        total_bound = bound * float(self.mult.abs().max()) + float(self.offset.abs().max())
        require_exact(total_bound * 2.0 ** max(0, -self.shift), name)
        shape = (-1, 1, 1) if acc.ndim == 4 else (-1,)
        total = acc * self.mult.to(acc.device).view(shape) + self.offset.to(acc.device).view(shape)
        codes = torch.floor(total * 2.0 ** -self.shift)
        if self.slope is not None:
            half = 2.0 ** (self.shift - 1) if self.shift > 0 else 0.0
            top, places = (part.to(acc.device).view(shape) for part in self.slope)
            below = self._below((total - half).long(), top, places + self.shift, total_bound + half, name)
            codes = torch.where(total < half, below, codes)
        return codes.clamp(self.grid.lo, self.grid.hi)

    def _below(self, x: torch.Tensor, top: torch.Tensor, places: torch.Tensor, bound: float, name: str) -> torch.Tensor:
        """Return ``x * top / 2**places``, rounded half up."""
        up, down = (-places).clamp_min(0), places.clamp(0, 62)   # beyond 62 places nothing but 0 is left
        if not bool((top * 2.0 ** up * bound < 2.0 ** 61).all()):
            raise ModelError(f"Layer '{name}': its sums reach {bound:.3g}, times the slope for negative values more than 2**61; "
                             "use narrower formats for weights or activations, or a slope of fewer digits")
        half = torch.where(down > 0, 1 << (down - 1).clamp_min(0), 0)
        return ((x * top << up) + half >> down).double()

    @property
    def falling(self) -> torch.Tensor | None:
        """Of a requantization with slopes: which channels' codes fall with the sum, bool; None where none does."""
        falling = self.mult < 0
        return falling if self.slope is not None and bool(falling.any()) else None

    def steps(self, acc: torch.Tensor, sums: Grid, name: str) -> Iterator[Step]:
        """Yield the codes of sums; sums that fall and have a slope get their signs turned first, as thresholds want them rising."""
        if self.falling is not None:
            yield ".sign", torch.where(self.falling.to(acc.device).view((-1, 1, 1) if acc.ndim == 4 else (-1,)), -acc, acc), sums
        yield ".act", self(acc, sums.largest, name), self.grid


def shift_requant(frac_bits: int, out: Grid) -> Requant:
    """Return how sums with these binary digits become codes of ``out``: rounding half up by a shift."""
    shift = frac_bits - out.frac_bits
    half = 2.0 ** (shift - 1) if shift > 0 else 0.0
    return Requant(torch.ones(1, dtype=torch.float64), torch.full((1,), half, dtype=torch.float64), shift, out)


class Stage(nn.Module):
    """Base.

    Attributes
    ----------
    name : str
        The layer's dotted name in the user's module.
    sources : tuple of str
        Names of the stages that it reads; empty: the network's input.
    activation : ActivationQuantizer or None
        Turns its sums into codes; None: it makes none, or they stay.
    batchnorm : nn.BatchNorm2d or nn.BatchNorm1d or None
        Kept between its sums and their quantizer.
    slope : Slope or None
        For negative values in front of the quantizer, behind the batch norm.
    """

    def __init__(self, name: str, sources: tuple[str, ...]) -> None:
        super().__init__()
        self.name, self.sources = name, sources
        self.activation: ActivationQuantizer | None = None
        self.slope: Slope | None = None
        self.batchnorm: nn.BatchNorm2d | nn.BatchNorm1d | None = None

    def _quantized(self, y: torch.Tensor) -> torch.Tensor:
        y = y if self.slope is None else self.slope(y)
        return y if self.activation is None else self.activation(y)

    def _sloped(self, requant: Requant) -> Requant:
        return requant if self.slope is None else replace(requant, slope=self.slope.ratio())

    def grid(self, *grids: Grid) -> Grid:
        """Return the integers that the stage makes of inputs with these grids."""
        raise NotImplementedError

    def steps(self, *inputs: Codes) -> Iterator[Step]:
        """Yield (suffix, integers, grid) of every edge this stage makes, in order."""
        raise NotImplementedError


class Weighted(Stage):
    """Convolution or linear layer, with an optional batch norm that is kept, and an optional activation quantizer.

    Parameters
    ----------
    layer : nn.Conv2d or nn.Linear
        Its weights and bias are copied.
    quantizer : WeightQuantizer
        For the weights.
    activation : ActivationQuantizer or None
        None: the result stays as the raw sums (the network's last layer).
    batchnorm : nn.BatchNorm2d or nn.BatchNorm1d or None
        Kept: in eval mode exactly ``(acc * m + b) >> s`` per channel, see `requant`.
    mult_bits : int
        Bits of m, sign included.
    """

    def __init__(self, name: str, sources: tuple[str, ...], layer: nn.Conv2d | nn.Linear, quantizer: WeightQuantizer,
                 activation: ActivationQuantizer | None, batchnorm: nn.BatchNorm2d | nn.BatchNorm1d | None = None,
                 mult_bits: int = 10) -> None:
        super().__init__(name, sources)
        self.weight = nn.Parameter(layer.weight.detach().clone())
        bias = layer.bias.detach().clone() if layer.bias is not None else torch.zeros(layer.weight.shape[0])
        if batchnorm is None or layer.bias is not None:
            self.bias: nn.Parameter | None = nn.Parameter(bias.to(layer.weight))
        else:
            self.bias = None
        self.quantizer, self.activation, self.batchnorm, self.mult_bits = quantizer, activation, batchnorm, mult_bits
        self.is_conv = isinstance(layer, nn.Conv2d)
        self.stride, self.pads, self.dilation, self.groups = (1, 1), (0, 0, 0, 0), (1, 1), 1
        if isinstance(layer, nn.Conv2d):
            self.stride, self.dilation = (int(layer.stride[0]), int(layer.stride[1])), \
                (int(layer.dilation[0]), int(layer.dilation[1]))
            self.groups = layer.groups
            left, right, top, bottom = layer._reversed_padding_repeated_twice       # also right for 'same' of even kernels
            self.pads = (top, left, bottom, right)

    def _apply_layer(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if not self.is_conv:
            return F.linear(x, weight, bias)
        top, left, bottom, right = self.pads
        if (top, left) == (bottom, right):
            return F.conv2d(x, weight, bias, self.stride, (top, left), self.dilation, self.groups)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, self.stride, 0, self.dilation, self.groups)

    def _exact(self, codes: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, bound: float) -> torch.Tensor:
        """Return the sums of integers (float64), none of which, in whatever order, exceeds ``bound`` on its way.

        Below 2**24 float32 is as exact and five times as fast; but only by oneDNN's direct convolution, which torch takes for
        16 images and more: other kernels (Winograd, TF32) multiply something else than the integers.
        """
        if bound >= 1 << 24 or not self.is_conv or codes.device.type != "cpu" or len(codes) < 16 \
                or not torch.backends.mkldnn.is_available():
            return self._apply_layer(codes, weight, bias)
        return self._apply_layer(codes.float(), weight.float(), bias.float()).double()

    def forward(self, x: torch.Tensor, grid: Grid | None, float_weights: bool = False) -> torch.Tensor:
        """Train-time result; ``grid`` is the input's, None while it is not calibrated (the bias then stays real)."""
        # first: a learned scale moves here, the bias follows it
        weight = self.weight if float_weights else self.quantizer(self.weight)
        bias: torch.Tensor | None = self.bias
        if self.batchnorm is None and grid is not None and bias is not None:
            scale = power_of_two(grid.frac_bits + self.quantizer.frac_bits).to(bias.dtype)
            bias = bias + (round_half_up(bias.detach() * scale) / scale - bias).detach()
        y = self._apply_layer(x, weight, bias)
        if self.batchnorm is not None:
            y = self.batchnorm(y)
        return self._quantized(y)

    def weight_codes(self) -> torch.Tensor:
        """Return the integer weights, float64, in torch's order."""
        check_finite(self.weight, self.name)
        return self.quantizer.codes(self.weight)

    def bias_codes(self, grid: Grid) -> torch.Tensor:
        """Return the integer bias at its channel's accumulator scale (float64); zeros where a batch norm is kept."""
        if self.batchnorm is not None or self.bias is None:
            return torch.zeros(self.weight.shape[0], dtype=torch.float64, device=self.weight.device)
        check_finite(self.bias, self.name, "bias")
        return round_half_up(self.bias.detach().to(torch.float64) * power_of_two(grid.frac_bits + self.quantizer.frac_bits))

    def requant(self, grid: Grid) -> Requant | None:
        """Return how sums become codes, for the input's ``grid``; None where they stay.

        Without batch norm: shift = fl_x + fl_w - fl_out, offset = half of ``2**shift``, and m = 1; weights with a scale
        per channel have powers of two as m, which bring all channels to the finest one's scale. With a kept batch norm:
        the real line ``y = acc * g + h`` of each channel (running statistics) becomes ``m = round(g * 2**s)``,
        ``b = round(h * 2**s) + 2**(s-1)``, with the largest s for which every \\|m\\| is below ``2**(mult_bits - 1)``.
        """
        fine = self.quantizer.frac_bits
        if self.activation is None:
            if fine.ndim == 0:
                return None
            mult = power_of_two(fine.max() - fine)               # one scale for all logits
            limit = int((mult * self._bounds(grid)).max())
            return Requant(mult, mult.new_zeros(1), 0, Grid(-limit, limit, grid.frac_bits + int(fine.max())))
        out = self.activation.grid
        if self.batchnorm is None:
            shifts = (grid.frac_bits - out.frac_bits + fine).reshape(-1)
            shift = int(shifts.max())
            half = 2.0 ** (shift - 1) if shift > 0 else 0.0
            half_of_all = self.weight.new_full((1,), half, dtype=torch.float64)
            return self._sloped(Requant(power_of_two(shift - shifts), half_of_all, shift, out))
        return self._sloped(batchnorm_requant(self.batchnorm, self.bias, grid.frac_bits + fine, out, self.mult_bits, self.name))

    def _bounds(self, grid: Grid) -> torch.Tensor:
        """Largest magnitude of every channel's sum."""
        return self.weight_codes().abs().flatten(1).sum(1) * grid.largest + self.bias_codes(grid).abs()

    def _sums(self, grid: Grid) -> Grid:
        bound = int(self._bounds(grid).max())
        return Grid(-bound, bound, grid.frac_bits + int(self.quantizer.frac_bits.max()))

    def grid(self, *grids: Grid) -> Grid:
        """See `Stage.grid`."""
        requant = self.requant(grids[0])
        return self._sums(grids[0]) if requant is None else requant.grid

    def steps(self, *inputs: Codes) -> Iterator[Step]:
        """See `Stage.steps`: the sums, then the codes."""
        (codes, grid), = inputs
        sums = self._sums(grid)
        bound = float(sums.largest)
        require_exact(bound, self.name)
        acc = self._exact(codes, self.weight_codes(), self.bias_codes(grid), bound)
        yield "", acc, sums
        requant = self.requant(grid)
        if requant is not None:
            yield from requant.steps(acc, sums, self.name)


def batchnorm_requant(bn: nn.BatchNorm2d | nn.BatchNorm1d, bias: torch.Tensor | None, frac_bits: int | torch.Tensor, out: Grid,
                      mult_bits: int, name: str) -> Requant:
    """Return how sums with these binary digits (one, or one a channel) become codes of ``out`` through a kept batch norm."""
    gain, constant = batchnorm_line(bn, bias, name)
    gain = gain * power_of_two(out.frac_bits - torch.as_tensor(frac_bits, device=gain.device))
    constant = constant * 2.0 ** out.frac_bits
    limit = (1 << (mult_bits - 1)) - 1
    shift = 40
    while shift > -40 and float(round_half_up(gain * 2.0 ** shift).abs().max()) > limit:
        shift -= 1
    half = 2.0 ** (shift - 1) if shift > 0 else 0.0
    return Requant(round_half_up(gain * 2.0 ** shift), round_half_up(constant * 2.0 ** shift) + half, shift, out)


def batchnorm_line(bn: nn.BatchNorm2d | nn.BatchNorm1d, bias: torch.Tensor | None, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return gain and constant of every channel (float64): ``bn(x + bias) = x * gain + constant`` in eval mode."""
    assert bn.running_mean is not None and bn.running_var is not None
    check_finite(bn.running_mean, name, "running mean")
    check_finite(bn.running_var, name, "running variance")
    gain = (bn.running_var.detach().to(torch.float64) + bn.eps).rsqrt()
    if bn.weight is not None:
        gain = gain * bn.weight.detach().to(torch.float64)
    shift = -bn.running_mean.detach().to(torch.float64)
    if bias is not None:
        shift = shift + bias.detach().to(torch.float64)
    constant = shift * gain
    if bn.bias is not None:
        constant = constant + bn.bias.detach().to(torch.float64)
    return gain, constant
