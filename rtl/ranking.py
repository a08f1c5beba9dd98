"""Stages that rank a frame's values."""

from .accelerator import Chain
from .common import shape_of
from .reduce import ArgMax
from .schedule import Actor
from .stage import gear_actors, gears

__all__ = ["ArgMaxStage"]


class ArgMaxStage(Chain):
    """Index of the largest of a frame's values, which come ``lanes`` a beat.

    Parameters
    ----------
    in_range, lanes, count
        Inclusive range of the values, lanes of the stream, values a frame.

    Members
    -------
    i : stream of ``lanes`` values
    o : stream of one index

    Cycles a frame: one a value.
    """

    out_lanes = 1

    def __init__(self, in_range: tuple[int, int], *, lanes: int = 1, count: int):
        self.cycles, self._lanes = count, lanes
        self._largest = ArgMax(in_range, count)
        self.out_shape = self._largest.out_shape
        super().__init__([*gears(shape_of(*in_range), lanes, 1), ("largest", self._largest)])

    def actors(self, after: Actor) -> list[Actor]:
        """Return the event model of the stage in front of ``after``."""
        largest = self._largest.actor(after)
        return [*gear_actors(largest, self._lanes, 1), largest]
