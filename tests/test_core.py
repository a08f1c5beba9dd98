"""Formats, arithmetic, IR, file, interpreter, passes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwq.arith import scale_shift, width_of
from hwq.errors import FormatError, ModelError
from hwq.formats import Bipolar, FixedPoint, PowerOfTwo, parse_spec
from hwq.interp import run
from hwq.ir import (
    Conv2d,
    Flatten,
    Graph,
    Input,
    Linear,
    MaxPool2d,
    Output,
    Preprocess,
    Requantize,
    dumps,
    load,
    loads,
    save,
    to_text,
)
from hwq.passes import HARDWARE_PASSES, apply_passes

FORMATS = [FixedPoint(b, 3) for b in (2, 3, 8, 16)] + [FixedPoint(5, 0, signed=False), FixedPoint(4, 1, narrow=True)] \
    + [PowerOfTwo(b, -1) for b in (2, 3, 4, 5)] + [Bipolar(2)]


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda f: f.text)
def test_all_codes_round_trip(fmt):
    words = np.arange(1 << fmt.width)
    values = fmt.decode(words)
    if isinstance(fmt, FixedPoint) and fmt.narrow:
        words = words[values != -(1 << fmt.width - 1)]
    if isinstance(fmt, PowerOfTwo):
        words = words[words != 1 << (fmt.width - 1)]     # minus zero
    values = fmt.decode(words)
    assert (fmt.encode(values) == words).all() and len(set(values.tolist())) == len(words)
    assert parse_spec(fmt.text).resolve(parse_spec(fmt.text).scale) == fmt
    with pytest.raises(FormatError):
        fmt.check(np.array([fmt.range[1] + 1]))


@pytest.mark.parametrize("text", ["", "dfp", "dfp:b=1", "dfp:b=17", "po2:b=6", "dfp:b=x", "int:b=4", "dfp:b=4,b=4", "dfp:b=4,zz=1"])
def test_bad_specs_are_refused(text):
    with pytest.raises(FormatError, match="dfp|po2|Width"):
        parse_spec(text)


@given(st.integers(-10**6, 10**6), st.integers(-99, 99), st.integers(-10**4, 10**4), st.integers(-4, 20), st.booleans())
def test_scale_shift_is_rational_arithmetic(acc, mult, offset, shift, even):
    got = int(scale_shift(np.array(acc), mult, offset, shift, -500, 500, half_even=even))
    total = acc * mult + offset
    want = round(total / 2 ** shift) if even and shift > 0 else (total * 2 ** -shift if shift < 0 else total // 2 ** shift)
    assert got == max(-500, min(500, want))


@given(st.integers(-2**40, 2**40), st.integers(0, 2**40))
def test_width_is_least(lo, span):
    width, signed = width_of(lo, lo + span)
    def fits(w):
        return (-(1 << w - 1) <= lo and lo + span < 1 << w - 1) if signed else lo + span < 1 << w
    assert signed == (lo < 0) and fits(width) and (width == 1 or not fits(width - 1))


def network(seed, channels=(2, 4), size=6, bits=4, pool=True):
    rng = np.random.default_rng(seed)
    w1 = rng.integers(-8, 8, (channels[1], 3, 3, channels[0]))
    side = size // 2 if pool else size
    w2 = rng.integers(-2, 2, (3, side * side * channels[1]))
    nodes = [Input("x", (), shape=(size, size, channels[0]), lo=0, hi=15, frac_bits=4),
             Conv2d("conv", ("x",), weight=w1, bias=rng.integers(-50, 50, channels[1]), weight_format=FixedPoint(4, 3),
                    pads=(1, 1, 1, 1)),
             Requantize("relu", ("conv",), mult=rng.integers(1, 9, channels[1]), offset=np.array([16]), shift=5, lo=0, hi=15)]
    if pool:
        nodes.append(MaxPool2d("pool", ("relu",)))
    nodes += [Flatten("flat", (nodes[-1].name,)),
              Linear("fc", ("flat",), weight=w2, bias=rng.integers(-50, 50, 3), weight_format=FixedPoint(2, 1)),
              Output("y", ("fc",))]
    return Graph(tuple(nodes), Preprocess(4), ("a", "b", "c"), "tiny")


@given(seed=st.integers(0, 1000), stride=st.integers(1, 3), pads=st.tuples(*[st.integers(0, 2)] * 4),
       groups=st.sampled_from([1, 2]), dilation=st.integers(1, 2))
@settings(max_examples=40, deadline=None)
def test_interpreter_equals_torch(seed, stride, pads, groups, dilation):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    w, b = rng.integers(-8, 8, (4, 3, 2, 4 // groups)), rng.integers(-99, 99, 4)
    x = rng.integers(0, 16, (2, 7, 6, 4))
    graph = Graph((Input("x", (), shape=(7, 6, 4), lo=0, hi=15),
                   Conv2d("c", ("x",), weight=w, bias=b, weight_format=FixedPoint(4, 0), stride=(stride, stride), pads=pads,
                          groups=groups, dilation=(dilation, dilation), pad_value=3), Output("y", ("c",))))
    planes = torch.tensor(x).double().permute(0, 3, 1, 2)
    planes = torch.nn.functional.pad(planes, (pads[1], pads[3], pads[0], pads[2]), value=3.0)
    want = torch.nn.functional.conv2d(planes, torch.tensor(w).double().permute(0, 3, 1, 2), torch.tensor(b).double(),
                                      stride, 0, dilation, groups).permute(0, 2, 3, 1).numpy()
    got = run(graph, x)["y"]
    assert (got == want).all()
    assert graph.edges["c"].lo <= got.min() and got.max() <= graph.edges["c"].hi


@pytest.mark.parametrize("each", HARDWARE_PASSES, ids=lambda p: p.name)
def test_passes_change_no_output(each):
    graph = network(1)
    x = np.random.default_rng(0).integers(0, 16, (20, 6, 6, 2))
    assert (run(each.apply(graph), x)["y"] == run(graph, x)["y"]).all()
    assert (run(apply_passes(graph), x)["y"] == run(graph, x)["y"]).all()
    assert not any(node.bias.any() for node in apply_passes(graph) if isinstance(node, Conv2d | Linear))


def test_file_round_trips_and_refuses_damage(tmp_path):
    graph = network(2)
    save(graph, tmp_path / "n.hwq")
    again = load(tmp_path / "n.hwq")
    data = dumps(graph)
    assert to_text(again) == to_text(graph) and dumps(again) == data and again.classes == graph.classes
    for cut in (0, 5, 20, len(data) // 2, len(data) - 1):
        with pytest.raises(FormatError):
            loads(data[:cut])
    for place in (0, 7, 30, len(data) - 40, len(data) - 1):
        with pytest.raises(FormatError):
            loads(data[:place] + bytes([data[place] ^ 1]) + data[place + 1:])
    with pytest.raises(FormatError, match="Cannot read"):
        load(tmp_path / "missing.hwq")


def test_graph_names_its_faults():
    graph = network(3)
    nodes = list(graph.nodes)
    with pytest.raises(ModelError, match="Linear 'fc': 36 inputs do not match"):
        graph.with_nodes([replace(n, weight=np.zeros((3, 5))) if n.name == "fc" else n for n in nodes])
    with pytest.raises(FormatError, match="Conv2d 'conv': Values"):
        graph.with_nodes([replace(n, weight=n.weight + 100) if n.name == "conv" else n for n in nodes])
    with pytest.raises(ModelError, match="which no earlier node makes"):
        graph.with_nodes(nodes[1:])
    with pytest.raises(ModelError, match="one Output, not 0"):
        graph.with_nodes(nodes[:-1])
    with pytest.raises(ModelError, match="outside 0..15"):
        run(graph, np.full((1, 6, 6, 2), 16))
