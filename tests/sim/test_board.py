"""The simulated board: ``hwq run --port sim:FOLDER`` through the bytes of the link, the board's shell and the built core."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from hwq.boards.host import Link, open_port
from hwq.boards.protocol import Command, Response, Status, decode_response, encode_request, slip_split
from hwq.emit import pack_codes, unpack_results
from hwq.errors import FormatError
from hwq.interp import run_batches
from hwq.ir import content_hash, save
from hwq.sim.folder import load_build
from hwq.sim.link import compile_board

from .conftest import hwq, need, small_network


@pytest.fixture(scope="module")
def program(board):
    need("verilator", "c++")
    return compile_board(load_build(board))


@pytest.fixture
def port(program):
    opened = open_port(f"sim:{program}", 1)
    opened._timeout = 20
    yield opened
    opened.close()


def test_the_command(board, pictures, program):
    report = json.loads(hwq("run", pictures, "--port", f"sim:{board}", "--check", "--json"))
    assert (report["network"], report["labelled"], report["right"], report["different"]) == ("small", 30, 29, [])
    graph = small_network()
    images = np.load(pictures)["images"]
    assert [row["output"] for row in report["images"]] == run_batches(graph, images >> 4).tolist()


def test_another_model_is_refused(board, pictures, program, tmp_path):
    other = small_network()
    save(other.with_nodes(replace(n, bias=n.bias + 1) if n.name == "fc" else n for n in other), tmp_path / "other.hwq")
    message = hwq("run", pictures, "--port", f"sim:{board}", "--model", tmp_path / "other.hwq", code=1)
    assert f"The board runs the model {content_hash(small_network())[:16]}, not" in message


def answers(port, timeout=0.5):
    """What comes until the line is silent."""
    port._timeout = timeout
    data = b""
    while chunk := port.read(4096):
        data += chunk
    port._timeout = 20
    packets, rest = slip_split(data)
    assert rest == b""
    return [decode_response(packet) for packet in packets]


def test_garbage_resynchronises(board, port):
    graph, build = small_network(), load_build(board)
    codes = np.load(board / "vectors" / "input.npy")
    beats = pack_codes(codes, lanes=build.input.lanes, width=build.input.width)
    want = run_batches(graph, codes).reshape(len(codes), -1)
    link, rng = Link(port, retries=0), np.random.default_rng(3)
    link.identify(bytes.fromhex(content_hash(graph)))
    for k, frame in enumerate(beats):
        request = encode_request(Command.INFER, frame.tobytes(), 1)
        noise = [b"", rng.bytes(40), request[:-20], request[:4] + rng.bytes(3) + request[7:], b"\xdb\x00" * 9, request[2:]][k % 6]
        port.write(noise + b"\xc0")                      # ends whatever packet the noise began
        for answer in answers(port):
            assert answer.status != Status.OK or not noise
        result = link.infer(frame.tobytes())
        assert unpack_results(np.frombuffer(result, np.uint8).reshape(1, want.shape[1], -1),
                              signed=True)[0].tolist() == want[k].tolist()


def test_damage_is_answered_by_name(board, port):
    build = load_build(board)
    size = build.input.bytes * build.input.beats
    request = bytearray(encode_request(Command.INFER, bytes(size), 3))
    request[5] ^= 1
    port.write(bytes(request))
    assert answers(port) == [Response(Command.INFER, 3, b"", Status.BAD_CRC)]
    port.write(encode_request(Command.INFER, bytes(size + 1), 4))
    assert answers(port) == [Response(Command.INFER, 4, b"", Status.BAD_LENGTH)]


def test_what_is_no_simulated_board(board, copy, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="is no build folder"):
        load_build(tmp_path / "empty")
    message = hwq("run", pictures, "--port", "sim:no_such", "--model", copy / "model.hwq", code=1)
    assert "no_such: No such file or directory" in message
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "link_sim.v").write_text((copy / "link_sim.v").read_text().replace("assign", "assign ", 1))
    with pytest.raises(FormatError, match="link_sim.v is not the file that was built"):
        compile_board(load_build(copy))
    (copy / "link_sim.v").unlink()
    with pytest.raises(FormatError, match="Cannot read .*link_sim.v: No such file or directory; build again"):
        compile_board(load_build(copy))
    del manifest["link"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="has no simulated board: only builds for a board"):
        compile_board(load_build(copy))
    shutil.copy(board / "accel.v", copy / "model.hwq")
    with pytest.raises(FormatError):
        load_build(copy)


def test_wrong_images_are_refused_before_anything_is_compiled(copy, tmp_path):
    np.save(tmp_path / "wrong.npy", np.zeros((2, 5, 5), np.uint8))
    cache = tmp_path / "cache"
    assert "must have the shape (6, 6, 2)" in hwq("run", tmp_path / "wrong.npy", "--port", f"sim:{copy}", code=1,
                                                  XDG_CACHE_HOME=str(cache))
    assert not list(cache.rglob("core"))
