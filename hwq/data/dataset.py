"""Labelled images in memory."""

from dataclasses import dataclass

import numpy as np

from ..errors import FormatError

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their classes.

    Parameters
    ----------
    images : uint8 array (n, h, w) or (n, h, w, c)
        Pixels.
    labels : int array (n,)
        Classes, counted from 0.
    classes : tuple of str
        Their names, or empty.
    name : str
        Where they come from, for messages.
    signals : bool
        They are signals, (n, 1, length, channels), for 1-D networks: torch is fed (n, channels, length).

    Raises
    ------
    FormatError
        Other types or shapes, different counts, negative labels.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    name: str = "data"
    signals: bool = False

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise FormatError(f"{self.name}: images must be uint8 of shape (n, h, w) or (n, h, w, c), "
                              f"not {images.dtype} {images.shape}")
        if self.signals and (images.ndim != 4 or images.shape[1] != 1):
            raise FormatError(f"{self.name}: signals must have the shape (n, 1, length, channels), not {images.shape}")
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise FormatError(f"{self.name}: labels must be one axis of integers from 0, not {labels.dtype} {labels.shape}")
        if labels.size and int(labels.min()) < 0:
            raise FormatError(f"{self.name}: labels must be integers from 0; the least is {int(labels.min())}")
        if len(images) != len(labels):
            raise FormatError(f"{self.name}: {len(images)} images, but {len(labels)} labels; do the files belong together?")
        object.__setattr__(self, "labels", labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.images)

    def part(self, index: np.ndarray | slice) -> "Dataset":
        """Return some of the images."""
        return Dataset(self.images[index], self.labels[index], self.classes, self.name, self.signals)
