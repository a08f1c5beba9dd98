"""The accelerator's edge: AXI4-Stream style frames to bare streams and back, so that no stage sees a wrong length."""

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from .common import Block, Cost, check, check_int, lanes_stream
from .loops import LoopNest

__all__ = ["InputGuard", "FlagQueue", "OutputFramer", "byte_width"]


def byte_width(shape: Shape) -> int:
    """Return the bytes that one value takes on the bus."""
    return -(-shape.width // 8)


class InputGuard(Block):
    """Make every frame whole: fill short ones, drop surplus beats until ``tlast``, bring codes into range.

    Parameters
    ----------
    code_range : (int, int)
        Inclusive range of the codes; values outside are clamped to it.
    lanes : int
        Codes a beat, each in whole bytes, the first in the low byte.
    beats : int
        Beats a frame.

    Members
    -------
    tdata, tvalid, tready, tlast
        Bus side.
    o : stream of ``lanes`` codes
        Exactly ``beats`` beats for every frame that came in.
    flag : stream of one bit
        One beat a frame: 1 if the frame was too short or too long.
    begun : Out(1)
        Part of a frame, and not all of it, has come in.
    """

    latency = 0

    def __init__(self, code_range: tuple[int, int], shape: Shape, lanes: int, beats: int):
        check_int("Lanes", lanes)
        check_int("Beats", beats)
        check(code_range[0] <= code_range[1], f"Code range must not be empty, not {code_range!r}")
        self.code_range, self.shape, self.lanes, self.beats = code_range, shape, lanes, beats
        self.bytes = lanes * byte_width(shape)
        super().__init__({
            "tdata": In(8 * self.bytes), "tvalid": In(1), "tready": Out(1), "tlast": In(1),
            "o": Out(lanes_stream(shape, lanes)), "flag": Out(stream.Signature(1)), "begun": Out(1),
        })

    @property
    def cost(self) -> Cost:
        """Logic cells."""
        return Cost(lc=25 + 2 * self.beats.bit_length() + (self.shape.width + (self.shape.width % 8 > 0)) * self.lanes)

    def elaborate(self, platform):
        m = Module()
        m.submodules.count = count = LoopNest([self.beats])
        low, high = self.code_range
        fill, drop, final = Signal(), Signal(), Signal()
        pitch = 8 * byte_width(self.shape)               # clamped before it is cut to the code's width
        full_low, full_high = (-(1 << pitch - 1), (1 << pitch - 1) - 1) if self.shape.signed else (0, (1 << pitch) - 1)
        for lane in range(self.lanes):
            raw = self.tdata[lane * pitch:(lane + 1) * pitch]
            code = raw.as_signed() if self.shape.signed else raw
            if high < full_high:
                code = Mux(code > high, high, code)
            if low > full_low:
                code = Mux(code < low, low, code)
            m.d.comb += self.o.payload[lane].eq(Mux(fill, max(low, min(high, 0)), code))
        # The last beat leaves together with the frame's flag: both sides must be ready.
        m.d.comb += final.eq(count.last[0])
        m.d.comb += [
            self.o.valid.eq((fill | (self.tvalid & ~drop)) & (~final | self.flag.ready)),
            self.flag.payload.eq(fill | ~self.tlast),
            self.flag.valid.eq((fill | (self.tvalid & ~drop)) & final & self.o.ready),
            self.tready.eq(drop | (~fill & self.o.ready & (~final | self.flag.ready))),
            count.en.eq(self.o.valid & self.o.ready), self.begun.eq(~count.first[0]),
        ]
        with m.If(drop):
            with m.If(self.tvalid & self.tlast):
                m.d.sync += drop.eq(0)
        with m.Elif(count.en):
            with m.If(final):
                m.d.sync += [fill.eq(0), drop.eq(~fill & ~self.tlast)]
            with m.Elif(~fill):
                m.d.sync += fill.eq(self.tlast)
        return m


class FlagQueue(Block):
    """Carry one bit a frame past the stages: a small queue in registers.

    Parameters
    ----------
    depth : int
        Frames that can be under way; when it is full the guard waits.

    Members
    -------
    i, o : streams of one bit
    """

    latency = 1

    def __init__(self, depth: int):
        self.depth = check_int("Depth", depth)
        super().__init__({"i": In(stream.Signature(1)), "o": Out(stream.Signature(1))})

    @property
    def cost(self) -> Cost:
        """Logic cells."""
        return Cost(lc=1.5 * self.depth + 3 * self.depth.bit_length())

    def elaborate(self, platform):
        m = Module()
        # Every flag moves the older ones up; `held` tells where the oldest is.
        bits, held = Signal(self.depth, reset_less=True), Signal(range(self.depth + 1))
        put, take = Signal(), Signal()
        m.d.comb += [put.eq(self.i.valid & self.i.ready), take.eq(self.o.valid & self.o.ready), self.i.ready.eq(held != self.depth),
                     self.o.valid.eq(held != 0), self.o.payload.eq(Cat(Const(0, 1), bits).bit_select(held, 1))]
        with m.If(put):
            m.d.sync += bits.eq(Cat(self.i.payload, bits))
        with m.If(put ^ take):
            m.d.sync += held.eq(held + Mux(put, 1, -1))
        return m


class OutputFramer(Block):
    """Mark the end of each result frame, and whether its input frame was whole.

    Parameters
    ----------
    shape : Shape
        Of one result.
    beats : int
        Results a frame, one a beat, sign-extended to whole bytes.

    Members
    -------
    open : In(1)
        Results may leave: their frame has begun to come in.
    i : stream of one result
    flag : stream of one bit, one beat a frame
    tdata, tvalid, tready, tlast, tuser
        Bus side; ``tuser`` counts with ``tlast``.
    """

    latency = 0

    def __init__(self, shape: Shape, beats: int):
        self.shape, self.beats = shape, check_int("Beats", beats)
        self.bytes = byte_width(shape)
        super().__init__({
            "open": In(1, init=1), "i": In(lanes_stream(shape, 1)), "flag": In(stream.Signature(1)),
            "tdata": Out(8 * self.bytes), "tvalid": Out(1), "tready": In(1), "tlast": Out(1), "tuser": Out(1),
        })

    @property
    def cost(self) -> Cost:
        """Logic cells."""
        return Cost(lc=6 + 2 * self.beats.bit_length())

    def elaborate(self, platform):
        m = Module()
        m.submodules.count = count = LoopNest([self.beats])
        final = count.last[0]
        # The last beat waits for the flag: a result may be complete before its whole frame has come in.
        m.d.comb += [
            self.tdata.eq(self.i.payload[0]), self.tlast.eq(final), self.tuser.eq(final & self.flag.payload & self.flag.valid),
            self.tvalid.eq(self.i.valid & self.open & (~final | self.flag.valid)),
            self.i.ready.eq(self.tready & self.open & (~final | self.flag.valid)),
            self.flag.ready.eq(self.tready & self.i.valid & final), count.en.eq(self.tvalid & self.tready),
        ]
        return m
