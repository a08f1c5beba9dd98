"""The ``.hwq`` file: round trip, and every kind of damage is refused with a message."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwq import ir
from hwq.errors import EnvironmentError_, FormatError, HwqError, ModelError
from hwq.formats import Bipolar, FixedPoint, PowerOfTwo
from hwq.ir import nodes as n

FORMATS = {"dfp": FixedPoint(5, 3), "narrow": FixedPoint(4, -1, narrow=True), "po2": PowerOfTwo(3, -2), "bipolar": Bipolar(1)}


def sample(fmt=FORMATS["dfp"], seed=0):
    rng = np.random.default_rng(seed)
    weight = fmt.decode(fmt.encode(rng.choice([1, -1], (3, 3, 2, 1)).astype(np.int64)))
    return ir.Graph((
        n.Input("input", (), (6, 5, 1), 0, 15, 4),
        n.Conv2d("a.conv", ("input",), weight, rng.integers(-1000, 1000, 3), fmt, (2, 1), (1, 0, 2, 1)),
        n.Requantize("a.act", ("a.conv",), np.array([3, 5, 300000]), np.array([7]), 4, 0, 7, np.array([-3]), frac_bits=2),
        n.Flatten("f", ("a.act",)), n.Output("output", ("f",))), ir.Preprocess(4), (), "sample")


@pytest.mark.parametrize("kind", FORMATS)
def test_round_trip(kind, tmp_path):
    graph = sample(FORMATS[kind])
    ir.save(graph, tmp_path / "x.hwq")
    again = ir.load(tmp_path / "x.hwq")
    assert ir.dumps(again) == ir.dumps(graph) and ir.to_text(again) == ir.to_text(graph)
    assert again.preprocess == graph.preprocess and again.name == "sample"
    for left, right in zip(graph, again, strict=True):
        for key, value in left.attributes().items():
            np.testing.assert_array_equal(value, getattr(right, key)) if isinstance(value, np.ndarray) else None
            assert isinstance(value, np.ndarray) or value == getattr(right, key)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10 ** 6), st.integers(1, 255))
def test_one_flipped_byte_is_noticed(place, change):
    data = bytearray(ir.dumps(sample()))
    data[place % len(data)] ^= change
    with pytest.raises(FormatError):
        ir.loads(bytes(data))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10 ** 6))
def test_truncation_is_noticed(length):
    data = ir.dumps(sample())
    with pytest.raises(FormatError):
        ir.loads(data[:length % len(data)])


def _signed(body):
    return body + hashlib.sha256(body).digest()


def test_messages_say_what_is_wrong(tmp_path):
    data = ir.dumps(sample())
    with pytest.raises(FormatError, match="no .hwq file"):
        ir.loads(b"PK\x03\x04" + data)
    with pytest.raises(FormatError, match="version 9 of the .hwq format; this hwq reads version 1: make the file again"):
        ir.loads(_signed(data[:7] + b"\x09" + data[8:-32]))
    with pytest.raises(FormatError, match="Cannot read"):
        ir.load(tmp_path / "none.hwq")
    with pytest.raises(FormatError, match="unknown node type 'Conv9d'"):
        ir.loads(_signed(data[:-32].replace(b'"Conv2d"', b'"Conv9d"')))
    with pytest.raises(HwqError):
        ir.loads(_signed(data[:-32].replace(b'"stride":[2,1]', b'"stride":[2,0]')))


def test_faults_of_a_graph_are_all_named():
    nodes = list(sample().nodes)
    with pytest.raises(ModelError, match="one Output, not 0"):
        ir.Graph(tuple(nodes[:-1]))
    with pytest.raises(ModelError, match="nothing reads"):
        ir.Graph((*nodes[:-1], n.Flatten("g", ("a.act",)), nodes[-1]))
    with pytest.raises(ModelError, match="'nowhere', which no earlier node makes"):
        ir.Graph((nodes[0], n.Output("output", ("nowhere",))))
    with pytest.raises(ModelError, match="must be unique"):
        ir.Graph((nodes[0], n.MaxPool2d("input", ("input",)), n.Output("output", ("input",))))
    with pytest.raises(ModelError, match="class names do not match"):
        ir.Graph(tuple(nodes), None, ("one", "two"))
    with pytest.raises(FormatError, match="a.conv"):
        ir.Graph((nodes[0], n.Conv2d("a.conv", ("input",), np.full((1, 1, 1, 1), 99), np.zeros(1), FixedPoint(4, 0)),
                  n.Output("output", ("a.conv",))))
    with pytest.raises(ModelError, match="larger than the padded image"):
        ir.Graph((nodes[0], n.MaxPool2d("p", ("input",), (9, 9)), n.Output("output", ("p",))))


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "x").mkdir()
    for name, kind, text in (("nofolder/x.hwq", FormatError, "there is no folder .*nofolder; make it, or name another place"),
                             ("x", EnvironmentError_, "Is a directory; name another")):
        with pytest.raises(kind, match=f"Cannot write .*{name}: {text}"):
            ir.write_atomic(tmp_path / name, b"")
    assert [path.name for path in tmp_path.rglob("*")] == ["x"]
