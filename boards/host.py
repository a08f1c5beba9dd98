"""Host side of the link: ports, and `Link`, which asks and checks."""

import errno
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Protocol

from ..errors import EnvironmentError_, FormatError, HwqError, ModelError, ToolError
from .protocol import Command, Identity, Response, Status, decode_response, encode_request, slip_split

__all__ = ["SerialLike", "Link", "check_port", "open_port", "SerialPort", "ProcessPort"]

_ADVICE = {
    Status.FRAME: "the core got a frame of wrong length: the bitstream does not belong to this build",
    Status.BAD_LENGTH: "the request has a wrong length: the bitstream does not belong to this model",
    Status.UNKNOWN_COMMAND: "the board does not know the command: build and load the bitstream again",
    Status.BAD_CRC: "bytes were damaged on the line: try a shorter cable or a lower baud rate",
    Status.FRAMING: "the line's bits do not fit: is --baud the rate the bitstream was built for?",
    Status.OVERRUN: "bytes came faster than the core takes them: build with a lower baud rate",
}
_AGAIN = (Status.BAD_CRC, Status.FRAMING, Status.OVERRUN)    # faults of the line, that another try may not meet


class SerialLike(Protocol):
    """What `Link` needs of a port."""

    def write(self, data: bytes) -> object:
        """Send all bytes."""

    def read(self, size: int) -> bytes:
        """Return 1 to ``size`` bytes as soon as there are any; none if none came within the port's time-out."""

    def reset_input_buffer(self) -> object:
        """Forget what was received."""

    def close(self) -> object:
        """Give the port back."""


class Link:
    """Requests to a board, one at a time.

    After a damaged answer, or an error that the line may have caused, it asks again up to ``retries`` times; after
    silence or another refusal, once: the first may have been meant for what an earlier program left on the line. Each try
    has another tag, so that a late answer to an earlier one is not taken for it, and waits until the line is silent.

    Parameters
    ----------
    port : SerialLike
        The line; its time-out is the time an answer may take to begin.
    retries : int
        Further tries, at least 0.
    """

    def __init__(self, port: SerialLike, *, retries: int = 3):
        if retries < 0:
            raise FormatError(f"Link retries must be at least 0, not {retries!r}")
        self._port = port
        self._retries = retries
        self._tag = 0
        self.identity: Identity | None = None

    def identify(self, model_hash: bytes | None = None) -> Identity:
        """Ask who is there, and check that it runs the model.

        Raises
        ------
        ModelError
            The board runs another model than the one that starts with ``model_hash`` (8 bytes).
        EnvironmentError_, ToolError, FormatError
            No answer; only errors; another protocol version.
        """
        identity = Identity.unpack(self._ask(Command.IDENTIFY, b"", Identity.SIZE, check_size=False))
        if model_hash is not None and identity.model_hash != model_hash[:8]:
            raise ModelError(f"The board runs the model {identity.model_hash.hex()}, not {model_hash[:8].hex()}: load the "
                             "bitstream that was built from this .hwq file, or name the file it was built from")
        self.identity = identity
        return identity

    def infer(self, payload: bytes) -> bytes:
        """Run one frame; asks for the identity first where that was not done.

        Raises
        ------
        FormatError
            The payload has another size than the board's frame.
        EnvironmentError_, ToolError
            No answer; only errors.
        """
        board = self.identity or self.identify()
        size = board.in_bytes * board.in_beats
        if len(payload) != size:
            raise FormatError(f"A frame of this board must have {size} bytes, not {len(payload)}")
        return self._ask(Command.INFER, payload, board.out_bytes * board.out_beats)

    def close(self) -> None:
        """Close the port."""
        self._port.close()

    def _ask(self, command: Command, payload: bytes, size: int, check_size: bool = True) -> bytes:
        error: HwqError = ToolError("The board was not asked")
        firm = 0
        for attempt in range(self._retries + 1):
            if attempt:
                self._settle()
            self._tag = self._tag % 7 + 1
            self._port.reset_input_buffer()
            self._port.write(encode_request(command, payload, self._tag))
            try:
                response = self._answer(command, limit=4 * (size + 64))
            except FormatError as fault:
                error = ToolError(f"The board's answers to {command.name} are damaged: {fault}. Try a shorter cable or a "
                                  "lower baud rate")
                continue
            if response is None:
                error = EnvironmentError_(
                    f"No answer to {command.name}. Is the board powered and loaded with a bitstream of hwq, is this its "
                    "port (boards with two show the UART as the second), and is --baud the rate it was built for?")
                firm += 1
                if firm == 2:
                    break
                continue
            if response.status == Status.OK and len(response.payload) != size and check_size:
                raise ToolError(f"The board answers {command.name} with {len(response.payload)} bytes, not {size}: build "
                                "and load the bitstream again")
            if response.status == Status.OK:
                return response.payload
            known = response.status in Status._value2member_map_
            advice = _ADVICE[Status(response.status)] if known else f"unknown error code {response.status}"
            error = ToolError(f"The board refuses {command.name}: {advice}")
            firm += response.status not in _AGAIN
            if firm == 2:
                break
        raise error

    def _settle(self) -> None:
        """Read until the line is silent, but not for ever."""
        for _ in range(64):
            if not self._port.read(4096):
                return

    def _answer(self, command: Command, limit: int) -> Response | None:
        """Return the answer to the last request, None after silence; skip answers to earlier ones."""
        data = b""
        seen = 0
        fault: FormatError | None = None
        while seen < limit:
            chunk = self._port.read(4096)
            if not chunk:
                if fault:
                    raise fault
                return None
            seen += len(chunk)
            packets, data = slip_split(data + chunk)
            for packet in packets:
                try:
                    response = decode_response(packet)
                except FormatError as error:
                    fault = error
                    continue
                if response.tag == self._tag and response.command == command:
                    return response
                if response.status in _AGAIN:            # of a request whose type arrived damaged, or of noise
                    return response
        raise fault or FormatError(f"{seen} bytes came without an answer among them")


class SerialPort:
    """A serial port of the machine (pyserial), 8N1.

    Parameters
    ----------
    name : str
        Such as /dev/ttyUSB1.
    baud : int
        Line rate.
    timeout : float
        Seconds an answer may take to begin.

    Raises
    ------
    EnvironmentError_
        The port is missing, busy, or may not be used.
    """

    def __init__(self, name: str, baud: int, timeout: float = 3.0):
        import serial
        try:
            self._port = serial.Serial(name, baud, timeout=timeout, write_timeout=timeout, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise _no_port(name, baud, why) from None

    def _guard(self, action, *arguments):
        import serial
        try:
            return action(*arguments)
        except (serial.SerialException, OSError) as error:
            raise EnvironmentError_(f"Port {self._port.name} failed: {error}. Was the board unplugged?") from None

    def write(self, data: bytes) -> None:
        """Send all bytes."""
        self._guard(self._port.write, data)

    def read(self, size: int) -> bytes:
        """Return what is there, at least one byte, or none after the time-out."""
        return self._guard(lambda: self._port.read(max(1, min(size, self._port.in_waiting))))

    def reset_input_buffer(self) -> None:
        """Forget what was received."""
        self._guard(self._port.reset_input_buffer)

    def close(self) -> None:
        """Close the port."""
        self._port.close()


class ProcessPort:
    """A program that speaks the link's bytes on its standard input and output: the compiled simulation of a shell.

    Parameters
    ----------
    path : str
        The program; it gets no arguments.
    timeout : float
        Seconds an answer may take to begin.

    Raises
    ------
    EnvironmentError_
        It cannot be started.
    """

    def __init__(self, path: str, timeout: float = 120.0):
        self._path, self._timeout = path, timeout
        try:
            self._child = subprocess.Popen([str(Path(path).resolve())], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                           bufsize=0)
        except OSError as error:
            raise EnvironmentError_(f"Cannot run the simulator {path}: {error.strerror}") from None

    def _ended(self) -> ToolError:
        code = self._child.wait()
        return ToolError(f"The simulator {self._path} ended with exit code {code} while it was asked")

    def write(self, data: bytes) -> None:
        """Send all bytes."""
        assert self._child.stdin
        try:
            view = memoryview(data)
            while view:
                view = view[self._child.stdin.write(view):]
        except OSError:
            raise self._ended() from None

    def read(self, size: int) -> bytes:
        """Return what is there, at least one byte, or none after the time-out."""
        assert self._child.stdout
        if not select.select([self._child.stdout], [], [], self._timeout)[0]:
            return b""
        data = os.read(self._child.stdout.fileno(), size)
        if not data:
            raise self._ended()
        return data

    def reset_input_buffer(self) -> None:
        """Forget what was received."""
        assert self._child.stdout
        while select.select([self._child.stdout], [], [], 0)[0]:
            if not os.read(self._child.stdout.fileno(), 4096):
                raise self._ended()

    def close(self) -> None:
        """End the program: its input closes; if it does not end by itself within a second, it is killed."""
        if self._child.stdin:
            self._child.stdin.close()
        deadline = time.monotonic() + 1
        while self._child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        if self._child.stdout:
            self._child.stdout.close()


def _no_port(name: str, baud: int, why: str) -> EnvironmentError_:
    from serial.tools import list_ports
    found = ", ".join(sorted(port.device for port in list_ports.comports())) or "none"
    return EnvironmentError_(f"Cannot open {name} at {baud} baud: {why}. Ports of this machine: {found}. A busy port is open in "
                             "another program; 'Permission denied' asks for membership of the port's group (dialout)")


def check_port(name: str, baud: int) -> None:
    """Say what is plainly wrong with a port's name or rate without opening it.

    Raises
    ------
    EnvironmentError_
        There is no such port.
    FormatError
        There is no such folder or program; the baud rate is not positive.
    """
    if baud <= 0:
        raise FormatError(f"Baud rate must be positive, not {baud}")
    if name.startswith("sim:"):
        if not Path(name[4:]).exists():
            raise FormatError(f"Cannot run the simulator {name[4:]}: {os.strerror(errno.ENOENT)}; sim: takes a folder of hwq build")
    elif os.path.isabs(name) and os.name == "posix" and not os.path.exists(name):
        raise _no_port(name, baud, os.strerror(errno.ENOENT))


def open_port(name: str, baud: int) -> SerialLike:
    """Open a port by its name on the command line: a serial port, or ``sim:PROGRAM``.

    Raises
    ------
    EnvironmentError_
        It is missing, busy, or cannot be used.
    FormatError
        See `check_port`.
    """
    check_port(name, baud)
    return ProcessPort(name[4:]) if name.startswith("sim:") else SerialPort(name, baud)
