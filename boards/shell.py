"""The board's link shell: bytes of a UART on one side, the core's two AXI4-Streams on the other."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..errors import FormatError
from .protocol import END, ESC, ESC_END, ESC_ESC, MAX_FRAME_BYTES, RESPONSE_BIT, Command, Identity, Status
from .uart import UartRx, UartTx, uart_divisor

__all__ = ["Shell", "core_ports"]

_HEADER = 3                                              # bytes: type and length
_CRC = 2
_STATES = ("GET", "LOOK", "ACT", "SETTLE", "TAKE", "FEED", "SHIFT", "LAST", "WEIGH", "JUDGE", "DRAIN", "LOAD", "COPY", "COUNT",
           "STUFF", "SEND", "NEXT", "REST")


def core_ports(in_bytes: int, out_bytes: int) -> dict[str, tuple[str, int]]:
    """Return the core's stream ports: name -> (direction seen from the core, "i" or "o"; width in bits)."""
    return {
        "s_axis_tdata": ("i", 8 * in_bytes), "s_axis_tvalid": ("i", 1), "s_axis_tready": ("o", 1),
        "s_axis_tlast": ("i", 1),
        "m_axis_tdata": ("o", 8 * out_bytes), "m_axis_tvalid": ("o", 1), "m_axis_tready": ("i", 1),
        "m_axis_tlast": ("o", 1), "m_axis_tuser": ("o", 1),
    }


def _crc_step(crc, byte):
    """Return the next state of `protocol.crc16`, two LUT levels deep."""
    low = crc[:8] ^ byte
    t = Cat(low[:4], low[4:] ^ low[:4])
    return (crc >> 8) ^ (t << 8) ^ (t << 3) ^ (t >> 4)


class Shell(wiring.Component):
    """Answer the requests of `protocol`, one at a time.

    One byte register, one CRC and one state machine serve both directions, because the link is half duplex: from the END
    of a request until the answer is sent, at most one received byte is kept, and the others are lost (the packet they
    belong to is then answered with OVERRUN). No byte sequence stops the shell; it is ready for a request as soon as the
    answer to the one before is out.

    The payload of INFER goes to the core while it arrives. Behind the assembled beat stand two more bytes, so that the
    last beat carries ``tlast`` and the CRC never reaches the core. When the request turns out bad after the core got any
    of it, the core still gets its ``tlast``, and its one result is drained before the error is sent. Only a good
    request's result is read for the answer, hence after the request's end: a core that stalls its input until its output
    is taken, or that needs longer for a byte than the line (10 ``divisor`` clocks), makes the request end in OVERRUN.

    Parameters
    ----------
    in_bytes, in_beats, out_bytes, out_beats : int
        Bytes a beat and beats a frame, into the core and out of it; a frame has at most 65535 bytes.
    model_hash : bytes
        8 bytes that name the model.
    clock_hz : int
        Clock in Hz.
    baud : int
        Line rate; see `uart_divisor`.

    Members
    -------
    rx : ``In(1)``, tx : ``Out(1)``
        The line, high when idle.
    s_axis_tdata : ``Out(8 * in_bytes)``, s_axis_tvalid : ``Out(1)``, s_axis_tready : ``In(1)``, s_axis_tlast : ``Out(1)``
        Frames to the core, first byte in the lowest lane. All from flip-flops.
    m_axis_tdata : ``In(8 * out_bytes)``, m_axis_tvalid : ``In(1)``, m_axis_tready : ``Out(1)``,
    m_axis_tlast : ``In(1)``, m_axis_tuser : ``In(1)``
        Results from the core; ``tuser`` with ``tlast`` says that the frame had a wrong length.

    Raises
    ------
    FormatError
        A parameter is out of range.
    """

    def __init__(self, *, in_bytes: int, in_beats: int, out_bytes: int, out_beats: int, model_hash: bytes,
                 clock_hz: int, baud: int):
        for name, value in (("in_bytes", in_bytes), ("in_beats", in_beats), ("out_bytes", out_bytes),
                            ("out_beats", out_beats)):
            if not isinstance(value, int) or value < 1:
                raise FormatError(f"Shell {name} must be a positive integer, not {value!r}")
        for name, size in (("An input", in_bytes * in_beats), ("A result", out_bytes * out_beats)):
            if size > MAX_FRAME_BYTES:
                raise FormatError(f"{name} frame must have at most {MAX_FRAME_BYTES} bytes on the link, not {size}")
        if not isinstance(model_hash, bytes) or len(model_hash) != 8:
            raise FormatError(f"Shell model_hash must be 8 bytes, not {model_hash!r}")
        if not isinstance(clock_hz, int) or not 0 < clock_hz < 1 << 32:
            raise FormatError(f"Shell clock_hz must be a positive 32-bit integer, not {clock_hz!r}")
        self.divisor = uart_divisor(clock_hz, baud)
        self.identity = Identity(model_hash, in_bytes, in_beats, out_bytes, out_beats, clock_hz)
        flipped = {name: (Out if direction == "i" else In)(width)
                   for name, (direction, width) in core_ports(in_bytes, out_bytes).items()}
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), **flipped})

    def elaborate(self, platform):
        m = Module()
        m.submodules.uart_rx = uart_rx = UartRx(divisor=self.divisor)
        m.submodules.uart_tx = uart_tx = UartTx(divisor=self.divisor)
        m.d.comb += [uart_rx.rx.eq(self.rx), self.tx.eq(uart_tx.tx)]

        # The byte at hand, what it is (a clock later), and the CRC over the packet so far.
        byte = Signal(8)
        is_end, is_esc, is_escaped = Signal(), Signal(), Signal()
        crc = Signal(16, init=0xFFFF)
        crc_good = Signal()
        m.d.sync += [is_end.eq(byte == END), is_esc.eq(byte == ESC),
                     is_escaped.eq((byte == ESC_END) | (byte == ESC_ESC)), crc_good.eq(crc == 0)]
        m.d.comb += uart_tx.i.payload.eq(byte)

        # The request: type, place in the header, faults.
        kind = Signal(8)
        place = Signal(range(_HEADER + 1))
        escaped = Signal()
        length_good = Signal()
        framing, overrun = Signal(), Signal()
        status = Signal(3)
        identify, infer = Signal(), Signal()
        m.d.sync += [identify.eq((kind & 0x8F) == Command.IDENTIFY), infer.eq((kind & 0x8F) == Command.INFER)]

        # Payload and CRC bytes pass through a line of one beat and two bytes; the oldest bytes are the beat.
        in_bytes, out_bytes = self.identity.in_bytes, self.identity.out_bytes
        line = Signal(8 * (in_bytes + _CRC))
        fill = Signal(range(in_bytes + _CRC + 1))        # bytes in the line
        feeding = Signal()                               # this packet's payload goes to the core
        owed = Signal()                                  # the core has a frame whose result was not seen to its end
        begun = Signal()                                 # the core has some of this frame
        m.d.comb += self.s_axis_tdata.eq(line)

        # Decisions are registered where their inputs rest for a clock: the state machine alone sets the speed.
        expected = in_bytes * self.identity.in_beats
        low_good, high_good, full, some, exact = Signal(), Signal(), Signal(), Signal(), Signal()
        verdict = Signal(3)
        m.d.sync += [
            low_good.eq(byte == Mux(infer, expected & 0xFF, 0)), high_good.eq(byte == Mux(infer, expected >> 8, 0)),
            full.eq(feeding & (fill == in_bytes + _CRC)), some.eq(feeding & (fill > _CRC)),
            exact.eq(fill == Mux(infer, in_bytes + _CRC, _CRC)),
            verdict.eq(
                Mux(overrun, Status.OVERRUN, Mux(framing, Status.FRAMING, Mux(~crc_good, Status.BAD_CRC,
                Mux(~(identify | infer), Status.UNKNOWN_COMMAND, Mux(length_good, Status.OK, Status.BAD_LENGTH)))))),
        ]
        with m.If(self.s_axis_tready):
            m.d.sync += self.s_axis_tvalid.eq(0)
        ended = Signal()                                 # the last beat of the core's result passes
        m.d.comb += ended.eq(self.m_axis_tvalid & self.m_axis_tready & self.m_axis_tlast)
        with m.If(ended):
            m.d.sync += owed.eq(0)

        def offer(last):
            m.d.sync += [self.s_axis_tvalid.eq(1), self.s_axis_tlast.eq(last), begun.eq(1)]
            with m.If(~begun):
                m.d.sync += owed.eq(1)

        # The answer: which field, which of its bytes.
        field = Signal(3)
        identity = self.identity.pack()
        index = Signal(range(len(identity)))
        lane = Signal(range(out_bytes))
        last, user = Signal(), Signal()                  # of the payload byte at hand; the core's fault with it
        was_end = Signal()

        reply = Signal(8)
        reply_last, reply_user = Signal(), Signal()
        waiting = Signal()
        size = Mux(status != 0, 0, Mux(infer, out_bytes * self.identity.out_beats, len(identity)))
        m.d.comb += waiting.eq((field == 3) & infer & ~self.m_axis_tvalid)
        with m.Switch(field):
            with m.Case(0):
                m.d.sync += reply.eq(kind | RESPONSE_BIT)
            with m.Case(1):
                m.d.sync += reply.eq(size[:8])
            with m.Case(2):
                m.d.sync += reply.eq(size[8:])
            with m.Case(3):
                with m.If(infer):
                    m.d.sync += reply.eq(self.m_axis_tdata.word_select(lane, 8))
                with m.Else():
                    m.d.sync += reply.eq(Cat(
                        Const(sum((value >> bit & 1) << at for at, value in enumerate(identity)), 32)
                        .bit_select(index, 1) for bit in range(8)))
            with m.Case(4):
                m.d.sync += reply.eq(status)
            with m.Case(5, 6):
                m.d.sync += reply.eq(crc[:8])            # taken in again, it brings the high byte down
            with m.Default():
                m.d.sync += reply.eq(END)
        m.d.sync += reply_last.eq(Mux(infer, self.m_axis_tlast & (lane == out_bytes - 1), index == len(identity) - 1))
        m.d.sync += reply_user.eq(self.m_axis_tuser & infer)

        # One bit a state: decoding a binary number would cost a third of the speed on a slow part.
        state, following = Signal(len(_STATES), init=1), Signal(len(_STATES))
        m.d.sync += state.eq(following)

        def at(name):
            return m.If(state[_STATES.index(name)])

        def go(name):
            m.d.comb += following[_STATES.index(name)].eq(1)

        with at("GET"):
            with m.If(uart_rx.o.valid):
                m.d.comb += uart_rx.o.ready.eq(1)
                m.d.sync += byte.eq(uart_rx.o.payload)
                go("LOOK")
            with m.Else():
                go("GET")
        with at("LOOK"):
            go("ACT")
        with at("ACT"):
            m.d.sync += escaped.eq(is_esc)
            with m.If(is_end):
                with m.If(escaped):
                    m.d.sync += framing.eq(1)
                go("LAST")
            with m.Elif(escaped):
                m.d.sync += [escaped.eq(0), byte.eq(Mux(byte[0], ESC, END))]
                with m.If(~is_escaped):
                    m.d.sync += framing.eq(1)
                go("SETTLE")
            with m.Elif(is_esc):
                go("GET")
            with m.Else():
                go("TAKE")
        with at("SETTLE"):
            go("TAKE")
        with at("TAKE"):
            m.d.sync += crc.eq(_crc_step(crc, byte))
            with m.Switch(place):
                with m.Case(0):
                    m.d.sync += [kind.eq(byte), place.eq(1)]
                    go("GET")
                with m.Case(1):
                    m.d.sync += [length_good.eq(low_good), place.eq(2)]
                    go("GET")
                with m.Case(2):
                    m.d.sync += [length_good.eq(length_good & high_good), place.eq(3),
                                 feeding.eq(length_good & high_good & infer)]
                    go("GET")
                with m.Default():
                    with m.If(full):
                        offer(0)
                        m.d.sync += fill.eq(_CRC)
                        go("FEED")
                    with m.Else():
                        go("SHIFT")
        with at("FEED"):
            with m.If(overrun):                          # the core may wait for us: take its result, it is void
                m.d.sync += self.m_axis_tready.eq(owed & ~ended)
            with m.If(~self.s_axis_tvalid):
                go("SHIFT")
            with m.Else():
                go("FEED")
        with at("SHIFT"):
            m.d.sync += line.eq(Cat(line[8:], byte))
            with m.If(fill != in_bytes + _CRC):
                m.d.sync += fill.eq(fill + 1)
            go("GET")

        # END of a request: a partial beat is sent too, for the core must see its tlast.
        with at("LAST"):
            with m.If(some):
                offer(1)
            m.d.sync += length_good.eq(length_good & exact)
            go("WEIGH")
        with at("WEIGH"):                                # `verdict` becomes good in this clock
            go("JUDGE")
        with at("JUDGE"):
            m.d.sync += [framing.eq(0), overrun.eq(0), crc.eq(0xFFFF), place.eq(0), fill.eq(0),
                         field.eq(0), index.eq(0), lane.eq(0), last.eq(0)]
            m.d.sync += status.eq(verdict)
            with m.If(place == _HEADER):
                go("DRAIN")
            with m.Else():                               # noise
                go("GET")
        with at("DRAIN"):
            with m.If((status == Status.OK) | ~owed):
                go("LOAD")
            with m.Else():
                m.d.sync += self.m_axis_tready.eq(~ended)
                go("DRAIN")

        # The answer, field by field: type, length, length, payload, status, CRC, CRC, END.
        with at("LOAD"):                                 # `reply` becomes good in this clock
            with m.If(waiting):
                go("LOAD")
            with m.Else():
                go("COPY")
        with at("COPY"):
            m.d.sync += [byte.eq(reply), last.eq(reply_last), user.eq(reply_user)]
            with m.If(field == 3):
                m.d.sync += [index.eq(index + 1), lane.eq(Mux(lane == out_bytes - 1, 0, lane + 1))]
                with m.If(infer):
                    m.d.sync += self.m_axis_tready.eq(lane == out_bytes - 1)
            go("COUNT")
        with at("COUNT"):
            # A beat that was read is taken in this clock: ready lasts one clock, and valid stays (stream rule).
            m.d.sync += self.m_axis_tready.eq(0)
            m.d.sync += crc.eq(_crc_step(crc, byte))
            go("STUFF")
        with at("STUFF"):
            m.d.sync += was_end.eq(is_end)
            with m.If((is_end | is_esc) & (field != 7)):
                m.d.sync += [byte.eq(ESC), escaped.eq(1)]
            go("SEND")
        with at("SEND"):
            m.d.comb += uart_tx.i.valid.eq(1)
            with m.If(uart_tx.i.ready):
                go("NEXT")
            with m.Else():
                go("SEND")
        with at("NEXT"):
            m.d.sync += escaped.eq(0)
            with m.If(escaped):
                m.d.sync += byte.eq(Mux(was_end, ESC_END, ESC_ESC))
                go("SEND")
            with m.Elif(field == 7):
                m.d.sync += [crc.eq(0xFFFF), begun.eq(0)]
                go("REST")
            with m.Else():
                go("LOAD")
                with m.If((field == 2) & (status != Status.OK)):
                    m.d.sync += field.eq(4)
                with m.Elif((field != 3) | last):
                    m.d.sync += field.eq(field + 1)
                    with m.If((field == 3) & user):
                        m.d.sync += status.eq(Status.FRAME)
        with at("REST"):
            with m.If(~self.s_axis_tvalid):              # the line of bytes is not touched before the core took its beat
                go("GET")
            with m.Else():
                go("REST")

        with m.If(uart_rx.framing):                      # after the state machine: a fault outlives JUDGE's clearing
            m.d.sync += framing.eq(1)
        with m.If(uart_rx.overrun):
            m.d.sync += overrun.eq(1)
        return m
