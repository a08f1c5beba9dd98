"""The codec alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwq.boards.protocol import (
    END,
    Identity,
    Request,
    Response,
    crc16,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    slip_decode,
    slip_encode,
    slip_split,
)
from hwq.errors import FormatError


def test_crc_is_the_published_one():
    assert crc16(b"123456789") == 0x6F91                 # CRC-16/MCRF4XX
    assert crc16(b"abc" + crc16(b"abc").to_bytes(2, "little")) == 0


@given(st.binary(max_size=40))
def test_slip_round_trip(data):
    stuffed = slip_encode(data)
    assert stuffed.count(END) == 1 and stuffed[-1] == END
    assert slip_decode(stuffed[:-1]) == data


@given(st.integers(0, 15), st.binary(max_size=40), st.integers(0, 7), st.binary(max_size=8))
def test_request_round_trip_behind_garbage(command, payload, tag, garbage):
    wire = garbage + encode_request(command, payload, tag)
    packets, rest = slip_split(wire)
    assert decode_request(packets[-1]) == Request(command, tag, payload) and rest == b""


@given(st.integers(0, 15), st.integers(0, 7), st.binary(max_size=40), st.integers(0, 255))
def test_response_round_trip(command, tag, payload, status):
    response = Response(command, tag, payload, status)
    assert decode_response(encode_response(response)[:-1]) == response


def test_identity_round_trip():
    identity = Identity(b"12345678", 1, 784, 2, 10, 48_000_000)
    assert len(identity.pack()) == Identity.SIZE == 21
    assert Identity.unpack(identity.pack()) == identity


@pytest.mark.parametrize("payload, text", [
    (b"", "The board speaks link protocol version none"),
    (b"\x07" * 21, "The board speaks link protocol version 7; this hwq speaks 1"),
    (b"\x01", "The board's identity must have 21 bytes, not 1"),
])
def test_identity_refuses(payload, text):
    with pytest.raises(FormatError, match="^" + text):
        Identity.unpack(payload)


@pytest.mark.parametrize("stuffed, text", [
    (b"\xdb\x00", "Packet has a byte 0x00 where none may stand"),
    (b"\xdb", "Packet ends inside an escape"),
    (b"\x82\x00\x00", "Packet is too short: 3 bytes"),
    (b"\x82\x00\x00\x00\x12\x34", "Packet of 6 bytes has a wrong CRC"),
])
def test_damaged_responses_are_refused(stuffed, text):
    with pytest.raises(FormatError, match="^" + text):
        decode_response(stuffed)


def test_loop_back_and_wrong_length_are_refused():
    data = b"\x02\x00\x00\x00"
    with pytest.raises(FormatError, match="^Packet of type 0x02 is no response"):
        decode_response(slip_encode(data + crc16(data).to_bytes(2, "little"))[:-1])
    data = b"\x82\x05\x00\x00"
    with pytest.raises(FormatError, match="^Packet says 5 bytes of payload but has 0"):
        decode_response(slip_encode(data + crc16(data).to_bytes(2, "little"))[:-1])
    with pytest.raises(FormatError, match="^Payload must have at most 65535 bytes"):
        encode_request(2, bytes(65536))
