# amaranth: UnusedElaboratable=no
"""The shell and a toy core in the simulator, asked through the host's own codec."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hwq.boards.host import Link
from hwq.boards.protocol import (
    Command,
    Response,
    Status,
    crc16,
    decode_response,
    encode_request,
    slip_encode,
    slip_split,
)
from hwq.boards.shell import Shell
from hwq.errors import FormatError, ToolError

from .toycore import PARAMETERS, SimPort

FRAME = bytes([0xC0, 0xDB, 1, 2, 3, 4])


def packet(kind, length, payload):
    """A request whose length field may lie."""
    data = bytes([kind]) + length.to_bytes(2, "little") + payload
    return b"\xc0" + slip_encode(data + crc16(data).to_bytes(2, "little"))


def ask(port, wire):
    """Send bytes; return the answers until the line is silent."""
    port.write(wire)
    data = b""
    while chunk := port.read(1 << 16):
        data += chunk
    packets, rest = slip_split(data)
    assert rest == b""
    return [decode_response(one) for one in packets]


def works(port):
    """The shell answers both commands rightly."""
    tag = 3
    identity = ask(port, encode_request(Command.IDENTIFY, tag=tag))
    assert identity == [Response(Command.IDENTIFY, tag, port.identity.pack(), Status.OK)]
    assert ask(port, encode_request(Command.INFER, FRAME, tag)) == [good(port, tag)]
    return True


def good(port, tag=0, frame=FRAME):
    return Response(Command.INFER, tag, port.dut.core.model(frame), Status.OK)


def refusal(command, status, tag=0):
    return [Response(command, tag, b"", status)]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 5, 3, 2), (2, 3, 2, 2), (3, 2, 1, 4), (4, 1, 4, 1)])
@pytest.mark.parametrize("divisor", [4, 7])
def test_every_shape(shape, divisor):
    names = ("in_bytes", "in_beats", "out_bytes", "out_beats")
    port = SimPort(**dict(zip(names, shape, strict=True)), clock_hz=divisor * 1_000_000)
    link = Link(port, retries=0)
    assert link.identify() == port.identity
    size = shape[0] * shape[1]
    for seed in (0, 0xC0, 0xDB):                         # payloads and results that must be escaped
        frame = bytes((seed + 7 * k) & 0xFF for k in range(size))
        assert link.infer(frame) == port.dut.core.model(frame)
    short = ask(port, packet(Command.INFER, size, bytes(size - 1)))
    assert short[0].status == (Status.BAD_LENGTH if (size - 1) % shape[0] or size == 1 else Status.FRAME)
    assert link.infer(frame) == port.dut.core.model(frame)


@pytest.mark.parametrize("beats", [64, 73])              # 192 and 219 bytes: length bytes 0xC0 and 0xDB are escaped
def test_escaped_length(beats):
    port = SimPort(in_bytes=3, in_beats=beats, out_beats=3 * beats // 2)
    frame = bytes(k & 0xFF for k in range(3 * beats))
    assert Link(port, retries=0).infer(frame) == port.dut.core.model(frame)


def test_wrong_crc_of_every_kind():
    port = SimPort()
    for at in (-2, -3, 5):
        wire = bytearray(encode_request(Command.INFER, bytes(6)))
        wire[at] ^= 1
        assert ask(port, bytes(wire)) == refusal(Command.INFER, Status.BAD_CRC)
    assert works(port)


@pytest.mark.parametrize("count, status", [
    (0, Status.BAD_LENGTH), (1, Status.BAD_LENGTH), (2, Status.FRAME), (3, Status.BAD_LENGTH), (4, Status.FRAME),
    (5, Status.BAD_LENGTH), (6, Status.OK), (7, Status.BAD_LENGTH), (8, Status.FRAME), (9, Status.BAD_LENGTH),
])
def test_short_and_long_payloads(count, status):
    port = SimPort()
    payload = bytes(range(count))
    [answer] = ask(port, packet(Command.INFER, 6, payload))
    assert answer.status == status
    # A frame the core saw whole in its bytes' count of beats is answered with its result, flagged after the payload.
    assert answer.payload == (port.dut.core.model(payload[:6]) if status in (Status.OK, Status.FRAME) else b"")
    assert works(port)


def test_faults_of_the_header():
    port = SimPort()
    assert ask(port, packet(Command.INFER, 5, bytes(5))) == refusal(Command.INFER, Status.BAD_LENGTH)
    assert ask(port, packet(Command.INFER, 6 + 256, bytes(6))) == refusal(Command.INFER, Status.BAD_LENGTH)
    assert ask(port, packet(Command.IDENTIFY, 1, b"x")) == refusal(Command.IDENTIFY, Status.BAD_LENGTH)
    assert ask(port, packet(Command.IDENTIFY, 0, b"x")) == refusal(Command.IDENTIFY, Status.BAD_LENGTH)
    assert ask(port, encode_request(7, bytes(6), 5)) == refusal(7, Status.UNKNOWN_COMMAND, 5)
    assert ask(port, b"\xc0\x01\x00\x00\xc0") == refusal(Command.IDENTIFY, Status.BAD_CRC)
    assert works(port)


def test_noise_and_wrong_escapes():
    port = SimPort()
    assert ask(port, b"\xc0\xc0\x12\xc0\x12\x34\xc0\xdb\xc0") == []
    assert ask(port, b"\xc0\x02\x06\x00\xdb\x41\xc0") == refusal(Command.INFER, Status.FRAMING)
    assert ask(port, b"\xc0\x02\x06\x00\x01\xdb\xc0") == refusal(Command.INFER, Status.FRAMING)
    assert works(port)


def test_stop_bit_missing_inside_a_request():
    port = SimPort()
    wire = encode_request(Command.INFER, FRAME)
    port.write(wire[:6])
    port.write_bits((0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1))
    assert ask(port, wire[6:]) == refusal(Command.INFER, Status.FRAMING)
    assert works(port)


def test_back_to_back():
    port = SimPort()
    for k in range(6):
        frame = bytes([k] * 6)
        assert ask(port, encode_request(Command.INFER, frame, k)) == [good(port, k, frame)]


def test_a_request_during_an_answer_is_refused_and_the_next_works():
    port = SimPort()
    answers = ask(port, encode_request(Command.IDENTIFY, tag=1) + encode_request(Command.INFER, FRAME, 2))
    assert answers[0].status == Status.OK and len(answers) <= 2
    assert all(answer.status == Status.OVERRUN for answer in answers[1:])
    assert works(port)


def test_a_core_that_wants_its_result_taken_first_ends_in_overrun():
    port = SimPort(eager=True, in_beats=8)
    [answer] = ask(port, encode_request(Command.INFER, bytes(16)))
    assert answer.status == Status.OVERRUN and answer.payload == b""
    assert ask(port, encode_request(Command.IDENTIFY))[0].status == Status.OK
    with pytest.raises(ToolError, match="^The board refuses INFER: bytes came faster than the core takes them"):
        Link(port, retries=1).infer(bytes(16))


def test_a_slow_core():
    port = SimPort(wait=900, patience=2000)
    assert works(port)
    [answer] = ask(port, packet(Command.INFER, 6, bytes(5)))
    assert answer.status == Status.BAD_LENGTH
    assert works(port)


_PORT = []


def _shared_port():
    """One simulated shell for all examples: what one leaves behind meets the next."""
    if not _PORT:
        _PORT.append(SimPort(patience=600))
    return _PORT[0]


_PIECES = st.one_of(
    st.binary(max_size=12),
    st.lists(st.sampled_from([0xC0, 0xDB, 0xDC, 0xDD, 1, 2, 6, 0]), max_size=16).map(bytes),
    st.builds(packet, st.integers(0, 255), st.sampled_from([0, 6, 6, 6, 5, 300]), st.binary(max_size=14)),
    st.builds(lambda n: encode_request(2, FRAME)[:n], st.integers(0, 15)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_PIECES, max_size=3).map(b"".join))
def test_after_any_garbage_a_request_is_answered(garbage):
    port = _shared_port()
    port.write(garbage + b"\xc0")
    port.quiet()
    assert ask(port, encode_request(Command.INFER, FRAME, 5)) == [good(port, 5)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_PIECES)
@example(packet(0x11, 5, b""))                           # a bad IDENTIFY with the host's own first tag
@example(packet(0x11, 0, b"")[:-1])
def test_the_host_gets_through_garbage_that_it_did_not_wait_for(garbage):
    port = _shared_port()
    port.write(garbage)
    assert Link(port).infer(FRAME) == port.dut.core.model(FRAME)


@pytest.mark.parametrize("change, text", [
    (dict(in_bytes=0), "Shell in_bytes must be a positive integer, not 0"),
    (dict(out_beats=1.5), "Shell out_beats must be a positive integer, not 1.5"),
    (dict(in_beats=40000), "An input frame must have at most 65535 bytes on the link, not 80000"),
    (dict(out_beats=40000), "A result frame must have at most 65535 bytes on the link, not 80000"),
    (dict(model_hash=b"123"), "Shell model_hash must be 8 bytes, not b'123'"),
    (dict(clock_hz=48e6), "Shell clock_hz must be a positive 32-bit integer, not 48000000.0"),
    (dict(baud=3_000_000), "Baud rate must be at most a 4th of the clock"),
])
def test_constructor_refuses(change, text):
    with pytest.raises(FormatError, match="^" + text):
        Shell(**{**PARAMETERS, **change})
