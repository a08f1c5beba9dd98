"""What the comparison of a network with another of its forms gives, layer by layer."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import VerifyError

__all__ = ["LayerCheck", "Report", "Tally", "first_difference"]


def first_difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[int, ...] | None:
    """Return the place of the first number that differs, the very first where the shapes do, or None."""
    if ours.shape != theirs.shape:
        return (0,) * ours.ndim
    different = np.argwhere(ours != theirs)
    return tuple(int(i) for i in different[0]) if len(different) else None


@dataclass(frozen=True)
class LayerCheck:
    """One edge against the source's tensor.

    Attributes
    ----------
    edge, tensor : str
        Name here, name there.
    numbers, different : int
        Numbers compared, numbers that differ.
    allowed : int
        Those among them where exact arithmetic lies inside the error bound of the source's floating point, so that
        either value is right; 0 for integer sources.
    largest : float
        Largest difference, in units of the integer network.
    bound : float
        Largest error bound of the source's floating point on this tensor, in the same units; 0 for integer sources.
    """

    edge: str
    tensor: str
    numbers: int
    different: int
    allowed: int = 0
    largest: float = 0.0
    bound: float = 0.0

    @property
    def wrong(self) -> int:
        """Numbers that nothing excuses."""
        return self.different - self.allowed


@dataclass(frozen=True)
class Report:
    """All edges, in order.

    Attributes
    ----------
    oracle : str
        What was run: name and version.
    inputs : int
        How many inputs.
    rows : tuple of LayerCheck
    classes_differ : int
        Inputs for which the largest output is another one.
    """

    oracle: str
    inputs: int
    rows: tuple[LayerCheck, ...]
    classes_differ: int = 0

    @property
    def wrong(self) -> int:
        """Numbers that differ and may not."""
        return sum(row.wrong for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"oracle": self.oracle, "inputs": self.inputs, "wrong": self.wrong, "classes_differ": self.classes_differ,
                "layers": [{**asdict(row), "wrong": row.wrong} for row in self.rows]}

    def require_equal(self) -> None:
        """Raise `VerifyError` that names the first layer that differs."""
        for row in self.rows:
            if row.wrong:
                raise VerifyError(f"Layer '{row.edge}' differs from '{row.tensor}' of {self.oracle} in {row.wrong:,} of "
                                  f"{row.numbers:,} numbers, by up to {row.largest:g}; {self.wrong:,} numbers differ in all")


class Tally:
    """Counts the differences of one edge over batches.

    Parameters
    ----------
    edge, tensor : str
        Name here, name there.
    """

    def __init__(self, edge: str, tensor: str) -> None:
        self.edge, self.tensor = edge, tensor
        self.numbers = self.different = self.allowed = 0
        self.largest = self.bound = 0.0

    def add(self, ours: np.ndarray, theirs: np.ndarray, allowed: np.ndarray | None = None, bound: float = 0.0) -> None:
        """Count a batch: numbers of one shape, and where a difference is excused."""
        if ours.shape != theirs.shape:
            raise VerifyError(f"Layer '{self.edge}' has the shape {ours.shape}, '{self.tensor}' has {theirs.shape}")
        gap = np.abs(ours - theirs)
        different = ~(gap == 0)                    # NaN differs
        self.numbers += gap.size
        self.different += int(different.sum())
        self.allowed += 0 if allowed is None else int((different & allowed).sum())
        self.largest = max(self.largest, float(gap.max(initial=0)))
        self.bound = max(self.bound, bound)

    @property
    def row(self) -> LayerCheck:
        """What was counted."""
        return LayerCheck(self.edge, self.tensor, self.numbers, self.different, self.allowed, self.largest, self.bound)
