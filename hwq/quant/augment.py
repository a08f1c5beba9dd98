"""Light augmentation on batches: mirror and move."""

import torch
import torch.nn.functional as F

__all__ = ["augment"]


def augment(batch: torch.Tensor, flip: bool, shift: int, generator: torch.Generator) -> torch.Tensor:
    """Return a batch (n, c, h, w) or (n, c, length) with half of its images mirrored left-right, and all moved by one random step.

    Parameters
    ----------
    flip : bool
        Mirror.
    shift : int
        Largest step in pixels; the border fills with 0.
    generator : torch.Generator
        On the CPU; the only source of randomness.
    """
    if flip:
        chosen = torch.rand(len(batch), generator=generator) < 0.5
        batch = torch.where(chosen.to(batch.device).view(-1, *[1] * (batch.ndim - 1)), batch.flip(-1), batch)
    if shift:
        axes = batch.ndim - 2
        starts = torch.randint(0, 2 * shift + 1, (axes,), generator=generator).tolist()
        padded = F.pad(batch, (shift, shift) * axes)
        for axis, (start, size) in enumerate(zip(starts, batch.shape[2:], strict=True)):
            padded = padded.narrow(axis + 2, start, size)
        batch = padded
    return batch
