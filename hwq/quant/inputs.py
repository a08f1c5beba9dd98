"""The network's input: from unsigned 8-bit images to what torch is fed, the same way as interpreter and hardware."""

from dataclasses import dataclass

import numpy as np
import torch

from ..data import Dataset
from ..errors import ModelError
from .grid import Grid

__all__ = ["InputSpec"]


@dataclass(frozen=True)
class InputSpec:
    """Input codes ``pixel >> (8 - bits)``, each worth ``2**-bits``: values in ``[0, 1)``.

    Parameters
    ----------
    bits : int
        1..8.

    Raises
    ------
    ModelError
        Bits outside that range.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int) or isinstance(self.bits, bool) or not 1 <= self.bits <= 8:
            raise ModelError(f"Input bits must be an integer of 1..8, not {self.bits!r}")

    @property
    def grid(self) -> Grid:
        """The input's integers."""
        return Grid(0, (1 << self.bits) - 1, self.bits)

    def tensor(self, images: np.ndarray) -> torch.Tensor:
        """Return images (n, h, w) or (n, h, w, c), uint8, as the float32 tensor (n, c, h, w) that torch is fed.

        Raises
        ------
        ModelError
            Another type or number of axes.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise ModelError(f"Images must be uint8 of shape (n, h, w) or (n, h, w, c), not {images.dtype} {images.shape}")
        if images.ndim == 3:
            images = images[..., None]
        codes = torch.from_numpy(images >> (8 - self.bits)).permute(0, 3, 1, 2)
        # cloned: with one channel the strides left by the permutation make torch compute channels last, and `view` fail
        return codes.to(torch.float32).clone(memory_format=torch.contiguous_format) * 2.0 ** -self.bits

    def samples(self, data: Dataset) -> torch.Tensor:
        """Return a data set as torch is fed: images (n, c, h, w), signals (n, c, length)."""
        inputs = self.tensor(data.images)
        return inputs.squeeze(2) if data.signals else inputs

    def codes(self, x: torch.Tensor) -> torch.Tensor:
        """Return the integer codes (float64) of what torch is fed.

        Raises
        ------
        ModelError
            A value that is no code times ``2**-bits``: the hardware could not receive it.
        """
        codes = x.detach().to(torch.float64) * 2.0 ** self.bits
        wrong = (codes != torch.floor(codes)) | (codes < 0) | (codes > self.grid.hi)
        if bool(wrong.any()):
            raise ModelError(f"Input must hold multiples of 2**-{self.bits} from 0 to {self.grid.hi}*2**-{self.bits}, which is "
                             f"what the hardware receives, but holds values such as {float(x[wrong][0]):.8g}; make it from uint8 "
                             "images with hwq.InputSpec().tensor(images), not by dividing by 255")
        return codes
