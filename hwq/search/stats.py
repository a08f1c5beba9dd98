"""Paired drops and their intervals."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["paired_drop", "mean_interval"]

# 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom; beyond, the normal one is less than 2 % off.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
      2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


def paired_drop(reference: np.ndarray, answers: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return by how many percentage points ``answers`` are right less often than ``reference``, and the standard error.

    Both answer the same images, so what they agree on cancels: the error is far below that of two accuracies.
    """
    difference = (reference == labels).astype(np.float64) - (answers == labels)
    error = difference.std(ddof=1) / math.sqrt(len(labels)) if len(labels) > 1 else math.nan
    return 100 * float(difference.mean()), 100 * float(error)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half of the 95 % interval (Student's t; NaN for a single value)."""
    count = len(values)
    mean = sum(values) / count
    if count < 2:
        return mean, math.nan
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    return mean, (_T[count - 2] if count - 2 < len(_T) else 1.96) * spread / math.sqrt(count)
