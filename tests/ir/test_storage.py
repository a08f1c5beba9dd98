"""The ``.hwq`` file: round trip, and every kind of damage is refused with a message."""

import hashlib
import json

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


def _changed(change, text=None):
    """A file of the sample whose header was changed, and signed again."""
    data = ir.dumps(sample())
    length = int.from_bytes(data[8:16], "little")
    header = json.loads(data[16:16 + length])
    change(header)
    raw = (text or json.dumps(header)).encode()
    return _signed(data[:8] + len(raw).to_bytes(8, "little") + raw + data[16 + length:-32])


def _attribute(node, **values):
    return lambda header: next(item for item in header["nodes"] if item["name"] == node)["attributes"].update(values)


@pytest.mark.parametrize("change, words", [
    (_attribute("input", lo=0.5), "Input 'input': lo must be an integer, not 0.5"),
    (_attribute("input", lo=-2 ** 70), r"lo must be an integer below 2\*\*62"),
    (_attribute("input", hi=float("inf")), "Infinity is no integer"), (_attribute("a.act", lo=float("nan")), "NaN is no integer"),
    (_attribute("input", hi="15"), "hi must be an integer, not '15'"),
    (_attribute("input", frac_bits=1.5), "frac_bits must be an integer"),
    (_attribute("input", frac_bits=10 ** 6), "frac_bits must lie in"),
    (_attribute("a.act", frac_bits="<b>"), "frac_bits must be an integer"),
    (_attribute("input", shape=[6.0, 5, 1]), r"shape\[0\] must be an integer, not 6.0"),
    (_attribute("input", shape=5), "must be a list"), (_attribute("a.act", shift=True), "shift must be an integer, not True"),
    (_attribute("a.act", half_even="no"), "of the type bool, not 'no'"),
    (_attribute("a.act", mult=3), "mult must be an array, not 3"),
    (_attribute("a.conv", stride=[2]), "stride must have 2 entries, not 1"),
    (_attribute("a.conv", stride=[2, {"array": 0}]), r"stride\[1\] must be an integer"),
    (_attribute("a.conv", weight_format=3), "weight_format must be of the type FixedPoint or PowerOfTwo or Bipolar"),
    (_attribute("a.conv", weight={"array": -1}), "-1 is no size"), (lambda h: h["arrays"][0].update(shape=[-1]), "-1 is no size"),
    (lambda h: h["arrays"][0].update(shape=[2 ** 40] * 4), "malformed"),
    (lambda h: h["arrays"][0].update(offset=True), "True is no size"),
    (lambda h: h.update(name=5), "name of the network must be one line"), (lambda h: h.update(name=[1]), "name of the network"),
    (lambda h: h.update(name=""), "name of the network"), (lambda h: h.update(name="n" * 201), "name of the network"),
    (lambda h: h.update(name="x\nmodule evil; endmodule\n//"), "name of "
     "the network must be one line of 1 to 200 printable characters"), (lambda h: h.update(name="x\u2028y"), "name of the network"),
    (lambda h: h.update(classes=["a", "b\r", "c"]), "A class name must be one line"),
    (lambda h: h.update(classes="ab"), "classes must be a list"), (lambda h: h.update(classes=[1, 2]), "A class name must"),
    (lambda h: h.update(preprocess={"bits": True}), "bits must be an integer of 1..8, not True"),
    (lambda h: h["nodes"][1].update(inputs="input"), "inputs must be a list, not 'input'"),
    (lambda h: h["nodes"][0].update(name=["input"]), "name must be of the type str"),
    (lambda h: h["nodes"][0].update(name="\u2167\u00e9"), "must be unique, of at most 200 letters"),
    (lambda h: h.update(nodes={}), "one Input, not 0"), (lambda h: h.update(nodes=3), "malformed"),
])
def test_a_header_that_says_anything(change, words):
    with pytest.raises(HwqError, match=words):
        ir.loads(_changed(change))


def test_a_header_too_deep():
    with pytest.raises(FormatError, match="malformed: RecursionError"):
        ir.loads(_changed(lambda header: None, '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"))


def test_values_that_are_no_integers():
    for weight, words in ((np.full((1, 2), 0.5), "no integers, e.g. 0.5"), (np.full((1, 2), np.inf), "no integers of 64 bits"),
                          (np.full((1, 2), 2 ** 63, np.uint64), "no integers of 64 bits"), (np.array([["a", "b"]]), "not of <U1")):
        with pytest.raises(ModelError, match=f"Linear 'fc': weight .*{words}"):
            n.Linear("fc", ("x",), weight)
    node = n.Input("x", (), [np.int64(4)], np.int16(-3), np.uint8(7))
    assert node.shape == (4,) and (type(node.shape[0]), type(node.lo), type(node.hi)) == (int, int, int)


def test_a_node_that_reads_itself():
    """Nothing may make its own input, beside the network's path or on it."""
    nodes = list(sample().nodes)
    with pytest.raises(ModelError, match="MaxPool2d 'x' reads 'x', which no earlier node makes"):
        ir.Graph((*nodes[:-1], n.MaxPool2d("x", ("x",)), nodes[-1]))
    with pytest.raises(ModelError, match="Add 'sum' reads 'sum', which no earlier node makes"):
        ir.Graph((*nodes[:-1], n.Add("sum", ("f", "sum")), n.Output("output", ("sum",))))


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
            ir.save(sample(), tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["x"]
