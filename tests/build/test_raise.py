"""The clock is raised to what place and route reach; the files that stay are those of the clock that is reported."""

from types import SimpleNamespace

import pytest

from hwq.boards.registry import find_board
from hwq.build import flow
from hwq.build.diagnose import ClockError
from hwq.errors import FitError, HwqError, ToolError

CHOICE = SimpleNamespace(board=find_board("icebreaker"), baud=1_000_000)


class Tool:
    """Reaches so many MHz, one number a try."""

    def __init__(self, *reached):
        self.reached, self.files, self.tried = list(reached), 0, []

    def __call__(self, hz):
        self.tried.append(hz)
        reached, self.files = self.reached.pop(0), hz
        if isinstance(reached, HwqError):
            raise reached
        if reached * 1e6 < hz:
            error = ClockError("slow")
            error.reached_hz = reached * 1e6
            raise error
        return SimpleNamespace(hz=hz, fmax_mhz=reached)


@pytest.mark.parametrize("first, later, tried", [
    (24.1, [], []),                                          # nothing to gain
    (39.2, [39.5], [39.0]),
    (39.2, [44.0, 44.1], [39.0, 43.5]),
    (39.2, [38.0, 38.9], [39.0, 37.5]),
    (39.2, [44.0, 41.0, 41.0], [39.0, 43.5, 40.5]),
    (39.2, [FitError("no legal placement"), 38.0], [39.0, 37.5]),
    (39.2, [ToolError("it crashed"), 36.0, 34.0, 39.2], [39.0, 37.5, 36.0, 24.0]),
    (39.2, [30.0, 25.0, 20.0, 39.2], [39.0, 30.0, 24.75, 24.0]),      # back to where it began
])
def test_tries(first, later, tried):
    tool = Tool(*later)
    placed = flow._raised(SimpleNamespace(hz=24_000_000, fmax_mhz=first), CHOICE, tool, lambda text: None)
    assert [round(hz / 1e6, 2) for hz in tool.tried] == tried
    assert tool.files in (0, placed.hz) and placed.fmax_mhz * 1e6 >= placed.hz
