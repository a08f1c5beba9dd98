# amaranth: UnusedElaboratable=no
"""A toy core that obeys the frame contract, the shell around it, and a serial port that steps the simulator."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hwq.boards.protocol import Identity
from hwq.boards.shell import Shell, core_ports

__all__ = ["ToyCore", "ShellWithCore", "SimPort", "PARAMETERS", "HASH"]

HASH = bytes.fromhex("c0db00ffdcdd0102")                 # bytes that must be escaped among them
PARAMETERS = dict(in_bytes=2, in_beats=3, out_bytes=2, out_beats=2, model_hash=HASH, clock_hz=4_000_000,
                  baud=1_000_000)


class ToyCore(wiring.Component):
    """Sum all bytes of a frame; result byte k is the sum plus k.

    ``wait`` clocks pass before the result. With ``eager`` the first beat of a frame is taken only when the result of it
    was taken: a core whose result comes before its input ends.
    """

    def __init__(self, *, in_bytes, in_beats, out_bytes, out_beats, wait=3, eager=False):
        self._shape = (in_bytes, in_beats, out_bytes, out_beats)
        self._wait, self._eager = wait, eager
        super().__init__({name: (In if way == "i" else Out)(width)
                          for name, (way, width) in core_ports(in_bytes, out_bytes).items()})

    def model(self, payload: bytes) -> bytes:
        return bytes((sum(payload) + k) & 0xFF for k in range(self._shape[2] * self._shape[3]))

    def elaborate(self, platform):
        m = Module()
        in_bytes, in_beats, out_bytes, out_beats = self._shape
        total = Signal(8)
        beat = Signal(range(max(in_beats, out_beats) + 2))
        wrong = Signal()
        timer = Signal(range(self._wait + 1), init=self._wait)
        m.d.comb += self.m_axis_tdata.eq(sum(
            (((total + beat * out_bytes + k) & 0xFF) << 8 * k for k in range(1, out_bytes)), (total + beat * out_bytes)
            & 0xFF))
        with m.FSM():
            with m.State("START"):                       # the core's own reset after power-on
                m.d.sync += timer.eq(timer - 1)
                with m.If(timer == 0):
                    m.next = "SEND" if self._eager else "TAKE"
            with m.State("TAKE"):
                m.d.comb += self.s_axis_tready.eq(1)
                m.d.sync += timer.eq(self._wait)
                with m.If(self.s_axis_tvalid):
                    with m.If(beat != in_beats):
                        m.d.sync += [beat.eq(beat + 1),
                                     total.eq(sum((self.s_axis_tdata.word_select(k, 8) for k in range(1, in_bytes)),
                                                  total + self.s_axis_tdata[:8]))]
                    with m.If(self.s_axis_tlast):
                        m.d.sync += [beat.eq(0), wrong.eq(beat != in_beats - 1)]
                        m.next = "TAKE" if self._eager else "WAIT"
                        if self._eager:
                            m.d.sync += total.eq(0)
                            m.next = "SEND"
            with m.State("WAIT"):
                m.d.sync += timer.eq(timer - 1)
                with m.If(timer == 0):
                    m.next = "SEND"
            with m.State("SEND"):
                if self._eager:
                    m.d.comb += self.m_axis_tvalid.eq(self.s_axis_tvalid)
                else:
                    m.d.comb += self.m_axis_tvalid.eq(1)
                m.d.comb += [self.m_axis_tlast.eq(beat == out_beats - 1),
                             self.m_axis_tuser.eq(wrong & self.m_axis_tlast)]
                with m.If(self.m_axis_tvalid & self.m_axis_tready):
                    m.d.sync += beat.eq(beat + 1)
                    with m.If(self.m_axis_tlast):
                        m.d.sync += [beat.eq(0), total.eq(0)]
                        m.next = "TAKE"
        return m


class ShellWithCore(wiring.Component):
    """The shell and a toy core as one component: amaranth's simulator ignores instances."""

    def __init__(self, *, wait=3, eager=False, **parameters):
        self.shell = Shell(**parameters)
        shape = {key: parameters[key] for key in ("in_bytes", "in_beats", "out_bytes", "out_beats")}
        self.core = ToyCore(**shape, wait=wait, eager=eager)
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.shell, m.submodules.core = shell, core = self.shell, self.core
        m.d.comb += [shell.rx.eq(self.rx), self.tx.eq(shell.tx)]
        for name, (way, _) in core_ports(shell.identity.in_bytes, shell.identity.out_bytes).items():
            source, sink = (shell, core) if way == "i" else (core, shell)
            m.d.comb += getattr(sink, name).eq(getattr(source, name))
        return m


class SimPort:
    """A serial port whose other end is a simulated shell; time passes only in `read` and `wait`.

    Every wait is bounded: ``patience`` clocks without a byte are the time-out.
    """

    def __init__(self, patience=800, wait=3, eager=False, **changes):
        parameters = {**PARAMETERS, **changes}
        self.dut = ShellWithCore(wait=wait, eager=eager, **parameters)
        self.divisor = self.dut.shell.divisor
        self.identity: Identity = self.dut.shell.identity
        self.patience = patience
        self.received = bytearray()
        self._queue: list[tuple[int, ...]] = []
        self._sim = Simulator(self.dut)
        self._sim.add_clock(1e-6)
        self._sim.add_testbench(self._drive, background=True)
        self._sim.add_testbench(self._watch, background=True)
        self._now = 0

    async def _drive(self, ctx):
        while True:
            if not self._queue:
                await ctx.tick()
                continue
            for level in self._queue.pop(0):
                ctx.set(self.dut.rx, level)
                for _ in range(self.divisor):
                    await ctx.tick()

    async def _watch(self, ctx):
        while True:
            if ctx.get(self.dut.tx):
                await ctx.tick()
                continue
            for _ in range(self.divisor // 2):
                await ctx.tick()
            assert ctx.get(self.dut.tx) == 0
            value = 0
            for bit in range(9):
                for _ in range(self.divisor):
                    await ctx.tick()
                value |= ctx.get(self.dut.tx) << bit
            assert value & 0x100, "stop bit missing"
            self.received.append(value & 0xFF)

    def wait(self, clocks):
        self._now += clocks
        self._sim.run_until(self._now * 1e-6)

    def write(self, data):
        for byte in data:
            self.write_bits((0, *(byte >> k & 1 for k in range(8)), 1))

    def write_bits(self, bits):
        self._queue.append(bits)

    def read(self, size):
        left = self.patience
        while not self.received and left > 0:
            self.wait(40)
            if not self._queue:
                left -= 40
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    def quiet(self):
        """Let the line fall silent and forget what came."""
        while self.read(1 << 16):
            pass

    def reset_input_buffer(self):
        self.received.clear()

    def close(self):
        pass
