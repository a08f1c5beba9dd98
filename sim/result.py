"""What a simulation of the core gives back, whichever simulator ran it."""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["SimResult", "STALL_PERCENT", "watchdog"]

STALL_PERCENT = 30                                       # of the cycles, at each end, on average over all segments


def watchdog(cycles: int, in_beats: int, out_beats: int) -> int:
    """Return the longest standstill of a right core: start-up, or one frame of the slowest stage, times what stalls cost."""
    return 50_000 + 16 * (cycles + in_beats + out_beats)


@dataclass
class SimResult:
    """What came out.

    Attributes
    ----------
    beats : uint8 array (n, out beats, bytes)
        Result frames, in order.
    stamps : uint64 array (n, 3)
        Cycles of the first beat in, the first result beat and the last result beat; they start anew in each part.
    cycles : int
        Simulated cycles of all processes.
    seconds : float
        Wall time.
    counts : dict of str to int
        Resets, short and long frames that were thrown in.
    part : int
        Frames of the first process, whose stamps belong together.
    """

    beats: np.ndarray
    stamps: np.ndarray
    cycles: int
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)
    part: int = 0

    @property
    def latency(self) -> int:
        """Cycles from a frame's first beat to its last result beat, first frame."""
        return int(self.stamps[0, 2] - self.stamps[0, 0]) + 1 if len(self.stamps) else 0

    @property
    def settled(self) -> bool:
        """Whether the results' distances repeat over the second half of the first process' frames: what follows is the same."""
        return self._period is not None

    @property
    def _distances(self) -> np.ndarray:
        distances = np.diff(self.stamps[:self.part, 2].astype(np.int64))
        return distances[len(distances) // 2:]           # by then every stage is at work

    @property
    def _period(self) -> int | None:
        """Frames after which the distances repeat; None where they do not, or are too few to tell."""
        tail = self._distances
        return next((k for k in range(1, len(tail) // 2 + 1) if (tail[k:] == tail[:-k]).all()), None)

    @property
    def cycles_per_frame(self) -> float | None:
        """Cycles between the ends of consecutive results, once the pipeline is full; None below two frames."""
        tail = self._distances
        return float(tail[:self._period].mean()) if len(tail) else None
