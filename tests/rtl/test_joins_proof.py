# amaranth: UnusedElaboratable=no
"""A fork and a join with buffers of the least depth never stand still, whatever stalls: proved; with one beat less they can."""

import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Assert, Module, Shape, Signal
from amaranth.lib.wiring import Component, In

from hwq.rtl.branches import StreamFifo, StreamFork
from hwq.rtl.common import GENERIC
from hwq.rtl.join import StreamAdd
from hwq.rtl.shapers import StreamBuffer, WidthConverter
from hwq.toolchain import run_yosys

# Cycles without a stall after which some beat must have come in or gone out.
_PATIENCE = 12

_AIGER = """read_rtlil top.il
prep -flatten -top top
async2sync
chformal -lower
opt -full
techmap
dffunmap
simplemap
aigmap
setundef -anyseq
clean
write_aiger -I -B -zinit -no-startoffset top.aig
"""


class Standstill(Component):
    """A fork whose branches join: one gathers ``window`` beats before it gives the first, the other holds ``depth``.

    Source, sink and both branches stall, and a reset comes, whenever they like. Asserted is that something moves in `_PATIENCE`
    cycles without any.
    """

    def __init__(self, window: int, depth: int):
        self.window, self.depth = window, depth
        super().__init__({"comes": In(1), "goes": In(1), "free": In(2)})

    def elaborate(self, platform):
        m = Module()
        bit = Shape(1)
        m.submodules.fork = fork = StreamFork(bit, 1, 2)
        m.submodules.gather, m.submodules.scatter = gather, scatter = WidthConverter(bit, 1, self.window), \
            WidthConverter(bit, self.window, 1)
        m.submodules.fifo = fifo = StreamFifo(bit, 1, self.depth, technology=GENERIC)
        m.submodules.add, m.submodules.buffer = add, buffer = StreamAdd([(0, 1)] * 2, (1, 1)), StreamBuffer(Shape(2))
        joints = [(fork.o0, gather.i, self.free[0]), (gather.o, scatter.i, 1), (scatter.o, add.i0, 1),
                  (fork.o1, fifo.i, self.free[1]), (fifo.o, add.i1, 1), (add.o, buffer.i, 1)]
        for source, sink, free in joints:
            m.d.comb += [sink.payload.eq(source.payload), sink.valid.eq(source.valid & free), source.ready.eq(sink.ready & free)]
        m.d.comb += [fork.i.valid.eq(self.comes), buffer.o.ready.eq(self.goes)]
        still = Signal(range(_PATIENCE + 1))
        with m.If((self.comes & fork.i.ready) | (buffer.o.valid & self.goes)):
            m.d.sync += still.eq(0)
        with m.Elif(self.comes & self.goes & self.free.all() & (still != _PATIENCE)):
            m.d.sync += still.eq(still + 1)
        m.d.comb += Assert(still != _PATIENCE)
        return m


def proved(window, depth, folder):
    """Return whether property-directed reachability proves that it never stands still; False: it found how it does."""
    top = Standstill(window, depth)
    (folder / "top.il").write_text(rtlil.convert(top, name="top"))
    run_yosys(_AIGER, folder / "yosys.log", folder)
    abc = Path(find_spec("pyosys").origin).parent / "yosys-abc"
    text = subprocess.run([abc, "-c", "read_aiger top.aig; strash; pdr"], cwd=folder, capture_output=True, text=True,
                          timeout=300, check=True).stdout
    assert ("Property proved" in text) != ("was asserted in frame" in text), text
    return "Property proved" in text


@pytest.mark.parametrize("window, depth", [(2, 1), (3, 2), (4, 3)])
def test_the_least_depth_never_stands_still(window, depth, tmp_path):
    assert proved(window, depth, tmp_path)


@pytest.mark.parametrize("window, depth", [(3, 1), (4, 2)])
def test_one_beat_less_can_stand_still(window, depth, tmp_path):
    assert not proved(window, depth, tmp_path)
