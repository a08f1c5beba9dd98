"""The handshakes of the blocks, cycle by cycle: when beats move, without what they carry.

No ready or valid depends on data, so this is all that the cycles of a core depend on. Each block names the parts (`Part`)
that its handshakes are made of; a `hwq.rtl.rhythm.Netlist` of them becomes one Python function that steps through the cycles as the
hardware does. Every part says in Python what its block says in Amaranth: ``v`` is valid, ``r`` ready, ``l`` the mark of a window's
last word, ``b`` that a word is the first read of a block, of a stream by number; ``state`` are its registers, behind its own
number. ``w`` serves whoever needs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Part", "Pipe", "Queue", "AnyQueue", "Steps", "Gather", "Scatter", "Pad", "Crop", "Window", "Shift", "Fork", "Meet",
           "Turns"]


class Part:
    """Base: what happens at the streams ``i`` and ``o`` of part number ``n``.

    Attributes
    ----------
    outputs : int
    state : dict of str to int
        Registers and what they are after a reset.
    tables : dict of str to sequence
        Constants.
    """

    outputs = 1
    state: dict[str, int] = {}
    tables: dict[str, Any] = {}

    def valid(self, n: int, i: Sequence[int], o: Sequence[int]) -> str:
        """Return the lines that give ``v`` of ``o``."""
        raise NotImplementedError

    def ready(self, n: int, i: Sequence[int], o: Sequence[int]) -> str:
        """Return the lines that give ``r`` of ``i``."""
        raise NotImplementedError

    def clock(self, n: int, i: Sequence[int], o: Sequence[int]) -> str:
        """Return the lines of the clock's edge."""
        return ""

    def lean(self) -> "Part":
        """Return the part with no more room than it has however beats come, so that what moves does not depend on when."""
        return self


class Pipe(Part):
    """Registers that move on together unless the last one's beat has to wait.

    Parameters
    ----------
    depth : int
        Registers.
    gives : sequence of bool
        Which beats of a frame go on, the others being swallowed; all by default.
    marked : bool
        Behind a window source; those with the mark do.
    apart : bool
        Only beats that surely follow each other closely are in it at the same time: those of one block of a window source.
    """

    def __init__(self, depth: int, gives: Sequence[bool] = (), marked: bool = False, apart: bool = False):
        self.depth, self.gives, self.marked, self.apart = depth, gives, marked, apart
        self.state = {"p": 0}
        if not all(gives):
            self.state, self.tables = {"p": 0, "k": 0}, {"G": bytes(gives)}

    def lean(self):
        return Pipe(self.depth if self.marked else 1, self.gives, self.marked, self.marked)

    def valid(self, n, i, o):
        return f"v{o[0]} = p{n} >> {self.depth - 1}" if self.depth > 1 else f"v{o[0]} = p{n}"

    def ready(self, n, i, o):
        return f"e{n} = r{i[0]} = r{o[0]} or not v{o[0]}" + (f"\nif b{i[0]} and p{n}: r{i[0]} = 0" if self.apart else "")

    def clock(self, n, i, o):
        bit = f"v{i[0]} & l{i[0]}" if self.marked else f"v{i[0]} & G{n}[k{n}]" if self.tables else f"v{i[0]}"
        bit += f" & r{i[0]}" if self.apart else ""
        text = f"if e{n}:\n p{n} = " + (f"p{n} << 1 & {(1 << self.depth) - 1} | {bit}" if self.depth > 1 else bit)
        return text + (f"\n if v{i[0]}: k{n} = (k{n} + 1) % {len(self.tables['G'])}" if self.tables else "")


class Queue(Part):
    """A buffer of ``depth`` beats; with a latency of 2 they lie in a memory, and the first one beside it."""

    def __init__(self, depth: int, latency: int = 1):
        self.depth, self.latency = depth, latency
        self.state = {"h": 0} if latency == 1 else {"h": 0, "s": 0, "q": 0}
        self.tables = {"D": depth}                       # no part of the text: cores with other depths share the function

    def lean(self):
        return Queue(self.depth)

    def valid(self, n, i, o):
        return f"v{o[0]} = h{n} > 0" if self.latency == 1 else f"v{o[0]} = q{n}"

    def ready(self, n, i, o):
        return f"r{i[0]} = h{n} < D{n}"

    def clock(self, n, i, o):
        moves = f"w = v{i[0]} & r{i[0]}\nh{n} += w - (v{o[0]} & r{o[0]})"
        if self.latency == 1:
            return moves
        return f"{moves}\nif r{o[0]} or not q{n}:\n q{n} = s{n} > 0\n s{n} -= q{n}\ns{n} += w"


class AnyQueue(Part):
    """A `Queue`, or with a latency of 0 none: cores with other depths have the same text, whatever the latency."""

    state = {"h": 0, "s": 0, "q": 0}

    def __init__(self, depth: int, latency: int):
        self.tables = {"D": depth, "L": latency}

    def lean(self):
        return AnyQueue(self.tables["D"], min(self.tables["L"], 1))

    def valid(self, n, i, o):
        return f"v{o[0]} = v{i[0]} if L{n} == 0 else h{n} > 0 if L{n} == 1 else q{n}"

    def ready(self, n, i, o):
        return f"r{i[0]} = r{o[0]} if L{n} == 0 else h{n} < D{n}"

    def clock(self, n, i, o):
        return f"""w = v{i[0]} & r{i[0]}
h{n} += w - (v{o[0]} & r{o[0]})
if L{n} == 2:
 if r{o[0]} or not q{n}:
  q{n} = s{n} > 0
  s{n} -= q{n}
 s{n} += w"""


@dataclass
class Steps(Part):
    """Works on one beat at a time, for ``count`` cycles between the one in which it takes it and the one in which it offers it."""

    count: int
    state = {"c": 0}

    def lean(self):
        return Steps(0)

    def valid(self, n, i, o):
        return f"v{o[0]} = c{n} == 1"

    def ready(self, n, i, o):
        return f"r{i[0]} = c{n} == 0"

    def clock(self, n, i, o):
        return f"if v{i[0]} and r{i[0]}: c{n} = {self.count + 1}\nelif c{n} > 1 or v{o[0]} and r{o[0]}: c{n} -= 1"


@dataclass
class Gather(Part):
    """``ratio`` beats become one."""

    ratio: int
    relaxed: bool
    state = {"c": 0}

    def valid(self, n, i, o):
        return f"v{o[0]} = c{n} == {self.ratio}"

    def ready(self, n, i, o):
        return f"r{i[0]} = c{n} != {self.ratio}" + ("" if self.relaxed else f" or r{o[0]}")

    def clock(self, n, i, o):
        return f"if v{i[0]} and r{i[0]}: c{n} = 1 if v{o[0]} else c{n} + 1\nelif v{o[0]} and r{o[0]}: c{n} = 0"


@dataclass
class Scatter(Part):
    """One beat becomes ``ratio``."""

    ratio: int
    relaxed: bool
    state = {"c": 0}

    def valid(self, n, i, o):
        return f"v{o[0]} = c{n} > 0"

    def ready(self, n, i, o):
        return f"r{i[0]} = c{n} == 0" + ("" if self.relaxed else f" or c{n} == 1 and r{o[0]}")

    def clock(self, n, i, o):
        return f"if v{i[0]} and r{i[0]}: c{n} = {self.ratio}\nelif v{o[0]} and r{o[0]}: c{n} -= 1"


class Pad(Part):
    """Beats put in: ``real`` tells of each beat of a frame that goes on whether it comes from outside."""

    state = {"k": 0}

    def __init__(self, real: Sequence[bool]):
        self.tables = {"R": bytes(real)}

    def valid(self, n, i, o):
        return f"v{o[0]} = v{i[0]} or not R{n}[k{n}]"

    def ready(self, n, i, o):
        return f"r{i[0]} = r{o[0]} and R{n}[k{n}]"

    def clock(self, n, i, o):
        return f"if v{o[0]} and r{o[0]}: k{n} = (k{n} + 1) % {len(self.tables['R'])}"


class Crop(Part):
    """Beats left out: ``keep`` tells of each beat of a frame whether it goes on."""

    state = {"k": 0}

    def __init__(self, keep: Sequence[bool]):
        self.tables = {"K": bytes(keep)}

    def valid(self, n, i, o):
        return f"v{o[0]} = v{i[0]} and K{n}[k{n}]"

    def ready(self, n, i, o):
        return f"r{i[0]} = r{o[0]} or not K{n}[k{n}]"

    def clock(self, n, i, o):
        return f"if v{i[0]} and r{i[0]}: k{n} = (k{n} + 1) % {len(self.tables['K'])}"


class Window(Part):
    """`Ring`: margin, whether a block is read, what stands in the output register, the stale ready.

    Parameters
    ----------
    moves : sequence of int
        Words freed when each of a frame's blocks is done.
    span, room : int
        Words of a block; words beyond at which the ring counts as full.
    reads, words : int
        Words read for each block; of these those from mark to mark.
    run : int
        Reads in a row at most, where a word that comes waits for a cycle without one; 0: there are two ports.
    stale : bool
        It finds out a cycle late that it is full.
    """

    def __init__(self, moves: Sequence[int], *, span: int, room: int, reads: int, words: int, run: int = 0, stale: bool = True):
        self.moves, self.span, self.room, self.reads = tuple(moves), span, room, reads
        self.words, self.run, self.stale = words, run, stale
        self.state = {"m": -span, "a": 0, "q": 0, "e": 0, "s": 1, "f": 0, "c": reads, "i": 0, "j": words}
        if run:
            self.state |= {"u": 0, "x": 0, "y": 0}       # whether no word is read; reads since; whether a word waits
        self.tables = {"M": self.moves}

    def lean(self):
        return Window(self.moves, span=self.span, room=self.room, reads=self.reads, words=self.words, run=self.run, stale=False)

    def valid(self, n, i, o):
        return f"v{o[0]} = q{n}\nl{o[0]} = e{n}\nb{o[0]} = s{n}"

    def ready(self, n, i, o):
        return f"r{i[0]} = f{n} and not y{n}" if self.run else f"r{i[0]} = f{n}"

    def clock(self, n, i, o):
        turns, wrote, reads = "", f"v{i[0]} & f{n}", f"a{n}"
        if self.run:
            wrote, reads = "wrote", f"a{n} and not u{n}"
            turns = f"""reads = {reads} and (r{o[0]} or not q{n})
wrote = y{n} and not reads
y{n} = v{i[0]} and r{i[0]} or y{n} and reads
x{n} += reads
u{n} = reads and (x{n} == {self.run} or c{n} == 1)
if u{n}: x{n} = 0
"""
        return turns + f"""w = m{n}
m{n} += {wrote}
{f"f{n} = w < {self.room}" if self.stale else ""}
if r{o[0]} or not q{n}:
 q{n} = {"reads" if self.run else f"a{n}"}
 if q{n}:
  s{n} = c{n} == {self.reads}
  j{n} -= 1
  e{n} = j{n} == 0
  if e{n}: j{n} = {self.words}
  c{n} -= 1
  if not c{n}:
   c{n} = {self.reads}
   m{n} -= M{n}[i{n}]
   i{n} = (i{n} + 1) % {len(self.moves)}
   a{n} = m{n} >= 0
 elif not a{n}: a{n} = m{n} >= 0
elif not a{n}: a{n} = m{n} >= 0
{"" if self.stale else f"f{n} = m{n} < {self.room}"}"""


class Shift(Part):
    """`ShiftWindow`: ``ends`` tells of each pixel of a frame whether a window ends there, which is sent ``groups`` times."""

    state = {"p": 0, "g": 0, "k": 0}

    def __init__(self, ends: Sequence[bool], groups: int):
        self.groups, self.tables = groups, {"E": bytes(ends)}

    def valid(self, n, i, o):
        return f"v{o[0]} = p{n}\nl{o[0]} = 1\nb{o[0]} = g{n} == 0"

    def ready(self, n, i, o):
        return f"r{i[0]} = not p{n} or r{o[0]} and g{n} == {self.groups - 1}"

    def clock(self, n, i, o):
        return f"""if p{n} and r{o[0]}: g{n} = (g{n} + 1) % {self.groups}
if r{i[0]}:
 p{n} = v{i[0]} and E{n}[k{n}]
 if v{i[0]}: k{n} = (k{n} + 1) % {len(self.tables['E'])}"""


class Fork(Part):
    """`StreamFork`."""

    def __init__(self, readers: int):
        self.outputs = readers
        self.state = {f"t{k}_": 0 for k in range(readers)}

    def valid(self, n, i, o):
        return "\n".join(f"v{out} = v{i[0]} and not t{k}_{n}" for k, out in enumerate(o))

    def ready(self, n, i, o):
        return f"r{i[0]} = " + " and ".join(f"(t{k}_{n} or r{out})" for k, out in enumerate(o))

    def clock(self, n, i, o):
        return f"if v{i[0]}:\n" + "\n".join(f" t{k}_{n} = not r{i[0]} and (t{k}_{n} or r{out})" for k, out in enumerate(o))


class Meet(Part):
    """A beat of each of two streams at once."""

    def valid(self, n, i, o):
        return f"v{o[0]} = v{i[0]} and v{i[1]}"

    def ready(self, n, i, o):
        return f"r{i[0]} = r{o[0]} and v{i[1]}\nr{i[1]} = r{o[0]} and v{i[0]}"


class Turns(Part):
    """A beat of one of several streams after the other: of ``turns[k]``."""

    state = {"k": 0}

    def __init__(self, turns: Sequence[int]):
        self.tables = {"T": tuple(turns)}

    def valid(self, n, i, o):
        return f"v{o[0]} = ({', '.join(f'v{stream}' for stream in i)})[T{n}[k{n}]]"

    def ready(self, n, i, o):
        return "\n".join(f"r{stream} = r{o[0]} and T{n}[k{n}] == {at}" for at, stream in enumerate(i))

    def clock(self, n, i, o):
        return f"if v{o[0]} and r{o[0]}: k{n} = (k{n} + 1) % {len(self.tables['T'])}"
