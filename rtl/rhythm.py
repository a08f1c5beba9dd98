"""The handshakes of a whole core as one Python function: what it does, cycle by cycle, until it repeats itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .handshake import Part

__all__ = ["Netlist", "Rhythm"]


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

    def add(self, part: Part, streams: Sequence[int]) -> list[int]:
        """Put a part behind streams, the core's input being 0; return the streams that it gives."""
        given = list(range(self._count, self._count + part.outputs))
        self._count += part.outputs
        self._parts.append((part, list(streams), tuple(given)))
        return given

    def run(self, limit: int = 1 << 60, lean: bool = False) -> Rhythm:
        """Step from reset, source and sink never waiting, until a frame ends in a state in which one before did, nothing moves, or ``limit`` cycles are over.

        ``lean``: with `Part.lean` in the place of every part.
        """
        parts = [(part.lean() if lean else part, i, o) for part, i, o in self._parts]
        beats_in, beats_out, under_way, gated = self._ends
        state = {f"{name}{n}": value for n, (part, _, _) in enumerate(parts) for name, value in part.state.items()}
        tables = {f"{name}{n}": value for n, (part, _, _) in enumerate(parts) for name, value in part.tables.items()}
        last, now = self._count - 1, f"({''.join(f'{name}, ' for name in state)}k_in, k_out, held)"
        lines = [f"v0 = k_in != {beats_in - 1} or held < {under_way}", *(part.valid(n, i, o) for n, (part, i, o) in enumerate(parts)),
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
if ended:
 held -= 1
 ends.append(t)
 now = {now}
 if now in seen: return ends, seen[now]
 seen[now] = len(ends) - 1
if not t & 63:
 now = ({now}, len(ends))
 if now == before: return ends, None
 before = now"""]
        text = "\n".join(line for part in lines for line in part.split("\n") if line.strip())
        ends, first = _compiled(text, tuple(state), tuple(tables))(limit, *state.values(), *tables.values())
        return Rhythm(ends, 0, 0) if first is None else Rhythm(ends, len(ends) - 1 - first, ends[-1] - ends[first])


@lru_cache(64)
def _compiled(text: str, state: tuple[str, ...], tables: tuple[str, ...]):
    """Return the function of the lines of one cycle."""
    body = "\n".join(f"  {line}" for line in text.split("\n"))
    scope: dict[str, Any] = {}
    exec(f"def run(limit, {', '.join((*state, *tables))}):\n k_in = k_out = held = 0\n before, ends, seen = None, [], {{}}\n"
         f" for t in range(limit):\n{body}\n return ends, None", scope)
    return scope["run"]
