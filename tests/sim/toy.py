# amaranth: UnusedElaboratable=no
"""A toy core that obeys the contract of `accel`, its network, its build folder; and ways to break it."""

import json

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hwq.formats import FixedPoint
from hwq.interp import run_batches
from hwq.ir import Flatten, Graph, Input, Linear, Output, Preprocess, content_hash, save
from hwq.toolchain import run_yosys

__all__ = ["FAULTS", "toy_graph", "make_build"]

FAULTS = ("drops", "changes", "x", "deadlock", "flag")
_BEATS, _LANES, _OUT, _START = 16, 2, 3, 40


def toy_graph():
    """Three sums of 4x4x2 codes with weights of -7..7."""
    weight = np.random.default_rng(5).integers(-7, 8, (_OUT, _BEATS * _LANES))
    return Graph((Input("x", (), shape=(4, 4, 2), lo=0, hi=255), Flatten("f", ("x",)),
                  Linear("fc", ("f",), weight=weight, bias=np.zeros(_OUT, np.int64), weight_format=FixedPoint(4, 0)),
                  Output("y", ("fc",))), preprocess=Preprocess(8), name="toy")


class Toy(wiring.Component):
    """Accumulates a frame, then sends its sums; weights in a memory, so that the netlist has a block RAM."""

    def __init__(self, weight, fault=None):
        self._weight, self._fault = weight, fault
        super().__init__({"s_axis_tdata": In(8 * _LANES), "s_axis_tvalid": In(1), "s_axis_tready": Out(1),
                          "s_axis_tlast": In(1), "m_axis_tdata": Out(16), "m_axis_tvalid": Out(1),
                          "m_axis_tready": In(1), "m_axis_tlast": Out(1), "m_axis_tuser": Out(1)})

    def elaborate(self, platform):
        m = Module()
        words = []
        for beat in range(_BEATS):
            word = 0
            for k in range(_OUT):
                for lane in range(_LANES):
                    word |= (int(self._weight[k, beat * _LANES + lane]) & 15) << 4 * (k * _LANES + lane)
            words.append(word)
        m.submodules.rom = rom = memory.Memory(shape=4 * _OUT * _LANES, depth=_BEATS, init=words,
                                               attrs={"ram_style": "block"})
        port = rom.read_port()
        sums = [Signal(signed(16), name=f"sum{k}") for k in range(_OUT)]
        beat, place, bad = Signal(range(_BEATS + 1)), Signal(range(_OUT + 1)), Signal()
        frames, held = Signal(4), Signal(8)
        # Outlives `rst`: counts only once after power-on.
        start, started = Signal(range(_START + 1), reset_less=True), Signal(reset_less=True)
        m.d.sync += [start.eq(start + ~started), started.eq(started | (start == _START - 1))]
        m.d.comb += port.addr.eq(beat)
        with m.FSM():
            with m.State("TAKE"):                        # the weights of this beat are read
                m.d.comb += self.s_axis_tready.eq(0)
                m.next = "ADD"
            with m.State("ADD"):
                m.d.comb += self.s_axis_tready.eq(started)
                with m.If(self.s_axis_tvalid & started):
                    with m.If(beat != _BEATS):
                        m.d.sync += beat.eq(beat + 1)
                        for k, total in enumerate(sums):
                            terms = [self.s_axis_tdata.word_select(lane, 8)
                                     * port.data.word_select(k * _LANES + lane, 4).as_signed() for lane in range(_LANES)]
                            m.d.sync += total.eq(total + sum(terms))
                    m.next = "TAKE"
                    with m.If(self.s_axis_tlast):
                        m.d.sync += bad.eq(beat != _BEATS - 1)
                        m.next = "SEND"
            with m.State("SEND"):
                m.d.comb += [self.m_axis_tvalid.eq(1), self.m_axis_tlast.eq(place == _OUT - 1),
                             self.m_axis_tuser.eq(self.m_axis_tlast & (0 if self._fault == "flag" else bad))]
                m.d.sync += held.eq(held + 1)
                value = sums[0]
                for k in range(1, _OUT):
                    value = Mux(place == k, sums[k], value)
                m.d.comb += self.m_axis_tdata.eq(value ^ (held[1] if self._fault == "changes" else 0))
                if self._fault == "deadlock":
                    with m.If(frames == 2):
                        m.d.comb += self.m_axis_tvalid.eq(0)
                with m.If(self.m_axis_tready & self.m_axis_tvalid):
                    m.d.sync += [place.eq(place + 1), held.eq(0)]
                    if self._fault == "drops":
                        with m.If((frames == 1) & (place == 0)):
                            m.d.sync += place.eq(2)
                    with m.If(self.m_axis_tlast):
                        m.d.sync += [place.eq(0), beat.eq(0), frames.eq(frames + 1), *(total.eq(0) for total in sums)]
                        m.next = "TAKE"
        return m


def make_build(folder, fault=None, *, images=24, netlist=False):
    """Write a build folder of the toy; return its network."""
    graph = toy_graph()
    (folder / "vectors").mkdir(parents=True)
    (folder / "accel.il").write_text(rtlil.convert(Toy(graph.by_name["fc"].weight, fault), name="accel",
                                                   emit_src=False))
    run_yosys("read_rtlil accel.il\nproc\nopt_clean\nwrite_verilog -noattr accel.v", folder / "logs" / "verilog.log",
              folder)
    if fault == "x":                                     # Amaranth cannot say X
        text = (folder / "accel.v").read_text().replace("output [15:0] m_axis_tdata", "output [15:0] hidden_tdata", 1)
        text = text.replace("module accel(", "module inner(").replace("m_axis_tdata", "hidden_tdata")
        names = "clk, rst, s_axis_tdata, s_axis_tvalid, s_axis_tlast, m_axis_tready".split(", ")
        outs = "s_axis_tready m_axis_tvalid m_axis_tlast m_axis_tuser".split()
        text += (f"module accel({', '.join([*names, *outs, 'm_axis_tdata'])});\n"
                 f"input clk, rst, s_axis_tvalid, s_axis_tlast, m_axis_tready; input [15:0] s_axis_tdata;\n"
                 f"output {', '.join(outs)}; output [15:0] m_axis_tdata; wire [15:0] hidden;\n"
                 "reg never; assign m_axis_tdata = hidden ^ {15'b0, never & m_axis_tlast};\n"
                 f"inner inner({', '.join(f'.{n}({n})' for n in [*names, *outs])}, .hidden_tdata(hidden));\nendmodule\n")
        (folder / "accel.v").write_text(text)
    if netlist:
        run_yosys("read_rtlil accel.il\nsynth_ice40 -device u -dsp -top accel\nwrite_verilog -noattr netlist.v",
                  folder / "logs" / "netlist.log", folder)
    codes = np.random.default_rng(3).integers(0, 256, (images, 4, 4, 2))
    np.save(folder / "vectors" / "input.npy", codes)
    np.save(folder / "vectors" / "output.npy", run_batches(graph, codes))
    save(graph, folder / "model.hwq")
    (folder / "manifest.json").write_text(json.dumps({
        "format": 1, "name": "toy", "model_hash": content_hash(graph), "target": "ice40", "device": "up5k",
        "files": {}, "input": {"bytes": 2, "beats": _BEATS, "lanes": _LANES, "width": 8, "signed": False},
        "output": {"bytes": 2, "beats": _OUT, "width": 16, "signed": True}, "cycles": 35, "startup_cycles": _START}))
    return graph
