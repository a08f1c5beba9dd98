"""The core in Amaranth's own simulator: slow, but it needs no compiler. A few frames."""

import random
import time
from collections import deque
from collections.abc import Callable

import numpy as np
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.sim import Simulator

from hwq.rtl.accelerator import Accelerator

from ..errors import VerifyError
from .folder import Build
from .result import SimResult, watchdog

__all__ = ["simulate_tree"]


def simulate_tree(build: Build, core: Accelerator, beats: np.ndarray, *, stall: int = 0, faults: int = 0, seed: int = 0,
                  progress: Callable[[int, int], None] | None = None) -> SimResult:
    """Run frames through a component tree, as `hwq.sim.fast.simulate` does through the compiled core.

    Parameters
    ----------
    build : Build
        Whose core it is.
    core : Accelerator
        From `hwq.sim.rebuild.rebuild`; one that was not elaborated yet.
    beats, stall, faults, seed, progress
        See `hwq.sim.fast.simulate`.

    Raises
    ------
    VerifyError
        The core broke a rule of the bus, made a wrong frame, or stood still.
    """
    bench = _Bench(build, core, beats, stall, faults, seed, progress)
    begin = time.monotonic()
    m = Module()
    m.submodules.core = ResetInserter(bench.rst)(core)
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench.run)
    simulator.run()
    # An error inside the bench would leave its generators half-way; it is raised here, outside.
    if bench.error:
        raise VerifyError(f"Core '{build.name}': {bench.error}, in cycle {bench.cycle} (image {len(bench.results)}, after "
                          f"{bench.counts}; seed {seed})")
    return SimResult(np.stack(bench.results), np.array(bench.stamps, np.uint64), bench.cycle, time.monotonic() - begin,
                     bench.counts, len(beats))


class _Bench:
    """Drives the input, takes the output, cycle by cycle."""

    def __init__(self, build: Build, core: Accelerator, beats: np.ndarray, stall: int, faults: int, seed: int,
                 progress: Callable[[int, int], None] | None):
        self._build, self._core, self._progress = build, core, progress
        self._frames = [[int.from_bytes(beat.tobytes(), "little") for beat in frame] for frame in beats]
        self._rng, self._stall, self._faults = random.Random(seed), stall, faults
        kinds = ["short", "long"] if build.input.beats > 1 else ["long"]
        self._rng.shuffle(kinds)
        self._kinds, self._owed = ["resets", *kinds], [*kinds, "resets"] if faults else []
        self.rst = Signal()
        self.results: list[np.ndarray] = []
        self.stamps: list[tuple[int, int, int]] = []
        self.counts = {"resets": 0, "short": 0, "long": 0}
        self.cycle, self.error = 0, ""

    def _stands(self) -> bool:
        return self._rng.randrange(100) < self._stall

    def _next(self, index: int) -> tuple[str, list[int], int]:
        """Return what comes next on the input: its kind, its words, its number."""
        beats = self._build.input.beats
        must = len(self._frames) - index <= len(self._owed)
        if self._faults and (bool(self._owed) if must else self._rng.randrange(100) < self._faults / (1 + self._faults / 100)):
            kind = self._owed.pop() if self._owed else self._rng.choice(self._kinds)
            self.counts[kind] += 1
            count = {"resets": self._rng.randrange(beats + 1), "short": self._rng.randrange(1, max(beats, 2)),
                     "long": beats + 1 + self._rng.randrange(2 * beats)}[kind]
            return kind, [self._rng.getrandbits(8 * self._build.input.bytes) for _ in range(count)], -1
        return "good", self._frames[index], index

    async def run(self, ctx) -> None:
        """Run all frames."""
        core, out = self._core, self._build.output
        limit = watchdog(self._build.cycles, self._build.input.beats, out.beats)
        under_way: deque[int] = deque()
        first_in: dict[int, int] = {}
        words: list[int] = []
        kind, place, index, sending, in_frame, offered, reset_left = "good", 0, 0, 0, False, False, 0
        result: list[int] = []
        held, first_out, moved, quiet = None, 0, 0, 0
        while not self.error:
            if len(self.results) == len(self._frames) and not in_frame and not under_way:
                quiet += 1
                if quiet > 200:
                    return
            if not in_frame and sending < len(self._frames) and not reset_left:
                kind, words, index = self._next(sending)
                place, in_frame, offered = 0, True, False
            if in_frame and kind == "resets" and place == len(words):
                in_frame = offered = False
                reset_left = self._rng.randrange(1, 4)
                ctx.set(self.rst, 1)
            if in_frame and not offered and not self._stands():
                offered = True
                ctx.set(core.s_axis_tdata, words[place])
            ctx.set(core.s_axis_tvalid, offered)
            ctx.set(core.s_axis_tlast, offered and kind != "resets" and place == len(words) - 1)
            ready = not self._stands()
            ctx.set(core.m_axis_tready, ready)
            _, _, taken, valid, *beat = await ctx.tick().sample(core.s_axis_tready, core.m_axis_tvalid, core.m_axis_tdata,
                                                                core.m_axis_tlast, core.m_axis_tuser)
            self.cycle += 1
            if reset_left:
                held, reset_left = None, reset_left - 1
                if not reset_left:                       # all that was under way is lost, and is sent again
                    ctx.set(self.rst, 0)
                    under_way.clear()
                    result, sending, moved = [], len(self.results), self.cycle
                continue
            if offered and taken:
                if place == 0:
                    under_way.append(index)
                    first_in[index] = self.cycle
                place, offered, moved = place + 1, False, self.cycle
                if place == len(words) and kind != "resets":
                    in_frame = False
                    sending += kind == "good"
            data, last, user = beat
            if not valid:
                self.error = "m_axis_tvalid fell before m_axis_tready came" if held is not None else ""
            elif held is not None and held != (data, last, user and last):
                self.error = "m_axis changed its payload while it was valid and not ready"
            held = (data, last, user and last) if valid and not ready else None
            if valid and ready and not self.error:
                moved = self.cycle
                first_out = first_out if result else self.cycle
                result.append(data)
                if not under_way:
                    self.error = "a result beat came although no frame was under way"
                elif bool(last) != (len(result) == out.beats):
                    self.error = f"m_axis_tlast is {last} on beat {len(result)} of {out.beats} of a result frame"
                elif last:
                    begun = under_way.popleft()
                    if bool(user) != (begun < 0):
                        self.error = f"m_axis_tuser is {user} on the result of a {'wrong' if begun < 0 else 'good'} frame"
                    elif begun >= 0:
                        self.results.append(np.array([list(int(v).to_bytes(out.bytes, "little")) for v in result], np.uint8))
                        self.stamps.append((first_in[begun], first_out, self.cycle))
                        if self._progress:
                            self._progress(len(self.results), len(self._frames))
                    result = []
            if self.cycle - moved > limit and (under_way or in_frame):
                self.error = f"nothing moved for {limit} cycles"
