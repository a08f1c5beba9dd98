"""The host's side with a fake port: what it asks again, and what it tells."""

import os
import sys

import pytest

from hwq.boards.host import Link, ProcessPort, open_port
from hwq.boards.protocol import (
    Command,
    Identity,
    Response,
    Status,
    decode_request,
    encode_response,
    slip_split,
)
from hwq.errors import EnvironmentError_, FormatError, ModelError, ToolError

IDENTITY = Identity(b"12345678", 1, 4, 1, 2, 12_000_000)


class FakePort:
    """A board that answers by a list of tricks, one a request; when the list is empty it answers rightly."""

    def __init__(self, *tricks):
        self.tricks, self.asked, self._data = list(tricks), [], b""

    def write(self, data):
        request = decode_request(slip_split(data)[0][-1])
        self.asked.append(request)
        payload = IDENTITY.pack() if request.command == Command.IDENTIFY else bytes([sum(request.payload) & 255, 7])
        answer = Response(request.command, request.tag, payload, Status.OK)
        self._data += self.tricks.pop(0)(answer) if self.tricks else encode_response(answer)

    def read(self, size):
        data, self._data = self._data[:3], self._data[3:]    # in small pieces
        return data

    def reset_input_buffer(self):
        self._data = b""

    def close(self):
        pass


def silent(answer):
    return b""


def right(answer):
    return encode_response(answer)


def damaged(answer):
    data = bytearray(encode_response(answer))
    data[4] ^= 1
    return bytes(data)


def status(code, payload=b""):
    return lambda answer: encode_response(Response(answer.command, answer.tag, payload, code))


def late(answer):
    """An answer to an earlier request comes first, with other numbers."""
    wrong = Response(answer.command, answer.tag - 1, b"\x63\x63", Status.OK)
    return encode_response(wrong) + encode_response(answer)


@pytest.mark.parametrize("trick", [silent, damaged, status(Status.BAD_CRC), status(Status.FRAMING),
                                   status(Status.OVERRUN), late, status(Status.BAD_LENGTH), lambda a: b"noise\xc0\xc0" + right(a)])
def test_one_fault_is_asked_again(trick):
    port = FakePort(right, trick)
    assert Link(port).infer(b"\x01\x02\x03\x04") == b"\x0a\x07"
    assert len({request.tag for request in port.asked}) == len(port.asked)


@pytest.mark.parametrize("tricks, error, text, asked", [
    ([silent] * 4, EnvironmentError_, "No answer to INFER. Is the board powered", 2),
    ([damaged] * 4, ToolError, "The board's answers to INFER are damaged: Packet of", 4),
    ([status(Status.BAD_CRC)] * 4, ToolError, "The board refuses INFER: bytes were damaged on the line", 4),
    ([status(Status.OVERRUN)] * 4, ToolError, "The board refuses INFER: bytes came faster than the core takes", 4),
    ([status(Status.FRAME, b"ab")] * 2, ToolError, "The board refuses INFER: the core got a frame of wrong length", 2),
    ([status(Status.BAD_LENGTH)] * 2, ToolError, "The board refuses INFER: the request has a wrong length", 2),
    ([status(Status.UNKNOWN_COMMAND)] * 2, ToolError, "The board refuses INFER: the board does not know the command", 2),
    ([status(99)] * 2, ToolError, "The board refuses INFER: unknown error code 99", 2),
    ([status(Status.OK, b"abc")], ToolError, "The board answers INFER with 3 bytes, not 2", 1),
    ([lambda a: bytes(100_000)] * 4, ToolError, "The board's answers to INFER are damaged: .* without an answer", 4),
])
def test_lasting_faults_are_told(tricks, error, text, asked):
    port = FakePort(right, *tricks)
    with pytest.raises(error, match="^" + text):
        Link(port).infer(b"\x01\x02\x03\x04")
    assert len(port.asked) == 1 + asked


def test_model_size_and_arguments_are_checked():
    assert Link(FakePort()).identify(b"12345678" + b"rest of the hash") == IDENTITY
    with pytest.raises(ModelError, match="^The board runs the model 3132333435363738, not 6162636465666768: load"):
        Link(FakePort()).identify(b"abcdefgh")
    with pytest.raises(FormatError, match="^A frame of this board must have 4 bytes, not 3"):
        Link(FakePort()).infer(b"abc")
    with pytest.raises(FormatError, match="^Link retries must be at least 0, not -1"):
        Link(FakePort(), retries=-1)
    with pytest.raises(FormatError, match="^The board speaks link protocol version 9"):
        Link(FakePort(status(Status.OK, b"\x09" + bytes(30)))).identify()


def test_ports_that_cannot_be_opened(tmp_path):
    with pytest.raises(EnvironmentError_, match=r"^Cannot open /dev/ttyNONE at 9600 baud: .*\. Ports of this machine: "):
        open_port("/dev/ttyNONE", 9600)
    with pytest.raises(FormatError, match="^Cannot run the simulator .*nothing: No such file"):
        open_port(f"sim:{tmp_path}/nothing", 9600)
    with pytest.raises(FormatError, match="^Baud rate must be positive, not 0"):
        open_port("/dev/ttyUSB1", 0)


def _program(tmp_path, body):
    path = tmp_path / "board"
    path.write_text(f"#!{sys.executable}\nimport os\n{body}\n")
    os.chmod(path, 0o755)
    return str(path)


def test_a_program_as_board(tmp_path):
    port = open_port("sim:" + _program(tmp_path, "while d := os.read(0, 100): os.write(1, d[::-1])"), 9600)
    port.write(b"abc")
    assert port.read(10) == b"cba"
    port.close()


def test_a_program_that_dies_or_is_silent(tmp_path):
    dead = ProcessPort(_program(tmp_path, "raise SystemExit(3)"))
    with pytest.raises(ToolError, match="^The simulator .*board ended with exit code 3 while it was asked"):
        Link(dead).identify()
    dead.close()
    mute = ProcessPort(_program(tmp_path, "while os.read(0, 100): pass"), timeout=0.2)
    with pytest.raises(EnvironmentError_, match="^No answer to IDENTIFY"):
        Link(mute).identify()
    mute.close()
