"""What stands between a stage's input and its window source: rows and columns left out, and the border put around."""

from dataclasses import dataclass

from amaranth.hdl import Shape
from amaranth.lib import wiring

from .schedule import Actor, Filter
from .shapers import Cropper, Padder

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
    """

    size: Pair
    keep: Pair
    pads: Pads
    words: int

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
        """Cycles a frame: the most of what comes in and of what goes on."""
        return max(self.size[0] * self.size[1], self.height * self.width) * self.words

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
                                           keep=self.keep)))
        if any(self.pads):
            blocks.append(("padder", Padder(shape, lanes, height=self.keep[0], width=self.keep[1], words=self.words, pads=self.pads,
                                            value=value, out_shape=out_shape)))
        return blocks

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of what is left out in front of ``after``, which puts the border in itself (`Bordered`)."""
        if self.keep == self.size:
            return []
        return [Filter(after, [y < self.keep[0] and x < self.keep[1] for y in range(self.size[0]) for x in range(self.size[1])
                               for _ in range(self.words)], 0)]
