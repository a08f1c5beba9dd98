"""The handshakes of a whole core as one Python function: what it does, cycle by cycle, until it repeats itself."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from .handshake import Part

__all__ = ["Netlist", "Program", "Rhythm", "Step", "interpreted"]

# Frames in a row of the same length that count as what it will do for good.
_SAME = 5


@dataclass(frozen=True)
class Rhythm:
    """What a core does in the long run, its source and sink never waiting.

    Attributes
    ----------
    ends : list of int
        Cycles in which the first frames' last results leave.
    frames, cycles : int
        From there on it repeats itself: so many frames in so many cycles; 0, 0: not as far as it was asked.
    """

    ends: list[int]
    frames: int
    cycles: int


@dataclass(frozen=True)
class Program:
    """What happens in a cycle: lines of Python on integers, with nothing in them but assignments and ``if``.

    Attributes
    ----------
    text : str
        Names are registers, tables, or given a value before they are used; ``ended`` says whether a frame has ended.
    state : dict of str to int
        Registers and what they are after a reset.
    tables : dict of str to bytes, tuple of int or int
        Constants that the text does not tell; bytes are truth values.
    """

    text: str
    state: dict[str, int]
    tables: dict[str, Any]


# From a cycle, its number and the registers, on until a frame has ended (then true), nothing moves, or a number of cycles: the
# cycle then, the registers.
Step = Callable[[int, int, tuple[int, ...]], tuple[bool, int, tuple[int, ...]]]


def interpreted(program: Program) -> Step:
    """Return what steps through a program's cycles in Python."""
    run, tables = _function(program.text, tuple(program.state), tuple(program.tables)), tuple(program.tables.values())
    return lambda t, limit, state: run(t, limit, state, tables)


@lru_cache(64)
def _function(text: str, state: tuple[str, ...], tables: tuple[str, ...]):
    """Return the function of the lines of one cycle."""
    body = "\n".join(f"  {line}" for line in text.split("\n"))
    now, scope = f"({', '.join(state)},)", dict[str, Any]()
    exec(f"""def run(t, limit, state, tables):
 {now} = state
 {f"({', '.join(tables)},) = tables" if tables else ""}
 before = None
 for t in range(t, limit):
{body}
  if ended: return True, t + 1, {now}
  if not t & 63:
   now = {now}
   if now == before: return False, t + 1, now
   before = now
 return False, limit, {now}""", scope)
    return scope["run"]


class Netlist:
    """Parts and the streams between them, from the core's input to its output.

    Parameters
    ----------
    beats_in, beats_out : int
        Beats a frame at the ends.
    under_way : int
        Frames that may be between the ends, see `FlagQueue`.
    gated : bool
        Results wait until their frame has begun, see `OutputFramer`.
    """

    def __init__(self, beats_in: int, beats_out: int, under_way: int, gated: bool):
        self._ends, self._count = (beats_in, beats_out, under_way, gated), 1
        self._parts: list[tuple[Part, Sequence[int], Sequence[int]]] = []
        self._numbers: dict[Hashable, int] = {}

    def add(self, part: Part, streams: Sequence[int], name: Hashable = None) -> list[int]:
        """Put a part behind streams, the core's input being 0; return the streams that it gives. `least` knows it by its name."""
        given = list(range(self._count, self._count + part.outputs))
        self._count += part.outputs
        self._numbers[name] = len(self._parts)
        self._parts.append((part, list(streams), tuple(given)))
        return given

    def program(self, lean: bool = False) -> Program:
        """Return what happens in a cycle; ``lean``: with `Part.lean` in the place of every part."""
        parts = [(part.lean() if lean else part, i, o) for part, i, o in self._parts]
        beats_in, beats_out, under_way, gated = self._ends
        state = {f"{name}{n}": value for n, (part, _, _) in enumerate(parts) for name, value in part.state.items()}
        tables = {f"{name}{n}": value for n, (part, _, _) in enumerate(parts) for name, value in part.tables.items()}
        last = self._count - 1
        lines = [f"v0 = k_in != {beats_in - 1} or held < {under_way}",
                 *(part.valid(n, i, o) for n, (part, i, o) in enumerate(parts)),
                 f"r{last} = (k_out != {beats_out - 1} or held > 0)" + (" and (held > 0 or k_in > 0)" if gated else ""),
                 *reversed([part.ready(n, i, o) for n, (part, i, o) in enumerate(parts)]),
                 *(part.clock(n, i, o) for n, (part, i, o) in enumerate(parts)),
                 f"""ended = 0
if v{last} and r{last}:
 k_out += 1
 if k_out == {beats_out}:
  k_out = 0
  ended = 1
if v0 and r0:
 k_in += 1
 if k_in == {beats_in}:
  k_in = 0
  held += 1
if ended: held -= 1"""]
        text = "\n".join(line for part in lines for line in part.split("\n") if line.strip())
        return Program(text, state | {"k_in": 0, "k_out": 0, "held": 0}, tables)

    def run(self, limit: int = 1 << 60, lean: bool = False, pace: int | None = None,
            make: Callable[[Program], Step] = interpreted) -> Rhythm:
        """Step from reset until a frame ends in a state in which one before did, nothing moves, or ``limit`` cycles are over.

        Source and sink never wait.

        Parameters
        ----------
        limit : int
        lean : bool
            See `program`.
        pace : int, optional
            It may end, too, where some frames in a row took the same number of cycles, more than that: what comes before may run
            ahead of what holds them up for very long until buffers are full, which does not make it faster.
        make : callable
            How the program is run: `interpreted`, or what `hwq.rtl.native.compiled` gave.
        """
        program = self.program(lean)
        step, now, state = make(program), 0, tuple(program.state.values())
        ends: list[int] = []
        seen: dict[tuple[int, ...], int] = {}
        while True:
            ended, now, state = step(now, limit, state)
            if not ended:
                return Rhythm(ends, 0, 0)
            ends.append(now - 1)
            first = seen.setdefault(state, len(ends) - 1)
            if first < len(ends) - 1:
                return Rhythm(ends, len(ends) - 1 - first, ends[-1] - ends[first])
            last = {after - before for before, after in pairwise(ends[-1 - _SAME:])}
            if pace is not None and len(ends) > _SAME and len(last) == 1 and last.pop() > pace:
                return Rhythm(ends, 0, 0)

    def least(self, name: Hashable, most: int, make: Callable[[Program], Step] = interpreted) -> int:
        """Return the beats that a queue must hold for what is lean never to stand still, all others being as they are.

        Where it stands still, more room lets it go on as if that had been there from the start: neither what moves nor in which
        order depends on when (Parks, Bounded Scheduling of Process Networks, 1995, section 4).

        Parameters
        ----------
        name
            Of a `Queue` or `AnyQueue`.
        most : int
            Beats that are enough.
        make : callable
            See `run`.
        """
        program, room = self.program(lean=True), f"D{self._numbers[name]}"

        def end(depth: int, state: tuple[int, ...], sure: bool) -> tuple[int, ...] | None:
            """Return the state in which it stands still, from another one; None where it never does, or ends a frame before."""
            step, seen, ended, now = make(replace(program, tables={**program.tables, room: depth})), set[tuple[int, ...]](), sure, 0
            while state not in seen:
                if ended:
                    seen.add(state)
                ended, now, state = step(now, 1 << 60, state)
                if not ended:
                    return state
                if not sure:
                    break
            return None

        few, at = 0, tuple(program.state.values())       # with so few beats it stands still, there
        for more, sure in ((max(1, most // 32), False), (1, True)):         # where it never does is long in showing
            while few + more < most and (stuck := end(few + more, at, sure)):
                few, at = few + more, stuck
        return few + 1
