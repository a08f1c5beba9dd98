"""What the training side knows about an edge: the integers on it and their scale."""

from dataclasses import dataclass

import torch

from ..errors import ModelError

__all__ = ["Grid", "round_half_up", "round_half_up_", "require_exact"]

EXACT = 1 << 53          # float64 holds every integer below


@dataclass(frozen=True)
class Grid:
    """Integers ``lo..hi``, each worth ``2**-frac_bits / divide``.

    ``divide`` is 1 except behind a global average pooling that ends the network: there the sums stay as they are.
    """

    lo: int
    hi: int
    frac_bits: int
    divide: int = 1

    @property
    def largest(self) -> int:
        """Largest magnitude."""
        return max(abs(self.lo), abs(self.hi))


def round_half_up(x: torch.Tensor) -> torch.Tensor:
    """Round to the nearest integer, ties towards plus infinity: `hwq.arith.round_half_up` on tensors."""
    return torch.floor(x + 0.5)


def round_half_up_(x: torch.Tensor) -> torch.Tensor:
    """Do as `round_half_up`, in place."""
    return x.add_(0.5).floor_()


def require_exact(bound: float, name: str) -> None:
    """Raise `ModelError` if integers up to ``bound`` in magnitude are not exact in float64."""
    if not bound < EXACT:
        raise ModelError(f"Layer '{name}': its integers reach {bound:.3g}, float64 is exact below 2**53 only; "
                         "use narrower formats for weights or activations")
