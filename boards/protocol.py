"""The link's protocol: what goes over the wire, as pure functions. Used by the host, the shell's tests and simulators.

A packet is SLIP-stuffed between END bytes, so that both sides find the next packet after any garbage::

    request    END  type  length(u16)  payload  crc(u16)           END
    response        type | 0x80  length(u16)  payload  status  crc(u16)  END

Numbers are little endian. ``type`` is a command in bits 3..0 and a tag of the host in bits 6..4, which the response
repeats, so that a late answer is never taken for another's. The CRC is CRC-16/CCITT in its reflected form (polynomial
0x1021, start 0xFFFF, as HDLC sends it) over all bytes before it; over packet and CRC together it is 0. The status stands
after the payload because the core says only at the end of its frame whether the frame was good. A response to a request
that was refused before the core answered has no payload.

The link is half duplex: the host sends nothing until it has the answer or has waited long enough. Each packet of at
least three bytes gets exactly one answer; shorter fragments are noise and get none.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from ..errors import FormatError

__all__ = [
    "PROTOCOL_VERSION", "MAX_FRAME_BYTES", "END", "ESC", "Command", "Status", "Identity", "Request", "Response",
    "crc16", "slip_encode", "slip_decode", "slip_split", "encode_request", "decode_request", "encode_response",
    "decode_response",
]

PROTOCOL_VERSION = 1
MAX_FRAME_BYTES = 0xFFFF                                 # the length field has 16 bits
END, ESC, ESC_END, ESC_ESC = 0xC0, 0xDB, 0xDC, 0xDD
RESPONSE_BIT = 0x80


class Command(IntEnum):
    """Bits 3..0 of a packet's type."""

    IDENTIFY = 1
    INFER = 2


class Status(IntEnum):
    """Last byte of a response before the CRC; in the order in which the shell looks for faults, from the last."""

    OK = 0
    FRAME = 1                                            # the core flagged the frame: wrong number of beats
    BAD_LENGTH = 2                                       # header or payload has another length than the command needs
    UNKNOWN_COMMAND = 3
    BAD_CRC = 4
    FRAMING = 5                                          # UART stop bit missing, or a wrong escape
    OVERRUN = 6                                          # bytes came while the core, or an answer, held the shell up


@dataclass(frozen=True)
class Identity:
    """Payload of the answer to IDENTIFY: 21 bytes.

    Attributes
    ----------
    version : int
        Protocol version (u8).
    model_hash : bytes
        First 8 bytes of the model's SHA-256.
    in_bytes, in_beats, out_bytes, out_beats : int
        Bytes a beat and beats a frame, into the core and out of it (u16 each).
    clock_hz : int
        Clock of the core (u32).
    """

    model_hash: bytes
    in_bytes: int
    in_beats: int
    out_bytes: int
    out_beats: int
    clock_hz: int
    version: int = PROTOCOL_VERSION

    _LAYOUT = struct.Struct("<B8sHHHHI")
    SIZE = _LAYOUT.size

    def pack(self) -> bytes:
        """Return the payload's bytes."""
        return self._LAYOUT.pack(self.version, self.model_hash, self.in_bytes, self.in_beats, self.out_bytes,
                                 self.out_beats, self.clock_hz)

    @classmethod
    def unpack(cls, payload: bytes) -> "Identity":
        """Return the identity in a payload; raise `FormatError` if its size or version is another."""
        if not payload or payload[0] != PROTOCOL_VERSION:
            found = payload[0] if payload else "none"
            raise FormatError(f"The board speaks link protocol version {found}; this hwq speaks {PROTOCOL_VERSION}: "
                              "build and load the bitstream again")
        if len(payload) != cls.SIZE:
            raise FormatError(f"The board's identity must have {cls.SIZE} bytes, not {len(payload)}")
        version, model_hash, in_bytes, in_beats, out_bytes, out_beats, clock_hz = cls._LAYOUT.unpack(payload)
        return cls(model_hash, in_bytes, in_beats, out_bytes, out_beats, clock_hz, version)


@dataclass(frozen=True)
class Request:
    """A decoded request: command (maybe unknown), tag 0..7, payload."""

    command: int
    tag: int
    payload: bytes


@dataclass(frozen=True)
class Response:
    """A decoded response: command and tag it answers, payload, status byte."""

    command: int
    tag: int
    payload: bytes
    status: int


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x8408 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()


def crc16(data: bytes, start: int = 0xFFFF) -> int:
    """Return the CRC of ``data``; ``crc16(data + crc.to_bytes(2, "little"))`` is 0."""
    crc = start
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc


def slip_encode(data: bytes) -> bytes:
    """Return ``data`` stuffed and closed by an END byte."""
    return (data.replace(bytes([ESC]), bytes([ESC, ESC_ESC])).replace(bytes([END]), bytes([ESC, ESC_END]))
            + bytes([END]))


def slip_decode(stuffed: bytes) -> bytes:
    """Return the bytes of one packet (without END); raise `FormatError` on END inside or a wrong escape."""
    out = bytearray()
    escaped = False
    for byte in stuffed:
        if byte == END or (escaped and byte not in (ESC_END, ESC_ESC)):
            raise FormatError(f"Packet has a byte {byte:#04x} where none may stand")
        if escaped:
            out.append(END if byte == ESC_END else ESC)
        elif byte != ESC:
            out.append(byte)
        escaped = byte == ESC and not escaped
    if escaped:
        raise FormatError("Packet ends inside an escape")
    return bytes(out)


def slip_split(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the stuffed packets that are complete in ``data`` (empty ones left out), and the rest after the last END."""
    *whole, rest = data.split(bytes([END]))
    return [packet for packet in whole if packet], rest


def _check_header(data: bytes, trailer: int) -> bytes:
    if len(data) < 5 + trailer:
        raise FormatError(f"Packet is too short: {len(data)} bytes")
    if crc16(data):
        raise FormatError(f"Packet of {len(data)} bytes has a wrong CRC")
    payload = data[3:-2 - trailer]
    if len(payload) != int.from_bytes(data[1:3], "little"):
        raise FormatError(f"Packet says {int.from_bytes(data[1:3], 'little')} bytes of payload but has {len(payload)}")
    return payload


def _close(data: bytes) -> bytes:
    return slip_encode(data + crc16(data).to_bytes(2, "little"))


def encode_request(command: int, payload: bytes = b"", tag: int = 0) -> bytes:
    """Return a request as it goes over the wire; it starts with END, which closes whatever the line held before."""
    if len(payload) > MAX_FRAME_BYTES:
        raise FormatError(f"Payload must have at most {MAX_FRAME_BYTES} bytes, not {len(payload)}")
    return bytes([END]) + _close(bytes([command & 0xF | (tag & 7) << 4]) + len(payload).to_bytes(2, "little") + payload)


def decode_request(stuffed: bytes) -> Request:
    """Return the request in one stuffed packet; raise `FormatError` if it is damaged."""
    data = slip_decode(stuffed)
    payload = _check_header(data, 0)
    return Request(data[0] & 0x8F, data[0] >> 4 & 7, payload)


def encode_response(response: Response) -> bytes:
    """Return a response as it goes over the wire."""
    kind = RESPONSE_BIT | response.command & 0xF | (response.tag & 7) << 4
    return _close(bytes([kind]) + len(response.payload).to_bytes(2, "little") + response.payload
                  + bytes([response.status]))


def decode_response(stuffed: bytes) -> Response:
    """Return the response in one stuffed packet; raise `FormatError` if it is damaged or none."""
    data = slip_decode(stuffed)
    payload = _check_header(data, 1)
    if not data[0] & RESPONSE_BIT:
        raise FormatError(f"Packet of type {data[0]:#04x} is no response: is the line looped back?")
    return Response(data[0] & 0xF, data[0] >> 4 & 7, payload, data[-3])
