"""Slopes for negative values, of LeakyReLU and PReLU: what trains, and the rationals that the hardware computes with."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..errors import ModelError
from .weights import check_finite

__all__ = ["Slope"]


class Slope(nn.Module):
    """``x`` where it is not negative, else ``slope * x``, with one slope or one a channel.

    A slope is the float32 nearest to it, as torch computes with float32, and so a rational. None counts as less than 0: where
    training takes one there, 0 counts, and the gradient passes.

    Parameters
    ----------
    slope : tensor (1,) or (channels,)
        Given in this order of channels, torch's.
    name : str
        For messages.
    trains : bool
        Of a PReLU.

    Raises
    ------
    ModelError
        One is negative, NaN or infinite.
    """

    def __init__(self, slope: torch.Tensor, name: str, trains: bool) -> None:
        super().__init__()
        self.name, slope = name, slope.detach().clone()
        check_finite(slope, name, "slope")
        if bool((slope < 0).any()):
            raise ModelError(f"Node '{name}': a slope of {float(slope.min()):.6g} for negative values is not supported; accepted: "
                             "0 and more")
        if trains:
            self.slope: torch.Tensor = nn.Parameter(slope)
        else:
            self.register_buffer("slope", slope)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply."""
        slope = self.slope + (self.slope.clamp_min(0) - self.slope).detach()
        return F.prelu(x, slope.to(x.dtype))

    def ratio(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return integers p below 2**24 and q, int64 (1,) or (channels,): the slopes are ``p / 2**q`` exactly."""
        check_finite(self.slope, self.name, "slope")
        ratios = [float(s).as_integer_ratio() for s in self.slope.detach().cpu().numpy().astype(np.float32).clip(0)]
        ratios = [(top >> (bits := max(0, top.bit_length() - 24)), bottom.bit_length() - 1 - bits) for top, bottom in ratios]
        top, places = torch.tensor(ratios, dtype=torch.int64).T
        return top, places
