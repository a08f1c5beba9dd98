"""``hwq run`` on small networks, with the interpreter as board."""

import json
from dataclasses import replace

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from hwq import ir
from hwq.boards.protocol import Command, Identity, Response, decode_request, encode_response, slip_split
from hwq.cli import run as run_module
from hwq.cli.run import pack_frame, read_images, unpack_result
from hwq.errors import FormatError, ModelError, VerifyError
from hwq.formats import FixedPoint
from hwq.interp import run_batches


def _graph(bits=4, shape=(2, 3, 1)):
    count = int(np.prod(shape))
    weight = np.arange(3 * count).reshape(3, count) % 7 - 3
    return ir.Graph((
        ir.Input("x", (), shape=shape, lo=0, hi=(1 << bits) - 1), ir.Flatten("flat", ("x",)),
        ir.Linear("fc", ("flat",), weight=weight, bias=np.array([5, -300, 1]),
                  weight_format=FixedPoint(4, 0, True)), ir.Output("y", ("fc",)),
    ), ir.Preprocess(bits), ("ant", "bee", "cat"), "toy")


class InterpreterPort:
    """A board that runs the network in the interpreter; ``lie`` is added to its results."""

    def __init__(self, graph, lie=0):
        self._graph, self._lie, self._data = graph, lie, b""
        self.closed = False
        self._identity = Identity(bytes.fromhex(ir.content_hash(graph))[:8], 1, 6, 2, 3, 12_000_000)

    def write(self, data):
        request = decode_request(slip_split(data)[0][-1])
        payload = self._identity.pack()
        if request.command == Command.INFER:
            codes = np.frombuffer(request.payload, np.uint8).reshape(1, *self._graph.input.shape)
            payload = (run_batches(self._graph, codes)[0] + self._lie).astype("<i2").tobytes()
        self._data += encode_response(Response(request.command, request.tag, payload, 0))

    def read(self, size):
        data, self._data = self._data, b""
        return data

    def reset_input_buffer(self):
        self._data = b""

    def close(self):
        self.closed = True


@pytest.fixture
def place(tmp_path, monkeypatch):
    graph = _graph()
    ir.save(graph, tmp_path / "toy.hwq")
    images = np.arange(24, dtype=np.uint8).reshape(4, 2, 3) * 10
    Image.fromarray(images[1]).save(tmp_path / "one.png")
    labels = [int(np.argmax(row)) for row in run_batches(graph, images[..., None] >> 4)]
    labels[3] = (labels[3] + 1) % 3
    np.savez(tmp_path / "set.npz", images=images, labels=np.array(labels))
    np.save(tmp_path / "one.npy", images[2])
    monkeypatch.chdir(tmp_path)
    port = InterpreterPort(graph)
    monkeypatch.setattr(run_module, "open_port", lambda name, baud: port)
    return port, graph, images


def _run(*arguments):
    app = typer.Typer()
    app.command("run")(run_module.command)
    return CliRunner().invoke(app, list(arguments))


def test_classes_outputs_and_score(place):
    port, graph, images = place
    result = _run("one.png", "set.npz", "one.npy", "--port", "fake", "--check")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    expected = run_batches(graph, images[..., None] >> 4)
    best = int(expected[1].argmax())
    assert lines[0] == f"one.png: {best} {graph.classes[best]}  {' '.join(map(str, expected[1]))}"
    assert lines[2].startswith("set.npz[1]: ") and " right " in lines[2] and "wrong (label" in lines[4]
    assert lines[6:] == ["3 of 4 right (75.00 %)", "All 6 results equal the interpreter's"]
    assert port.closed


def test_labels_of_another_data_set_are_refused(place):
    np.savez("far.npz", images=place[2], labels=np.array([0, 1, 3, 1]))
    result = _run("far.npz", "--port", "fake")
    assert isinstance(result.exception, ModelError)
    assert str(result.exception).startswith("far.npz: image 2 has the label 3, but the network has 3 classes, 0 to 2; is it")


def test_the_rate_of_a_simulated_board_is_its_own(place, tmp_path):
    (tmp_path / "program").write_text("")
    result = _run("one.png", "--port", "sim:program", "--baud", "9600")
    assert result.exit_code == 0 and "--baud is ignored" in result.stderr
    assert "ignored" not in _run("one.png", "--port", "fake", "--baud", "9600").stderr


def test_json(place):
    result = _run("set.npz", "--port", "fake", "--model", "toy.hwq", "--json")
    data = json.loads(result.stdout)
    assert (data["network"], data["labelled"], data["right"], data["different"]) == ("toy", 4, 3, [])
    assert len(data["images"]) == 4 and len(data["images"][0]["output"]) == 3


def test_a_difference_is_found(place, monkeypatch):
    monkeypatch.setattr(run_module, "open_port", lambda name, baud: InterpreterPort(place[1], lie=1))
    result = _run("set.npz", "--port", "fake", "--check")
    assert isinstance(result.exception, VerifyError) and result.exception.exit_code == 6
    assert str(result.exception).startswith("4 of 4 results differ from the interpreter's; the first is set.npz[0]: board")


def test_another_model_is_refused(place, monkeypatch):
    monkeypatch.setattr(run_module, "open_port", lambda name, baud: InterpreterPort(_graph(bits=3)))
    result = _run("one.png", "--port", "fake")
    assert isinstance(result.exception, ModelError) and str(result.exception).startswith("The board runs the model ")


def test_files_that_are_refused(place, tmp_path):
    graph = place[1]
    Image.new("L", (5, 2)).save("wide.png")
    (tmp_path / "text.png").write_text("no picture")
    np.savez("other.npz", pictures=np.zeros(3))
    np.savez("odd.npz", images=np.zeros((2, 2, 3), np.uint8), labels=np.zeros(3))
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    for name, kind, text in [
        ("wide.png", ModelError, "wide.png has 5x2 pixels; the network takes 3x2"),
        ("text.png", FormatError, "text.png is no picture that can be read"),
        ("gone.png", FormatError, "Cannot read gone.png: No such file"),
        ("other.npz", FormatError, "other.npz lacks 'images'; make it with numpy.savez"),
        ("odd.npz", FormatError, "odd.npz has 2 images but labels of the shape"),
        ("bad.npy", FormatError, "Cannot read bad.npy: it is no sound .npy or .npz file of plain numbers"),
    ]:
        with pytest.raises(kind, match="^" + text):
            read_images(run_module.Path(name), graph)
    np.save("float.npy", np.zeros((2, 3)))
    np.save("large.npy", np.zeros((4, 5, 5), np.uint8))
    for name, text in [("float.npy", "float.npy: Images must be unsigned 8-bit"),
                       ("large.npy", "large.npy: Images must have the shape (2, 3, 1)")]:
        result = _run(name, "--port", "fake")
        assert isinstance(result.exception, ModelError) and str(result.exception).startswith(text)
    result = _run("one.png", "--port", "fake", "--model", "gone.hwq")
    assert isinstance(result.exception, FormatError) and "gone.hwq" in str(result.exception)
    ir.save(graph, tmp_path / "second.hwq")
    result = _run("one.png", "--port", "fake")
    assert str(result.exception) == "Name the network with --model: this folder has 2 .hwq files"


def test_a_network_without_preprocessing_takes_codes(place, tmp_path, monkeypatch):
    graph = replace(place[1], preprocess=None)
    ir.save(graph, tmp_path / "toy.hwq")
    monkeypatch.setattr(run_module, "open_port", lambda name, baud: InterpreterPort(graph))
    np.save("codes.npy", np.arange(12).reshape(2, 2, 3, 1))
    assert _run("codes.npy", "--port", "fake", "--check").exit_code == 0
    for array, text in [(np.full((2, 3, 1), 16), "codes.npy: input codes 16..16 lie outside 0..15"),
                        (np.zeros((2, 3, 1)), "codes.npy: the network takes integers of the shape (2, 3, 1), not float64")]:
        np.save("codes.npy", array)
        result = _run("codes.npy", "--port", "fake")
        assert isinstance(result.exception, ModelError) and str(result.exception).startswith(text)


def test_numbers_of_several_bytes():
    graph = _graph(shape=(1, 2, 1))
    wide = replace(graph, nodes=(replace(graph.nodes[0], lo=-300, hi=300), *graph.nodes[1:]))
    assert pack_frame(np.array([1, 2]), graph, 1, 2) == pack_frame(np.array([1, 2]), graph, 2, 1) == b"\x01\x02"
    assert pack_frame(np.array([1, -2]), wide, 2, 2) == b"\x01\x00\xfe\xff"
    assert unpack_result(b"\x01\x00\xfe\xff\x00\x80", graph).tolist() == [1, -2, -32768]
    for size, beats in ((1, 3), (3, 1), (1, 4)):
        with pytest.raises(ModelError,
                           match=f"^The board takes frames of {beats} beats of {size} bytes; the network's input has 2"):
            pack_frame(np.array([1, 2]), wide, size, beats)
    with pytest.raises(ModelError, match="^The board's result of 4 bytes does not fit"):
        unpack_result(b"1234", graph)
