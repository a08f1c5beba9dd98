# amaranth: UnusedElaboratable=no
"""Two products a multiplier block: the behaviour that is simulated, and the cell that is built, by Yosys' model of it."""

import shutil

import numpy as np
import pytest
from amaranth.hdl import Shape
from amaranth.sim import Simulator

from hwq.errors import ModelError
from hwq.rtl.common import pack_lanes
from hwq.rtl.product_pair import ProductPair
from hwq.rtl.rtlil import rtlil_text
from hwq.toolchain import ice40_cells, run_yosys

from ..sim.test_ecp5_cells import simulate

SHAPES = [(Shape(8), Shape(8, True)), (Shape(8, True), Shape(8, True)), (Shape(4), Shape(4, True)),
          (Shape(5, True), Shape(2)), (Shape(7), Shape(8))]


def factors(shape, rng, count=200):
    """Return random factors (count, 2), the least and the greatest ones first."""
    low, high = (-(1 << shape.width - 1), (1 << shape.width - 1) - 1) if shape.signed else (0, (1 << shape.width) - 1)
    values = rng.integers(low, high + 1, (count, 2))
    values[:4] = [[low, high], [high, low], [low, low], [high, high]]
    return values


def vectors(a_shape, b_shape):
    """Return factors and enable of each cycle, and the products that stand at the output after it (None: nothing yet)."""
    rng = np.random.default_rng(1)
    a, b = factors(a_shape, rng), factors(b_shape, rng)[::-1]
    b[:4] = a[:4] if b_shape == a_shape else factors(b_shape, rng)[:4]
    enabled, first, second, after = rng.random(len(a)) < 0.7, None, None, []
    for k in range(len(a)):
        if enabled[k]:
            first, second = ProductPair(a_shape, b_shape).model(a[k], b[k]), first
        after.append(None if second is None else pack_lanes(second, 16))
    return [pack_lanes(row, a_shape.width) for row in a], [pack_lanes(row, b_shape.width) for row in b], enabled.astype(int), after


@pytest.mark.parametrize("a_shape, b_shape", SHAPES)
def test_behaviour(a_shape, b_shape):
    dut = ProductPair(a_shape, b_shape)

    async def bench(ctx):
        for a, b, enable, want in zip(*vectors(a_shape, b_shape), strict=True):
            ctx.set(dut.a.as_value(), a)
            ctx.set(dut.b.as_value(), b)
            ctx.set(dut.en, int(enable))
            await ctx.tick()
            assert want is None or ctx.get(dut.p.as_value()) == want

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


@pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog")
@pytest.mark.parametrize("a_shape, b_shape", SHAPES)
def test_cell(a_shape, b_shape, tmp_path):
    (tmp_path / "accel.il").write_text(rtlil_text(ProductPair(a_shape, b_shape), "accel"))
    run_yosys("read_rtlil accel.il\nhierarchy -top accel\nproc\nopt_clean\nwrite_verilog -noattr accel.v\n",
              tmp_path / "log", tmp_path)
    verilog = (tmp_path / "accel.v").read_text()
    assert verilog.count("SB_MAC16") == 1 and "*" not in verilog.replace("/*", "").replace("*/", "")
    aw, bw = 2 * a_shape.width, 2 * b_shape.width
    verilog += (f"module dut(input clk, input [{aw + bw}:0] in, output [31:0] out);\n"
                "reg [1:0] full = 0; wire [31:0] p; assign out = full == 3 ? p : 0;\n"            # X until both registers are
                "always @(posedge clk) if (in[0]) full <= full << 1 | 1;\n"
                f"accel accel(.clk(clk), .rst(1'b0), .en(in[0]), .a(in[{aw}:1]), .b(in[{aw + bw}:{aw + 1}]), .p(p));\nendmodule\n")
    a, b, enabled, after = vectors(a_shape, b_shape)
    words = [int(e) | x << 1 | y << 1 + aw for e, x, y in zip(enabled, a, b, strict=True)]
    got = simulate(tmp_path, verilog, words, (1 + aw + bw, 32), ice40_cells())
    start = next(k for k, want in enumerate(after) if want is not None)
    assert got[start + 1:] == after[start:-1]                              # they are sampled before the next edge


def test_refused():
    with pytest.raises(ModelError, match="Factor a must have 1 to 8 bits, not 9"):
        ProductPair(Shape(9), Shape(4, True))
    with pytest.raises(ModelError, match="Unsigned factors must have at most 15 bits together, not 16"):
        ProductPair(Shape(8), Shape(8))
