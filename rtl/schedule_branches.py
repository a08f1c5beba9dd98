"""Branches in the event model: where a stream forks, and where the operands of a join wait for each other.

An operand's push cannot wait for the other operand's: that one may not have been asked yet. So the buffers in front of a
join are as deep as it takes, and what they held tells the depth: with it the very same schedule is possible, and
the hardware, which does everything as early as it can, is no slower.
"""

from collections.abc import Sequence

import numpy as np

from .schedule import Actor

__all__ = ["ForkActor", "Buffer", "Operand", "Join"]

# Cycles from a beat in to its beat out of the buffer, at most.
FIFO_LATENCY = 2


class ForkActor(Actor):
    """`StreamFork`: each branch takes a beat on its own, and the next one comes when all have."""

    def __init__(self, branches: Sequence[Actor]):
        self.branches = branches

    def push(self, t: int) -> int:
        return max([branch.push(t) for branch in self.branches])

    def flush(self) -> None:
        for branch in self.branches:
            branch.flush()


class Buffer(Actor):
    """A `StreamFifo` that holds all that come."""

    def __init__(self, after: Actor):
        self.after = after
        self.came: list[int] = []
        self.left: list[int] = []

    def push(self, t: int) -> int:
        if self.came and t <= self.came[-1]:
            t = self.came[-1] + 1
        self.came.append(t)
        self._pass_on()
        return t

    def _pass_on(self) -> None:
        self.left.append(self.after.push(max(self.came[-1] + FIFO_LATENCY, self.left[-1] + 1 if self.left else 0)))

    def flush(self) -> None:
        self.after.flush()

    def times(self, frames: int) -> list[int]:
        return self.came[:len(self.came) // frames * frames]

    @property
    def held(self) -> int:
        """Most beats held at a time, those included that come and leave in one cycle."""
        came, left = np.array(self.came), np.array(self.left)
        return int((np.arange(len(came)) - np.searchsorted(left, came)).max(initial=0)) + 1


class Operand(Buffer):
    """The buffer in front of a join, which takes its beats by itself."""

    after: "Join"

    def _pass_on(self) -> None:
        self.after.meet()


class Join(Actor):
    """Takes beats of its operands in a fixed order: ``turns`` is a frame's pattern, each turn the operands that give a beat."""

    def __init__(self, after: Actor, operands: int, turns: Sequence[Sequence[int]]):
        self.after = after
        self.operands = [Operand(self) for _ in range(operands)]
        self.turns = [[self.operands[k] for k in turn] for turn in turns]
        self._at, self._last, self._flushing = 0, -1, operands

    def meet(self) -> None:
        """Take all beats that can be taken."""
        # plain loops: this is where the planning of a large network spends its time
        while True:
            turn, t = self.turns[self._at], self._last + 1
            for operand in turn:
                k = len(operand.left)
                if k == len(operand.came):
                    return
                t = max(t, operand.came[k] + FIFO_LATENCY)
            self._last = self.after.push(t)
            for operand in turn:
                operand.left.append(self._last)
            self._at = (self._at + 1) % len(self.turns)

    def flush(self) -> None:
        self._flushing -= 1
        if not self._flushing:                           # the last operand's
            self.after.flush()
