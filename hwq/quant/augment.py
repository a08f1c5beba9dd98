"""Light augmentation on batches: mirror and move."""

import torch
import torch.nn.functional as F

__all__ = ["augment"]


def augment(batch: torch.Tensor, flip: bool, shift: int, generator: torch.Generator) -> torch.Tensor:
    """Return a batch (n, c, h, w) with half of its images mirrored left-right, and all moved by one random step.

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
        batch = torch.where(chosen.to(batch.device)[:, None, None, None], batch.flip(3), batch)
    if shift:
        dy, dx = torch.randint(0, 2 * shift + 1, (2,), generator=generator).tolist()
        height, width = batch.shape[2:]
        batch = F.pad(batch, (shift, shift, shift, shift))[:, :, dy:dy + height, dx:dx + width]
    return batch
