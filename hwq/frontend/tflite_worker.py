"""A child process that runs TensorFlow Lite Micro: it ends its process on files that it does not like.

Requests and answers are ``.npz`` files with their length in front (8 bytes, little endian), over standard input and output.
"""

import atexit
import io
import os
import subprocess
import sys

import numpy as np

from ..errors import ToolError

__all__ = ["run_micro"]

_child: subprocess.Popen | None = None


def _pack(arrays: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)                         # type: ignore[arg-type]
    body = stream.getvalue()
    return len(body).to_bytes(8, "little") + body


def _unpack(stream) -> dict[str, np.ndarray] | None:
    head = stream.read(8)
    if len(head) < 8:
        return None
    body = stream.read(int.from_bytes(head, "little"))
    with np.load(io.BytesIO(body), allow_pickle=False) as file:
        return dict(file)


def _stop() -> None:
    global _child
    if _child is not None:
        _child.kill()
        _child.wait()
        _child = None


def run_micro(content: bytes, inputs: np.ndarray, tensors: list[int], batch: int = 1) -> dict[int, np.ndarray]:
    """Return what tensors hold for each input: (inputs, *tensor shape without batch).

    Parameters
    ----------
    content : bytes
        The ``.tflite`` file.
    inputs : array (n, *input shape without batch)
        Of the input tensor's own type.
    tensors : list of int
        Indices of the file's tensors.
    batch : int
        Of the file: so many inputs are run at once, the last one again to fill up.

    Raises
    ------
    ToolError
        TensorFlow Lite Micro refuses the file, or crashes on it.
    """
    global _child
    count, full = len(inputs), np.concatenate([inputs, np.repeat(inputs[-1:], -len(inputs) % batch, axis=0)])
    full = full.reshape(-1, batch, *inputs.shape[1:])
    if _child is None:
        _child = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL)
        atexit.register(_stop)
    assert _child.stdin is not None and _child.stdout is not None
    try:
        _child.stdin.write(_pack({"model": np.frombuffer(content, np.uint8), "inputs": full,
                                  "tensors": np.array(tensors, np.int64)}))
        _child.stdin.flush()
        answer = _unpack(_child.stdout)
    except BrokenPipeError:
        answer = None
    if answer is None:
        _stop()
        raise ToolError("TensorFlow Lite Micro crashed on this file, so that nothing could be compared")
    if "error" in answer:
        raise ToolError(f"TensorFlow Lite Micro refuses the file: {answer['error']}")
    return {index: (found := answer[f"t{index}"]).reshape(-1, *found.shape[2:])[:count] for index in tensors}


def _serve() -> None:
    from tflite_micro.python.tflite_micro import runtime
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)                                  # the library's own prints must not reach the answers
    while (request := _unpack(sys.stdin.buffer)) is not None:
        found: dict[str, list[np.ndarray]] = {f"t{i}": [] for i in request["tensors"]}
        try:
            interpreter = runtime.Interpreter.from_bytes(request["model"].tobytes(), arena_size=64 << 20,
                                                         intrepreter_config=runtime.InterpreterConfig.kPreserveAllTensors)
            for value in request["inputs"]:
                interpreter.set_input(value, 0)
                interpreter.invoke()
                for i in request["tensors"]:
                    found[f"t{i}"].append(np.array(interpreter.GetTensor(int(i), 0)["tensor_data"]))
            answer = {key: np.stack(values) for key, values in found.items()}
        except Exception as error:                 # whatever it is, the parent reports it as the tool's refusal
            answer = {"error": np.array(str(error))}
        out.write(_pack(answer))
        out.flush()


if __name__ == "__main__":
    _serve()
