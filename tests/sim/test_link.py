# amaranth: UnusedElaboratable=no
"""The simulated board: bytes in, bytes out, asleep in between."""

import os
import subprocess
import time

import pytest
from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Module
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hwq.boards.uart import UartRx, UartTx
from hwq.errors import FormatError
from hwq.sim.link import compile_link
from hwq.toolchain import run_yosys

from .conftest import need


class Echo(wiring.Component):
    """Sends back each byte plus one."""

    clk: In(1)
    rx: In(1)
    tx: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = domain = ClockDomain(reset_less=True)
        m.submodules.rx = rx = UartRx(divisor=5)
        m.submodules.tx = tx = UartTx(divisor=5)
        # The sender needs a cycle more than ten bits for a byte.
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=8, depth=64)
        m.d.comb += [domain.clk.eq(self.clk), rx.rx.eq(self.rx), self.tx.eq(tx.tx),
                     fifo.w_data.eq(rx.o.payload + 1), fifo.w_en.eq(rx.o.valid), rx.o.ready.eq(fifo.w_rdy),
                     tx.i.payload.eq(fifo.r_data), tx.i.valid.eq(fifo.r_rdy), fifo.r_en.eq(tx.i.ready)]
        return m


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    need("verilator", "c++", "yosys")
    folder = tmp_path_factory.mktemp("link")
    (folder / "top.il").write_text(rtlil.convert(Echo(), name="top", emit_src=False))
    run_yosys("read_rtlil top.il\nproc\nopt_clean\nwrite_verilog -noattr link_sim.v", folder / "logs" / "v.log", folder)
    return compile_link([folder / "link_sim.v"], folder, divisor=5, idle=2000)


def test_all_bytes_then_end(program):
    done = subprocess.run([program], input=bytes(range(256)), stdout=subprocess.PIPE, timeout=20)
    assert done.returncode == 0 and done.stdout == bytes((k + 1) & 255 for k in range(256))


def test_sleeps_when_idle(program):
    child = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    try:
        for _ in range(2):                               # answers although the input stays open; wakes again
            child.stdin.write(b"\x41")
            assert os.read(child.stdout.fileno(), 1) == b"\x42"
            time.sleep(0.3)
            begin = _cpu(child.pid)
            time.sleep(0.3)
            assert _cpu(child.pid) - begin <= 1          # hundredths of a second
    finally:
        child.stdin.close()
        assert child.wait(10) == 0
        child.stdout.close()


def _cpu(pid):
    with open(f"/proc/{pid}/stat") as stream:
        return sum(map(int, stream.read().rsplit(")", 1)[1].split()[11:13]))


def test_numbers_out_of_range(tmp_path):
    with pytest.raises(FormatError, match="Divisor must be at least 4 and idle at least 1, not 3 and 10"):
        compile_link([tmp_path / "top.v"], tmp_path, divisor=3, idle=10)
