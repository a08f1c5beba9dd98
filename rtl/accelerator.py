"""The whole core: guard, stages, framer, held in reset until its memories are ready."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from amaranth.hdl import Module, ResetInserter, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .branches import StreamFork
from .common import Block, Cost, Technology, check
from .frames import FlagQueue, InputGuard, OutputFramer
from .handshake import Part
from .shapers import StreamBuffer

__all__ = ["Accelerator", "Chain", "AXIS_PORTS", "CORE_NAMES"]

AXIS_PORTS = ("s_axis_tdata", "s_axis_tvalid", "s_axis_tready", "s_axis_tlast",
              "m_axis_tdata", "m_axis_tvalid", "m_axis_tready", "m_axis_tlast", "m_axis_tuser")
# Submodules of the core that are no layers.
CORE_NAMES = ("core", "guard", "entry", "flags", "framer", "gear", "gear_down", "gear_up")

# Packed logic cells over the blocks' own sums, fitted by bench/calibrate.py.
_PACKING = 1.007


@dataclass(frozen=True)
class _Named:
    name: str
    block: wiring.Component


class Chain(Block):
    """Blocks in a row, the output of each into the next.

    Parameters
    ----------
    blocks : sequence of (name, block)
        Each with streams ``i`` and ``o`` of matching payloads; names become module names.

    Members
    -------
    i, o : the first block's input, the last block's output
    """

    def __init__(self, blocks: Sequence[tuple[str, wiring.Component]]):
        check(len(blocks) > 0, "Chain must have at least one block")
        self.blocks = [_Named(name, block) for name, block in blocks]
        for (name, block), (after, follower) in zip(blocks, blocks[1:], strict=False):
            _check_joint(name, block, "o", after, follower, "i")
        first, last = self.blocks[0].block, self.blocks[-1].block
        super().__init__({"i": In(_signature(first, "i")),
                          "o": Out(_signature(last, "o"))})

    @property
    def handshake(self) -> tuple[Part, ...]:
        """See `Block.handshake`."""
        return tuple(part for named in self.blocks for part in named.block.handshake)           # type: ignore[attr-defined]

    @property
    def cost(self) -> Cost:
        """Sum of the blocks, with what packing adds."""
        total = sum((named.block.cost for named in self.blocks), Cost())           # type: ignore[attr-defined]
        return replace(total, lc=_PACKING * total.lc)

    def elaborate(self, platform):
        m = Module()
        for named in self.blocks:
            m.submodules[named.name] = named.block
        ends = [self.i, *(side for named in self.blocks for side in (named.block.i, named.block.o)), self.o]
        for source, sink in zip(ends[::2], ends[1::2], strict=True):
            m.d.comb += [sink.payload.eq(source.payload), sink.valid.eq(source.valid), source.ready.eq(sink.ready)]
        return m


def _check_joint(name: str, block: wiring.Component, out: str, after: str, follower: wiring.Component, into: str) -> None:
    """Refuse neighbours of different payloads: assignments would truncate or lose a sign without a word."""
    gives, takes = (side.signature.members["payload"].shape for side in (block.members[out], follower.members[into]))     # type: ignore[attr-defined]
    check(gives is takes or gives == takes, f"Block '{name}' gives {gives!r}, but '{after}' takes {takes!r}")


def _payload(block: wiring.Component) -> tuple[Shape, int]:
    """Return the shape and number of the lanes that a block gives."""
    layout = block.members["o"].signature.members["payload"].shape              # type: ignore[attr-defined]
    return layout.elem_shape, layout.length


def _signature(block, name):
    member = block.members[name]
    return member.signature.flip() if member.flow == In else member.signature


class Accelerator(Block):
    """The core with AXI4-Stream style ports; clock ``clk``, synchronous reset ``rst``.

    Parameters
    ----------
    stages : sequence of (name, block)
        Each with an output ``o`` and one input ``i`` or several, ``i0``, ``i1``, ...; each behind those that it reads. The
        last one gives the results.
    sources : mapping of str to tuple of str, optional
        For each stage the names of the stages that it reads, ``""`` for the input; without it each reads the one before. What is
        read more than once gets a `StreamFork`.
    in_range, in_shape, in_lanes, in_beats
        Codes: inclusive range, shape, codes a beat, beats a frame.
    out_shape, out_beats
        Results: shape, results a frame.
    frames : int
        Frames that must be able to be under way, from their last beat in to their last beat out, for the core to keep its pace.
    technology : Technology
        Gives the start-up time.

    Members
    -------
    s_axis_tdata, s_axis_tvalid, s_axis_tready, s_axis_tlast
        Codes in raster order, channels last, each in whole bytes, little endian.
    m_axis_tdata, m_axis_tvalid, m_axis_tready, m_axis_tlast, m_axis_tuser
        Results, one a beat, sign-extended to whole bytes; ``tuser`` with ``tlast`` is 1 if the frame had a wrong
        length. Every frame in gives exactly one frame out.
    """

    def __init__(self, stages: Sequence[tuple[str, wiring.Component]], sources: Mapping[str, tuple[str, ...]] | None = None, *,
                 in_range: tuple[int, int], in_shape: Shape, in_lanes: int, in_beats: int, out_shape: Shape, out_beats: int,
                 frames: int, technology: Technology):
        self.guard = InputGuard(in_range, in_shape, in_lanes, in_beats)
        self.framer = OutputFramer(out_shape, out_beats)
        self.flags = FlagQueue(frames)
        # Results of border alone would leave before their frame comes: the framer waits for its first beat, which the entry
        # buffer takes even while the first stage, full of border, takes none.
        self._eager = any(getattr(block, "eager", False) for _, block in stages)
        self.entry = StreamBuffer(in_shape, in_lanes) if self._eager else None
        self.stages, self.technology = list(stages), technology
        names = [name for name, _ in stages]
        self._sources = dict(sources or zip(names, (("",), *((name,) for name in names[:-1])),
                                            strict=True)) | {"framer": (names[-1],)}
        counts = Counter(source for each in self._sources.values() for source in each)
        blocks = {"": self.guard, **dict(stages)}
        self.forks = {source: StreamFork(*_payload(blocks[source]), count) for source, count in counts.items() if count > 1}
        blocks = self._blocks()
        for name, out, after, into in self._wires():
            _check_joint(name, blocks[name], out, after, blocks[after], into)
        super().__init__({
            "s_axis_tdata": In(8 * self.guard.bytes), "s_axis_tvalid": In(1), "s_axis_tready": Out(1), "s_axis_tlast": In(1),
            "m_axis_tdata": Out(8 * self.framer.bytes), "m_axis_tvalid": Out(1), "m_axis_tready": In(1),
            "m_axis_tlast": Out(1), "m_axis_tuser": Out(1),
        })

    @property
    def cost(self) -> Cost:
        """Sum of all blocks."""
        return sum((block.cost for block in self._blocks().values()), Cost(lc=15)) + self.flags.cost              # type: ignore[attr-defined]

    def _fork_name(self, source: str) -> str:
        name = f"{source or 'input'}_fork"
        return name + "_" * sum(other == name for other, _ in self.stages)

    def _blocks(self) -> dict[str, wiring.Component]:
        """Return all blocks on the way from the input to the output by name."""
        return {"guard": self.guard, **({"entry": self.entry} if self.entry else {}), **dict(self.stages),
                **{self._fork_name(source): fork for source, fork in self.forks.items()}, "framer": self.framer}

    def _wires(self) -> list[tuple[str, str, str, str]]:
        """Return the streams: block and port that gives, block and port that takes."""
        start = "entry" if self.entry else "guard"
        wires = [("guard", "o", "entry", "i")] if self.entry else []
        wires += [(source or start, "o", self._fork_name(source), "i") for source in self.forks]
        taken: Counter[str] = Counter()
        for name, block in [*self.stages, ("framer", self.framer)]:
            ports = [port for port in block.members if re.fullmatch(r"i\d*", port)]          # type: ignore[attr-defined]
            for source, port in zip(self._sources[name], ports, strict=True):
                giver = (self._fork_name(source), f"o{taken[source]}") if source in self.forks else (source or start, "o")
                wires.append((*giver, name, port))
                taken[source] += 1
        return wires

    def elaborate(self, platform):
        m = Module()
        inner = Module()
        inner.submodules.flags = self.flags
        blocks = self._blocks()
        for name, block in blocks.items():
            inner.submodules[name] = block
        ends = [(getattr(blocks[name], out), getattr(blocks[after], into)) for name, out, after, into in self._wires()]
        for source, sink in [*ends, (self.guard.flag, self.flags.i), (self.flags.o, self.framer.flag)]:
            inner.d.comb += [sink.payload.eq(source.payload), sink.valid.eq(source.valid), source.ready.eq(sink.ready)]

        inner.d.comb += self.framer.open.eq(self.flags.o.valid | self.guard.begun if self._eager else 1)

        # Block RAM of some families reads zeros for a while after configuration (Technology.startup_cycles).
        starting = Signal(init=1 if self.technology.startup_cycles else 0)
        if self.technology.startup_cycles:
            left = Signal(range(self.technology.startup_cycles + 1), init=self.technology.startup_cycles, reset_less=True)
            starting = Signal(init=1, reset_less=True)
            with m.If(starting):
                m.d.sync += [left.eq(left - 1), starting.eq(left != 1)]
        m.submodules.core = ResetInserter(starting)(inner) if self.technology.startup_cycles else inner
        run = ~starting
        m.d.comb += [
            self.guard.tdata.eq(self.s_axis_tdata), self.guard.tvalid.eq(self.s_axis_tvalid & run),
            self.guard.tlast.eq(self.s_axis_tlast), self.s_axis_tready.eq(self.guard.tready & run),
            self.m_axis_tdata.eq(self.framer.tdata), self.m_axis_tvalid.eq(self.framer.tvalid & run),
            self.framer.tready.eq(self.m_axis_tready), self.m_axis_tlast.eq(self.framer.tlast),
            self.m_axis_tuser.eq(self.framer.tuser),
        ]
        return m
