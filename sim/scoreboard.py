"""Compares result frames with what is expected, in order."""

from collections import deque
from collections.abc import Sequence

__all__ = ["Scoreboard", "Mismatch"]


class Mismatch(AssertionError):
    """A result frame is not the expected one."""


class Scoreboard:
    """A queue of expected frames.

    Parameters
    ----------
    beats : int
        Beats of a result frame.
    """

    def __init__(self, beats: int):
        self.beats = beats
        self.checked = 0
        self._expected: deque[tuple[str, Sequence[int] | None]] = deque()

    def expect(self, name: str, words: Sequence[int] | None) -> None:
        """Expect a frame of bus words; None: the result of a frame of a wrong length, of any content."""
        self._expected.append((name, words))

    def check(self, frame: Sequence[tuple[int, bool, bool]]) -> None:
        """Compare the next frame of (data, last, user) beats.

        Raises
        ------
        Mismatch
            It is not what was expected; the message gives the first difference.
        """
        if not self._expected:
            raise Mismatch(f"a result frame of {len(frame)} beats came although none is under way")
        name, words = self._expected.popleft()
        if len(frame) != self.beats:
            raise Mismatch(f"{name}: the result frame has {len(frame)} beats, expected {self.beats}")
        bad = frame[-1][2]
        if bad != (words is None):
            raise Mismatch(f"{name}: m_axis_tuser is {int(bad)}, expected {int(words is None)}")
        for k, word in enumerate(words or ()):
            if frame[k][0] != word:
                raise Mismatch(f"{name}: result beat {k} is {frame[k][0]:#x}, expected {word:#x}")
        self.checked += 1

    @property
    def pending(self) -> int:
        """Frames that are still expected."""
        return len(self._expected)
