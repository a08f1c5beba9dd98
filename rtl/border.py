"""What stands between a stage's input and its window source: rows and columns left out, and the border put around."""

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import wiring

from .schedule import Actor, Filter
from .shapers import Cropper, Padder, cropped

__all__ = ["Border", "Pads"]

Pads = tuple[int, int, int, int]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Border:
    """An image, the part of it that is kept, and the border around that.

    Attributes
    ----------
    size, keep : (int, int)
        Rows and columns that come, and those that are kept.
    pads : (top, left, bottom, right)
        Pixels put around what is kept.
    words : int
        Beats a pixel.
    first : (int, int)
        Row and column with which what is kept begins.
    late : bool
        See `Cropper`.
    """

    size: Pair
    keep: Pair
    pads: Pads
    words: int
    first: Pair = (0, 0)
    late: bool = False

    @classmethod
    def of(cls, size: Pair, pads: Pads, words: int) -> "Border":
        """Return the border of an image from which sides below 0 take pixels away."""
        top, left, bottom, right = (max(-pad, 0) for pad in pads)
        keep = size[0] - top - bottom, size[1] - left - right
        around = max(pads[0], 0), max(pads[1], 0), max(pads[2], 0), max(pads[3], 0)
        return cls(size, keep, around, words, (top, left), bottom > 0 or right > 0)

    @classmethod
    def trimmed(cls, size: Pair, pads: Pads, kernel: Pair, stride: Pair, pool: Pair = (1, 1), words: int = 1) -> "Border":
        """Return the border without what no window reaches, which needs no place in a ring.

        ``kernel`` counts the pixels from the first to the last tap; ``pool`` windows a block are computed or none of them.
        """
        fits = all((n + p + q - k) // s + 1 >= m and n + p + q >= k for n, p, q, k, s, m in
                   zip(size, pads[:2], pads[2:], kernel, stride, pool, strict=True))
        if not fits:
            return cls(size, size, pads, words)          # the window says what is wrong
        after, keep = list(pads[2:]), list(size)
        for i in range(2):
            whole = size[i] + pads[i] + pads[i + 2]
            windows = (whole - kernel[i]) // stride[i] + 1
            excess = whole - (windows // pool[i] * pool[i] - 1) * stride[i] - kernel[i]
            cut = min(after[i], excess)
            after[i] -= cut
            keep[i] -= excess - cut
        if min(keep) < 1:                                # a border that covers everything: nothing to gain
            return cls(size, size, pads, words)
        return cls(size, (keep[0], keep[1]), (pads[0], pads[1], after[0], after[1]), words)

    @property
    def height(self) -> int:
        """Rows, border included."""
        return self.keep[0] + self.pads[0] + self.pads[2]

    @property
    def width(self) -> int:
        """Columns, border included."""
        return self.keep[1] + self.pads[1] + self.pads[3]

    @property
    def cycles(self) -> int:
        """Cycles a frame: from one beat that goes on to the next, the most of what comes in and of what goes out."""
        if self.keep == self.size or not any(self.pads):
            return max(self.size[0] * self.size[1], self.height * self.width) * self.words
        gaps = [np.diff(places, append=places[0] + len(marks)) for marks in (self.gives, self.inside)
                for places in [np.flatnonzero(marks)]]
        return int(np.maximum(*gaps).sum())

    @property
    def gives(self) -> list[bool]:
        """Whether each beat that comes in lets one go on."""
        return cropped(self.size, self.words, self.keep, self.first, self.late)

    @property
    def inside(self) -> list[bool]:
        """Whether each beat of the image with its border comes from outside."""
        top, left, _, _ = self.pads
        return [top <= y < top + self.keep[0] and left <= x < left + self.keep[1]
                for y in range(self.height) for x in range(self.width) for _ in range(self.words)]

    def blocks(self, shape: Shape, lanes: int, value: int, out_shape: Shape) -> list[tuple[str, wiring.Component]]:
        """Return the blocks, none where there is nothing to do; the border's code is ``value``."""
        blocks: list[tuple[str, wiring.Component]] = []
        if self.keep != self.size:
            blocks.append(("crop", Cropper(shape, lanes, height=self.size[0], width=self.size[1], words=self.words,
                                           keep=self.keep, first=self.first, late=self.late)))
        if any(self.pads):
            blocks.append(("padder", Padder(shape, lanes, height=self.keep[0], width=self.keep[1], words=self.words, pads=self.pads,
                                            value=value, out_shape=out_shape)))
        return blocks

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of what is left out in front of ``after``, which puts the border in itself (`Bordered`)."""
        if self.keep == self.size:
            return []
        return [Filter(after, self.gives, 0)]
