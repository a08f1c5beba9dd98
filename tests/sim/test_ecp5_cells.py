# amaranth: UnusedElaboratable=no
"""Our models of the ECP5's cells: against Python, against memories that Yosys maps, and against Yosys' own models."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

import hwq.sim
from hwq.errors import ToolError
from hwq.rtl.common import ECP5
from hwq.toolchain import run_yosys

CELLS = Path(hwq.sim.__file__).with_name("ecp5_cells.v")
pytestmark = pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog")
WIDTHS = (1, 2, 4, 9, 18)


def simulate(folder, verilog, words, bits, cells=CELLS):
    """Run module ``dut`` (clk, in, out) a word of ``in`` a cycle; return ``out`` before each rising edge, as integers."""
    ins, outs = bits
    (folder / "in.hex").write_text("".join(f"{word:x}\n" for word in words))
    (folder / "tb.v").write_text(f"""{verilog}
module tb;
  reg clk = 0; reg [{ins - 1}:0] words [0:{len(words) - 1}]; reg [{ins - 1}:0] in; wire [{outs - 1}:0] out; integer k;
  dut dut(.clk(clk), .in(in), .out(out));
  initial begin
    $readmemh("in.hex", words);
    for (k = 0; k < {len(words)}; k = k + 1) begin
      in = words[k]; #5 $display("%h", out); clk = 1; #5 clk = 0;
    end
  end
endmodule
""")
    subprocess.run(["iverilog", "-g2005", "-o", "tb", "-s", "tb", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "tb.v", cells], cwd=folder,
                   check=True, capture_output=True, text=True)
    done = subprocess.run(["vvp", "-n", "tb"], cwd=folder, check=True, capture_output=True, text=True, timeout=60)
    return [int(line, 16) for line in done.stdout.split() if not line.startswith("$")]


class Block:
    """The block RAM by the data sheet's table of shapes: 2,048 halves of 9 bits, addresses of 14 bits."""

    def __init__(self, halves):
        self.halves, self.out = halves, {"A": 0, "B": 0}

    def port(self, addr, width):
        """Return (half, first bit, bits) of each part of a word, the lowest first."""
        if width < 9:
            return [(addr >> 3, (addr & 7) // width * width, width)]
        first = (addr >> 3) // (width // 9) * (width // 9)
        return [(first + k, 0, 9) for k in range(width // 9)]

    def read(self, addr, width):
        value, at = 0, 0
        for half, low, bits in self.port(addr, width):
            value |= (self.halves[half] >> low & (1 << bits) - 1) << at
            at += bits
        return value

    def write(self, addr, width, value):
        for k, (half, low, bits) in enumerate(self.port(addr, width)):
            if width < 18 or addr >> k & 1:
                mask = (1 << bits) - 1
                self.halves[half] = self.halves[half] & ~(mask << low) | (value >> 9 * k & mask) << low


def block_verilog(widths, mode, halves, reset="SYNC"):
    """Return ``dut``: one DP16KD, its ports in one vector."""
    inits = ", ".join(f".INITVAL_{k:02X}(320'h{sum((halves[32 * k + j] << 20 * (j // 2) + 9 * (j % 2)) for j in range(32)):x})"
                      for k in range(64))
    at, ports = 0, [".CLKA(clk)", ".CLKB(clk)"]
    for side in "AB":
        for name, bits in ((f"AD{side}", 14), (f"DI{side}", 18)):
            ports += [f".{name}{k}(in[{at + k}])" for k in range(bits)]
            at += bits
        ports += [f".WE{side}(in[{at}])", f".CE{side}(in[{at + 1}])", f".RST{side}(in[{at + 2}])", f".OCE{side}(1'b1)",
                  *(f".CS{side}{k}(1'b0)" for k in range(3))]
        at += 3
        ports += [f".DO{side}{k}(out[{k + 18 * (side == 'B')}])" for k in range(18)]
    return (f"module dut(input clk, input [{at - 1}:0] in, output [35:0] out);\n  DP16KD #(.DATA_WIDTH_A({widths[0]}), "
            f".DATA_WIDTH_B({widths[1]}), "
            f'.WRITEMODE_A("{mode}"), .WRITEMODE_B("{mode}"), .RESETMODE("{reset}"), {inits}) '
            f'block({", ".join(ports)});\nendmodule\n')


@pytest.mark.parametrize("mode", ["NORMAL", "WRITETHROUGH", "READBEFOREWRITE"])
@pytest.mark.parametrize("widths", [*((a, b) for a in WIDTHS for b in WIDTHS if (a + b) % 5 != 3), (36, 36), (36, 18), (36, 9)])
def test_block_ram_does_what_its_table_of_shapes_says(widths, mode, tmp_path):
    rng = random.Random(f"{widths}{mode}")
    if widths[0] == 36 and mode != "NORMAL":
        pytest.skip("the pair of ports knows one mode")
    halves = [rng.randrange(512) for _ in range(2048)]
    reset = "ASYNC" if widths[0] == widths[1] else "SYNC"
    verilog = block_verilog(widths, mode, halves, reset)
    block, words, wanted = Block(list(halves)), [], []
    for _ in range(400):
        word, at, accesses = 0, 0, []
        for side, width in zip("AB", widths, strict=True):
            addr = rng.randrange(64) if rng.random() < 0.8 else rng.randrange(1 << 14)
            accesses.append([side, width, addr, rng.randrange(1 << 18), rng.random() < 0.5, rng.random() < 0.8, rng.random() < 0.1])
        if accesses[0][2] >> 5 == accesses[1][2] >> 5:   # a clash, or not modelled
            accesses[1][4] = accesses[1][5] = False
        if widths[0] == 36:
            accesses[1][4] = False
        for _, _, addr, value, we, ce, rst in accesses:
            word |= (addr | value << 14 | we << 32 | ce << 33 | rst << 34) << at
            at += 35
        words.append(word)
        for side, *_, rst in accesses:
            if rst and reset == "ASYNC":                 # at once, whatever the clock does
                block.out[side] = 0
        if widths[1] == 36:
            wanted.append(block.out["B"])
        else:
            wanted.append((0 if widths[0] == 36 else block.out["A"]) | block.out["B"] << 18)
        outs = {}
        for side, width, addr, value, we, ce, rst in accesses:
            if widths[0] == 36 and side == "A":
                value |= accesses[1][3] << 18
            before = block.read(addr, width)
            if ce and we:
                block.write(addr, width, value)
            after = block.read(addr, width)
            if rst:
                outs[side] = 0
            elif ce and not we:
                outs[side] = before
            elif ce and mode != "NORMAL":
                outs[side] = after if mode == "WRITETHROUGH" else before
        block.out |= outs
    got = simulate(tmp_path, verilog, words, (70, 36))
    if widths[0] == 36 and widths[1] != 36:              # port A of a pair is not read
        got = [value >> 18 << 18 for value in got]
    assert got == wanted


def test_a_clash_of_the_ports_reads_what_is_surely_wrong(tmp_path):
    write, read = (5 << 4 | 3) | 0x2AAAA << 14 | 3 << 32, (5 << 4) << 35 | 1 << 68
    got = simulate(tmp_path, block_verilog((18, 18), "NORMAL", [0] * 2048), [write | read, 0, read, 0], (70, 36))
    assert [value >> 18 for value in got] == [0, 0x3FFFF, 0x3FFFF, 0x2AAAA]


class _Memory(wiring.Component):
    def __init__(self, width, depth, init, writes):
        self._width, self._depth, self._init, self._writes = width, depth, init, writes
        bits = (depth - 1).bit_length()
        super().__init__({"raddr": In(bits), "en": In(1), "waddr": In(bits), "we": In(1), "data": In(width), "q": Out(width)})

    def elaborate(self, platform):
        m = Module()
        style = "ram_style" if self._writes else "rom_style"
        m.submodules.memory = ram = memory.Memory(shape=unsigned(self._width), depth=self._depth,
                                                  init=self._init, attrs={style: "block"})
        read = ram.read_port()
        m.d.comb += [read.addr.eq(self.raddr), read.en.eq(self.en), self.q.eq(read.data)]
        if self._writes:
            write = ram.write_port()
            m.d.comb += [write.addr.eq(self.waddr), write.en.eq(self.we), write.data.eq(self.data)]
        return m


SHAPES = [*((width, depth) for depth, width in ECP5.block_shapes), (20, 600), (5, 3000), (72, 100), (13, 1500)]


@pytest.mark.parametrize("width, depth", SHAPES)
@pytest.mark.parametrize("writes", [False, True])
def test_memories_that_yosys_maps_keep_their_words(width, depth, writes, tmp_path):
    rng = random.Random(width * depth)
    content = [rng.randrange(1 << width) for _ in range(depth)]
    (tmp_path / "accel.il").write_text(rtlil.convert(_Memory(width, depth, content, writes), name="accel", emit_src=False))
    run_yosys("read_rtlil accel.il\nsetparam -set COLLISION_X_MASK 1'1 t:$memrd_v2 r:COLLISION_X_MASK=1'0 %i\nsynth_ecp5 -top "
              "accel\nwrite_verilog -noattr netlist.v", tmp_path / "yosys.log", tmp_path)
    netlist = (tmp_path / "netlist.v").read_text()
    assert 1 <= netlist.count("DP16KD #(") <= ECP5.blocks(width, depth)
    bits = (depth - 1).bit_length()
    verilog = f"""{netlist}
module dut(input clk, input [{2 * bits + width + 1}:0] in, output [{width - 1}:0] out);
  accel accel(.clk(clk), .rst(1'b0), .raddr(in[{bits - 1}:0]), .waddr(in[{2 * bits - 1}:{bits}]),
              .data(in[{2 * bits + width - 1}:{2 * bits}]), .en(in[{2 * bits + width}]), .we(in[{2 * bits + width + 1}]), .q(out));
endmodule
"""
    words, wanted, out = [], [], 0
    for cycle in range(600):
        raddr, waddr, data = rng.randrange(depth), rng.randrange(depth), rng.randrange(1 << width)
        en, we = cycle == 0 or rng.random() < 0.8, rng.random() < 0.6 and raddr != waddr
        words.append(raddr | waddr << bits | data << 2 * bits | en << 2 * bits + width | we << 2 * bits + width + 1)
        wanted.append(out)
        out = content[raddr] if en else out
        if we and writes:
            content[waddr] = data
    assert simulate(tmp_path, verilog, words, (2 * bits + width + 2, width))[1:] == wanted[1:]


def test_multiplier_multiplies(tmp_path):
    rng, corners = random.Random(3), [0, 1, 2, 0x1FFFF, 0x20000, 0x20001, 0x3FFFF]
    ports = [f".{side}{k}(in[{k + 18 * (side == 'B')}])" for side in "AB" for k in range(18)]
    ports += [".SIGNEDA(in[36])", ".SIGNEDB(in[37])", ".SOURCEA(1'b0)", ".SOURCEB(1'b0)", *(f".P{k}(out[{k}])" for k in range(36))]
    verilog = f"module dut(input clk, input [37:0] in, output [35:0] out);\n  MULT18X18D mult({', '.join(ports)});\nendmodule\n"
    cases = [(a, b, s) for a in corners for b in corners for s in range(4)]
    cases += [(rng.randrange(1 << 18), rng.randrange(1 << 18), rng.randrange(4)) for _ in range(500)]

    def value(code, signed):
        return code - (1 << 18) if signed and code >> 17 else code

    wanted = [value(a, s & 1) * value(b, s >> 1) % (1 << 36) for a, b, s in cases]
    assert simulate(tmp_path, verilog, [a | b << 18 | s << 36 for a, b, s in cases], (38, 36)) == wanted


def test_distributed_memory_reads_at_once_and_writes_at_the_edge(tmp_path):
    """Its proof by induction over 64 bits of state does not end, so it is simulated."""
    rng, words, wanted, inputs = random.Random(4), [15 - k for k in range(16)], [], []
    for _ in range(400):
        data, write, enable, read = rng.randrange(16), rng.randrange(16), rng.randrange(2), rng.randrange(16)
        inputs.append(data | write << 4 | read << 8 | enable << 12)
        wanted.append(words[read])
        if enable:
            words[write] = data
    verilog = ("module dut(input clk, input [12:0] in, output [3:0] out);\n  TRELLIS_DPR16X4 #(.INITVAL(64'h0123456789abcdef)) "
               "ram(.WCK(clk), .DI(in[3:0]), .WAD(in[7:4]), .RAD(in[11:8]), .WRE(in[12]), .DO(out));\nendmodule\n")
    assert simulate(tmp_path, verilog, inputs, (13, 4)) == wanted


@pytest.mark.parametrize("cell, parameters", [
    *(("LUT4", f"INIT 16'h{init:04x}") for init in (0x8000, 0xCAFE)), ("PFUMX", ""), ("L6MUX21", ""), ("INV", ""),
    *(("CCU2C", f'INIT0 16\'h{a:04x} -set INIT1 16\'h{b:04x} -set INJECT1_0 "{i}" -set INJECT1_1 "{j}"')
      for a, b, i, j in ((0x96AA, 0x96AA, "NO", "NO"), (0x1234, 0xBEEF, "YES", "NO"), (0x5A5A, 0xC33C, "NO", "YES"),
                         (0xF00D, 0x7E57, "YES", "YES"))),
    *(("TRELLIS_FF", f'CEMUX "{ce}" -set LSRMUX "{lsr}" -set REGSET "{value}" -set SRMODE "LSR_OVER_CE"')
      for ce, lsr, value in (("1", "LSR", "SET"), ("CE", "LSR", "RESET"), ("INV", "INV", "SET"), ("0", "LSR", "RESET"))),
])
def test_small_cells_equal_yosys_models(cell, parameters, tmp_path):
    setting = f"chparam -set {parameters} {cell}\n" if parameters else ""
    shutil.copy(CELLS, tmp_path / "cells.v")

    def one(source, name):
        return (f"{source}\n{setting}hierarchy -top {cell}\nproc\nmemory\nflatten\nopt_clean\nrename {cell} {name}\n"
                f"select -module {name}\nwrite_rtlil -selected {name}.il\nselect -clear\ndesign -reset\n")

    run_yosys(one("read_verilog cells.v", "ours") + one("read_verilog -DNO_INCLUDES +/lattice/cells_sim_ecp5.v", "theirs")
              + "read_rtlil ours.il\nread_rtlil theirs.il\nmiter -equiv -flatten -make_outputs ours theirs miter\nhierarchy "
              "-top miter\nmemory_map\nopt -full\nasync2sync\nsat -verify -prove trigger 0 -seq 1 -tempinduct -set-def-inputs "
              "-set-init-undef miter", tmp_path / "yosys.log", tmp_path)


def test_a_mode_without_model_is_an_error(tmp_path):
    verilog = block_verilog((9, 9), "NORMAL", [0] * 2048).replace(".DATA_WIDTH_A(9)", '.DATA_WIDTH_A(9), .REGMODE_B("OUTREG")')
    with pytest.raises(subprocess.CalledProcessError) as caught:
        simulate(tmp_path, verilog, [0], (70, 36))
    assert "without_output_register" in caught.value.stderr


def test_the_equality_check_can_fail(tmp_path):
    shutil.copy(CELLS, tmp_path / "cells.v")
    with pytest.raises(ToolError):
        run_yosys("read_verilog cells.v\nhierarchy -top LUT4\nrename LUT4 ours\n"
                  "read_verilog -overwrite -DNO_INCLUDES +/lattice/cells_sim_ecp5.v\n"
                  "chparam -set INIT 16'h0001 LUT4\nproc\nflatten\nmiter -equiv -flatten ours LUT4 miter\nhierarchy -top miter\n"
                  "sat -verify -prove trigger 0 -set-def-inputs miter", tmp_path / "yosys.log", tmp_path)
