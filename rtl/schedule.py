"""When things happen: an event model of the stages, from which the cycles a frame in steady state follow.

Every actor takes the beats of its input one by one, with the cycle in which they are offered, and answers with the cycle
in which it takes them; what it makes it passes on in the same way. Latencies are upper bounds and storage between
blocks is left out, so the hardware is never slower: all of it is monotone, an event that comes earlier delays no other.
A stage's own cycles bound the hardware from below; where both agree the figure is exact.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["Actor", "Sink", "Gear", "Filter", "Bordered", "PadActor", "RingActor", "ShiftActor", "play", "distances",
           "steady_state"]

# Cycles that a beat may wait inside a block beyond its latency, by the one-cycle-stale flags of rings and buffers.
_SLACK = 2
# Frames in a row that come later and later, each by as much, behind an evenly spread source: it is too fast.
_LATE = 5


class Actor:
    """Consumer of beats: `push` in order, `flush` when no more come."""

    def push(self, t: int) -> int:
        """Offer the next beat in cycle ``t``; return the cycle in which it is taken (at least ``t``)."""
        raise NotImplementedError

    def flush(self) -> None:
        """Do all work for which the input is there."""

    def times(self, frames: int) -> list[int]:
        """Return the cycles of the events of the first ``frames`` frames, the same number for each."""
        return []


class Sink(Actor):
    """Takes everything at once: ``beats`` a frame."""

    def __init__(self, beats: int = 1):
        self.beats = beats
        self._times: list[int] = []

    def push(self, t: int) -> int:
        self._times.append(t)
        return t

    def times(self, frames: int) -> list[int]:
        return self._times[:frames * self.beats]         # those of a border that comes before its frame are left out


class Gear(Actor):
    """`WidthConverter`: ``gather`` beats make one, or one makes ``scatter``; it holds one beat of the wider side."""

    def __init__(self, after: Actor, lanes_in: int, lanes_out: int):
        self.after = after
        self.gather, self.scatter = max(1, lanes_out // lanes_in), max(1, lanes_in // lanes_out)
        self._count, self._free, self._last = 0, 0, -1

    def push(self, t: int) -> int:
        took = max(t, self._last + 1, self._free)
        self._last = took
        self._count += 1
        if self._count == self.gather:
            self._count = 0
            for k in range(self.scatter):
                self._free = self.after.push(max(took + 1 + k, self._free + (k > 0)))
        return took

    def flush(self) -> None:
        self.after.flush()


class Filter(Actor):
    """A block that gives a beat for some of its beats only: ``gives[k]`` says whether beat k of a frame does.

    ``every``: cycles from one that does to the next beat, at least.
    """

    def __init__(self, after: Actor, gives: Sequence[bool], latency: int, every: int = 1):
        self.after, self.gives, self.latency, self.every = after, list(gives), latency, every
        self._at, self._free, self._last = 0, -every, -1

    def push(self, t: int) -> int:
        took = max(t, self._last + 1, self._free - self.latency + self.every)
        if self.gives[self._at]:
            self._free = self.after.push(max(took + self.latency, self._free + self.every))
            if not self.latency:                         # nothing is held: taken when the follower takes it
                took = self._free
        self._last = took
        self._at = (self._at + 1) % len(self.gives)
        return took

    def flush(self) -> None:
        self.after.flush()


class Bordered(Actor):
    """Base of the window sources: puts the border words in, as `Padder` does, before and between those that come."""

    def __init__(self, real: Sequence[bool]):
        self._real = list(real)                          # per word of a frame: whether it comes from outside
        self._at, self._last = 0, -1
        self._begun = False

    def push(self, t: int) -> int:
        if not self._begun:
            self._border()
        took = self._word(max(t, self._last + 1))
        self._last, self._at = took, (self._at + 1) % len(self._real)
        self._border()
        return took

    def _border(self) -> None:
        self._begun = True
        while not self._real[self._at]:
            self._last, self._at = self._word(self._last + 1), (self._at + 1) % len(self._real)

    def _word(self, t: int) -> int:
        raise NotImplementedError


class PadActor(Bordered):
    """`Padder` with a buffer behind it."""

    def __init__(self, after: Actor, real: Sequence[bool]):
        super().__init__(real)
        self.after, self._taken = after, -1

    def _word(self, t: int) -> int:
        t = max(t, self._taken)
        self._taken = self.after.push(max(t, self._taken) + 1)
        return t

    def flush(self) -> None:
        self.after.flush()


class RingActor(Bordered):
    """`Ring` with the blocks behind it.

    Parameters
    ----------
    after : Actor
    real : sequence of bool
        See `Bordered`.
    starts : sequence of int
        Word of the frame at which each block of windows begins.
    span, capacity : int
        Words from a block's first to its last; words after which the ring counts as full.
    groups, group_cycles, beats, every : int
        Groups a block, cycles a group, beats that each group gives, cycles from one to the next at least.
    latency : int
        Cycles from a group's last word to its first beat.
    gap : int
        Cycles from a group's last beat to the next group's first, at least.
    run, turns : int, sequence of int
        Of a ring in large RAM: reads in a row at most, and cycles without a read in each group; see `Ring`.
    """

    def __init__(self, after: Actor, real: Sequence[bool], *, starts: Sequence[int], span: int, capacity: int, groups: int,
                 group_cycles: int, beats: int, every: int = 1, latency: int, gap: int, run: int = 0, turns: Sequence[int] = ()):
        super().__init__(real)
        self.after, self.starts, self.span, self.capacity = after, list(starts), span, capacity
        self.beats, self.every, self.latency, self.gap, self.run = beats, every, latency + _SLACK, gap, run
        self.group_cycles = [group_cycles + turn for turn in turns or [0] * groups]
        self._written: list[int] = []                    # cycle of each word
        self._ends: list[int] = []                       # cycle after each block
        self._freed: list[int] = [0]                     # words free when so many blocks are done
        self._taken = 0                                  # cycle in which the last beat left

    def _start(self, block: int) -> int:
        frame, k = divmod(block, len(self.starts))
        return frame * len(self._real) + self.starts[k]

    def _word(self, t: int) -> int:
        missing = len(self._written) + 1 - self.capacity
        while self._freed[-1] < missing:
            self._block()
        if missing > 0:
            t = max(t, self._ends[bisect_right(self._freed, missing - 1) - 1] + _SLACK)
        # it is taken once the word before has found its turn, and waits for its own
        if self.run:
            t = max(t, self._written[-1] + 1 if self._written else t)
        self._written.append(t + self.run + 1 if self.run else t)
        return t

    @property
    def held(self) -> int:
        """Capacity that lets every word be written when it was."""
        written = np.array(self._written)
        free = np.array(self._freed)[np.searchsorted(self._ends, written - _SLACK, side="right")]
        return int((np.arange(1, len(written) + 1) - free).max(initial=self.span))

    def _block(self) -> None:
        block = len(self._ends)
        t = max(self._ends[-1] if block else 0, self._written[self._start(block) + self.span - 1] + _SLACK)
        for cycles in self.group_cycles:
            t = max(t + cycles, self._taken - self.latency + self.gap)
            for k in range(self.beats):
                self._taken = self.after.push(max(t + self.latency + k * self.every, self._taken + self.every))
        self._ends.append(t)
        self._freed.append(self._start(block + 1))

    def flush(self) -> None:
        while self._start(len(self._ends)) + self.span <= len(self._written):
            self._block()
        self.after.flush()

    def times(self, frames: int) -> list[int]:
        return self._ends[:frames * len(self.starts)]


class ShiftActor(Bordered):
    """`ShiftWindow` with the blocks behind it.

    Parameters
    ----------
    after : Actor
    real : sequence of bool
        See `Bordered`.
    windows : sequence of bool
        Whether a window ends at each pixel of a frame.
    groups, beats, every : int
        Times a window is sent, beats that each time gives, cycles from one to the next at least.
    depth : int
        Latency of the product behind it, which moves as a whole and holds a window a cycle.
    latency : int
        Cycles from its sums to their first beat.
    bare : bool
        The window is the stream itself, and holds no pixel.
    """

    def __init__(self, after: Actor, real: Sequence[bool], *, windows: Sequence[bool], groups: int, beats: int, every: int = 1,
                 depth: int, latency: int, bare: bool = False):
        super().__init__(real)
        self.after, self.windows, self.groups, self.beats = after, list(windows), groups, beats
        self.every, self.depth, self.latency, self.bare = every, depth, latency + _SLACK, bare
        self._ready, self._taken = 0, 0
        self._now, self._moves = 0, 0                    # cycle of the product's last move, how many it made
        self._ends: deque[int] = deque()                 # the move that takes each window out of it
        self._free = 0                                   # cycle from which one may be taken out
        self._times: list[int] = []

    def _move(self) -> None:
        self._moves += 1
        self._now += 1
        if self._ends and self._ends[0] == self._moves:
            self._ends.popleft()
            self._now = max(self._now, self._free)
            for k in range(self.beats):
                self._taken = self.after.push(max(self._now + self.latency + k * self.every, self._taken + self.every))
            self._free = self._taken - self.latency + (self.every if self.beats == 1 else 1)

    def _word(self, t: int) -> int:
        t = max(t, self._ready)
        self._ready = t + 1
        if self.windows[self._at]:
            end = t
            for _ in range(self.groups):
                while self._ends and self._now <= end:
                    self._move()
                self._now = end = max(end + 1, self._now)
                self._ends.append(self._moves + self.depth)
            self._ready = end
            t = end - 1 if self.bare else t
        self._times.append(t)
        return t

    def flush(self) -> None:
        while self._ends:
            self._move()
        self.after.flush()

    def times(self, frames: int) -> list[int]:
        return self._times[:frames * len(self._real)]


def play(actors: Sequence[Actor], in_beats: int, frames: int, pace: int = 0) -> list[int]:
    """Offer frames of ``in_beats`` beats to the first actor; return the cycles in which the frames' last beats are taken.

    ``pace``: cycles in which the source spreads a frame; 0: it never waits.
    """
    t, entered = 0, []
    for frame in range(frames):
        for k in range(in_beats):
            t = actors[0].push(max(t, (frame * in_beats + k) * pace // in_beats)) + 1
        entered.append(t)
    actors[0].flush()
    if not actors[-1].times(frames):
        raise ValueError("The event model gives less than one result a frame")
    return entered


def distances(actors: Sequence[Actor], frames: int) -> set[int]:
    """Return the distances of all events from those a frame before, over the last frames."""
    found: set[int] = set()
    for actor in actors:
        events = actor.times(frames)
        if events:
            found.update(np.unique(np.diff(np.array(events).reshape(frames, -1)[-min(4, frames - 1):], axis=0)).tolist())
    return found


def steady_state(make: Callable[[], Sequence[Actor]], in_beats: int, frames: int = 48, pace: int = 0) -> tuple[int, int]:
    """Return (cycles a frame, frames under way) once every event of every actor comes in equal distance.

    Frames are under way from their last beat in to their last beat out; where no more may be, the cycles stay the same.

    Parameters
    ----------
    make
        Gives the actors, the first one first.
    in_beats : int
        Beats a frame that the source offers.
    frames : int
        Limit of the frames tried; beyond it the mean of the second half is given, rounded up.
    pace : int
        See `play`. Ends that come later and later, by the same number of cycles, are final.
    """
    count = 4 if pace else 6                             # evenly spread, nothing fills up first
    while True:
        actors = make()
        entered = play(actors, in_beats, count, pace)
        shifts = distances(actors, count)
        ends = np.array(actors[-1].times(count)).reshape(count, -1)[:, -1]
        cycles = 0
        if len(shifts) == 1:
            cycles = int(shifts.pop())
        elif pace and count > _LATE and len(set(late := np.diff(ends)[-_LATE:].tolist())) == 1 and late[0] > pace:
            cycles = late[0]                             # never to catch up, while what is in front of it runs ahead for good
        elif count >= frames:
            cycles = int(-(-(ends[-1] - ends[count // 2]) // (count - 1 - count // 2)))
        if cycles:
            return cycles, 1 + max(1, int((ends - entered)[count // 2:].max()) + _SLACK) // cycles + 1
        count *= 2
