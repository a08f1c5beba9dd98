"""The whole core: guard, stages, framer, held in reset until its memories are ready."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from amaranth.hdl import Module, ResetInserter, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, Technology, check
from .frames import FlagQueue, InputGuard, OutputFramer
from .shapers import StreamBuffer

__all__ = ["Accelerator", "Chain", "AXIS_PORTS", "CORE_NAMES"]

AXIS_PORTS = ("s_axis_tdata", "s_axis_tvalid", "s_axis_tready", "s_axis_tlast",
              "m_axis_tdata", "m_axis_tvalid", "m_axis_tready", "m_axis_tlast", "m_axis_tuser")
# Submodules of the core that are no layers.
CORE_NAMES = ("core", "guard", "entry", "flags", "framer", "gear", "gear_down", "gear_up")

# Packed logic cells over the blocks' own sums, fitted by bench/calibrate.py.
_PACKING = 1.055


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
        _check_joints(blocks)
        first, last = self.blocks[0].block, self.blocks[-1].block
        super().__init__({"i": In(_signature(first, "i")),
                          "o": Out(_signature(last, "o"))})

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


def _check_joints(blocks) -> None:
    """Refuse neighbours of different payloads: assignments would truncate or lose a sign without a word."""
    for (name, block), (after, follower) in zip(blocks, blocks[1:], strict=False):
        out, into = (side.signature.members["payload"].shape for side in (block.members["o"], follower.members["i"]))
        check(out == into, f"Block '{name}' gives {out!r}, but '{after}' takes {into!r}")


def _signature(block, name):
    member = block.members[name]
    return member.signature.flip() if member.flow == In else member.signature


class Accelerator(Block):
    """The core with AXI4-Stream style ports; clock ``clk``, synchronous reset ``rst``.

    Parameters
    ----------
    stages : sequence of (name, block)
        From a stream of ``in_lanes`` codes to a stream of one result.
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

    def __init__(self, stages: Sequence[tuple[str, wiring.Component]], *, in_range: tuple[int, int], in_shape: Shape,
                 in_lanes: int, in_beats: int, out_shape: Shape, out_beats: int, frames: int = 1, technology: Technology):
        self.guard = InputGuard(in_range, in_shape, in_lanes, in_beats)
        self.framer = OutputFramer(out_shape, out_beats)
        self.flags = FlagQueue(max(frames, 2 + sum(getattr(block, "frames", 1) for _, block in stages)))
        # Results of border alone would leave before their frame comes: the framer waits for its first beat, which the entry
        # buffer takes even while the first stage, full of border, takes none.
        self._eager = any(getattr(block, "eager", False) for _, block in stages)
        entry = [("entry", StreamBuffer(in_shape, in_lanes))] if self._eager else []
        self.stages, self.technology = [*entry, *stages], technology
        _check_joints([("guard", self.guard), *self.stages, ("framer", self.framer)])
        super().__init__({
            "s_axis_tdata": In(8 * self.guard.bytes), "s_axis_tvalid": In(1), "s_axis_tready": Out(1), "s_axis_tlast": In(1),
            "m_axis_tdata": Out(8 * self.framer.bytes), "m_axis_tvalid": Out(1), "m_axis_tready": In(1),
            "m_axis_tlast": Out(1), "m_axis_tuser": Out(1),
        })

    @property
    def cost(self) -> Cost:
        """Sum of all blocks."""
        blocks = [self.guard, self.framer, self.flags, *(block for _, block in self.stages)]
        return sum((block.cost for block in blocks), Cost(lc=15))

    def elaborate(self, platform):
        m = Module()
        inner = Module()
        inner.submodules.guard, inner.submodules.flags, inner.submodules.framer = self.guard, self.flags, self.framer
        chain = [self.guard.o]
        for name, block in self.stages:
            inner.submodules[name] = block
            chain += [block.i, block.o]                  # type: ignore[attr-defined]
        chain.append(self.framer.i)
        for source, sink in [*zip(chain[::2], chain[1::2], strict=True),
                             (self.guard.flag, self.flags.i), (self.flags.o, self.framer.flag)]:
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
