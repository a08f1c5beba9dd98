"""Every operator of the interpreter against torch in float64, on integers and random attributes."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwq import ir
from hwq.errors import ModelError
from hwq.formats import FixedPoint
from hwq.interp import encode_images, predict, run, run_batches
from hwq.ir import nodes as n

torch = pytest.importorskip("torch")
F = torch.nn.functional
QUICK = settings(max_examples=40, deadline=None)
SMALL = st.integers(0, 2)


def _run(node, x, lo=-8, hi=7, extra=()):
    shapes = x.shape[1:]
    graph = ir.Graph((n.Input("x", (), shapes, lo, hi), *extra, node, n.Output("y", (node.name,))))
    values = run(graph, x)
    for name, edge in graph.edges.items():
        assert values[name].shape[1:] == edge.shape
        assert edge.lo <= values[name].min() and values[name].max() <= edge.hi
    return values["y"]


def _torch(x):
    return torch.from_numpy(x.transpose(0, 3, 1, 2)).to(torch.float64)


def _back(y):
    return y.numpy().transpose(0, 2, 3, 1).astype(np.int64)


def _pad(x, pads, value=0.0):
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value)


@QUICK
@given(st.data(), st.tuples(SMALL, SMALL, SMALL, SMALL), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2),
       st.integers(1, 2), st.integers(-3, 3), st.integers(0, 2 ** 31))
def test_conv(data, pads, kh, kw, stride, dilation, groups, pad_value, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-8, 8, (2, 7, 6, 2 * groups))
    weight, bias = rng.integers(-8, 8, (3 * groups, kh, kw, 2)), rng.integers(-99, 99, 3 * groups)
    node = n.Conv2d("c", ("x",), weight, bias, FixedPoint(4, 0), (stride, data.draw(st.integers(1, 2))), pads, (dilation, dilation),
                    groups, pad_value)
    want = F.conv2d(_pad(_torch(x), pads, float(pad_value)), _torch(weight), torch.from_numpy(bias).double(), node.stride,
                    dilation=node.dilation, groups=groups)
    np.testing.assert_array_equal(_run(node, x), _back(want))


@QUICK
@given(st.integers(1, 3), st.integers(1, 3), st.tuples(SMALL, SMALL, SMALL, SMALL), st.integers(0, 2 ** 31))
def test_max_and_average_pool(kernel, stride, pads, seed):
    assume(max(pads) < kernel)
    x = np.random.default_rng(seed).integers(-8, 8, (2, 7, 6, 3))
    size, step = (kernel, kernel), (stride, stride)
    largest = F.max_pool2d(_pad(_torch(x), pads, -100.0), size, step)
    np.testing.assert_array_equal(_run(n.MaxPool2d("p", ("x",), size, step, pads), x), _back(largest))
    total = F.avg_pool2d(_pad(_torch(x), pads), size, step) * kernel * kernel
    np.testing.assert_array_equal(_run(n.AvgPool2d("p", ("x",), size, step, pads), x), _back(torch.round(total)))


@QUICK
@given(st.integers(0, 2 ** 31), st.tuples(*[st.integers(-1, 2)] * 4), st.integers(1, 3), st.integers(1, 3))
def test_shapers(seed, pads, up, across):
    x = np.random.default_rng(seed).integers(-8, 8, (2, 5, 4, 3))
    np.testing.assert_array_equal(_run(n.GlobalAvgPool2d("g", ("x",)), x), _back(_torch(x).sum((2, 3), keepdim=True)))
    np.testing.assert_array_equal(_run(n.Pad("p", ("x",), pads, -2), x), _back(_pad(_torch(x), pads, -2.0)))
    np.testing.assert_array_equal(_run(n.Flatten("f", ("x",)), x), x.reshape(2, -1))
    np.testing.assert_array_equal(_run(n.Upsample("u", ("x",), (up, across)), x),
                                  _back(F.interpolate(_torch(x), scale_factor=(up, across), mode="nearest")))


@QUICK
@given(st.integers(0, 2 ** 31), st.integers(1, 20), st.integers(1, 5))
def test_linear_and_argmax(seed, inputs, outputs):
    rng = np.random.default_rng(seed)
    x, weight, bias = rng.integers(-8, 8, (6, inputs)), rng.integers(-8, 8, (outputs, inputs)), rng.integers(-99, 99, outputs)
    linear = n.Linear("l", ("x",), weight, bias, FixedPoint(4, 0))
    want = F.linear(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), torch.from_numpy(bias).double()).numpy()
    np.testing.assert_array_equal(_run(linear, x), want)
    best = _run(n.ArgMax("a", ("l",)), x, extra=(linear,))
    np.testing.assert_array_equal(best[:, 0], want.argmax(1))


@given(seed=st.integers(0, 99), count=st.integers(1, 9), k=st.integers(1, 9))
@QUICK
def test_top_k(seed, count, k):
    assume(k <= count)
    x = np.random.default_rng(seed).integers(-3, 4, (5, count))
    want = [[i for _, i in sorted((-v, i) for i, v in enumerate(row))[:k]] for row in x.tolist()]
    assert _run(n.TopK("t", ("x",), k), x).tolist() == want
    with pytest.raises(ModelError, match=f"k must lie in 1..{count}, not {count + 1}"):
        _run(n.TopK("t", ("x",), count + 1), x)


@QUICK
@given(st.integers(0, 2 ** 31), st.integers(1, 6), st.data())
def test_select(seed, count, data):
    x = np.random.default_rng(seed).integers(-8, 8, (2, 3, 2, 6))
    channels = sorted(data.draw(st.sets(st.integers(0, 5), min_size=count, max_size=count)))
    select = n.Select("s", ("x",), np.array(channels))
    np.testing.assert_array_equal(_run(select, x), _back(torch.index_select(_torch(x), 1, torch.tensor(channels))))
    for wrong in ([], [1, 1], [2, 1], [-1], [6], [[0]]):
        with pytest.raises(ModelError, match="Select 's': channels must be some of 0 to 5, ascending"):
            _run(n.Select("s", ("x",), np.array(wrong, np.int64)), x)


def test_add_and_concat():
    x = np.random.default_rng(0).integers(-8, 8, (2, 3, 3, 2))
    pool = n.MaxPool2d("p", ("x",), (1, 1), (1, 1))
    np.testing.assert_array_equal(_run(n.Add("a", ("x", "p"), (3, -2)), x, extra=(pool,)), x)
    np.testing.assert_array_equal(_run(n.Concat("c", ("x", "p")), x, extra=(pool,)), np.concatenate([x, x], -1))


@QUICK
@given(st.integers(0, 2 ** 31), st.integers(-3, 8), st.booleans())
def test_requantize_in_both_forms(seed, shift, per_channel):
    rng = np.random.default_rng(seed)
    x, rows = rng.integers(-8, 8, (2, 4, 4, 3)), 3 if per_channel else 1
    mult, offset = rng.integers(-50, 50, rows), rng.integers(-500, 500, rows)
    node = n.Requantize("r", ("x",), mult, offset, shift, -4, 11)
    want = torch.floor((_torch(x) * torch.from_numpy(mult).view(-1, 1, 1) + torch.from_numpy(offset).view(-1, 1, 1)) / 2.0 ** shift)
    np.testing.assert_array_equal(_run(node, x), _back(want.clamp(-4, 11)))
    steps = np.sort(rng.integers(-9, 9, (rows, 5)), axis=1)
    found = _run(n.Requantize("r", ("x",), lo=2, hi=7, thresholds=steps), x)
    np.testing.assert_array_equal(found, 2 + (x[..., None] >= steps).sum(-1))


def test_large_sums_stay_exact():
    weight = np.full((1, 3000), 32767)
    x = np.full((1, 3000), 32767)
    x[0, 0] -= 1
    graph = ir.Graph((n.Input("x", (), (3000,), 0, 32767), n.Linear("l", ("x",), weight, np.array([1]), FixedPoint(16, 0)),
                      n.Output("y", ("l",))))
    assert int(run(graph, x)["y"][0, 0]) == 3000 * 32767 ** 2 - 32767 + 1


def test_wrong_inputs_are_refused():
    graph = ir.Graph((n.Input("x", (), (2, 2, 1), 0, 15), n.Output("y", ("x",))), ir.Preprocess(4))
    with pytest.raises(ModelError, match=r"\(images, 2, 2, 1\)"):
        run(graph, np.zeros((1, 4), np.int64))
    with pytest.raises(ModelError, match="0..16 lie outside 0..15"):
        run(graph, np.array([0, 1, 2, 16]).reshape(1, 2, 2, 1))
    with pytest.raises(ModelError, match="uint8"):
        encode_images(graph, np.zeros((1, 2, 2), np.int64))
    with pytest.raises(ModelError, match=r"\(2, 2, 1\)"):
        encode_images(graph, np.zeros((1, 3, 2), np.uint8))
    np.testing.assert_array_equal(encode_images(graph, np.array([[[255, 16], [15, 0]]], np.uint8))[0, ..., 0], [[15, 1], [0, 0]])
    assert run_batches(graph, np.zeros((0, 2, 2, 1), np.int64)).shape == (0, 2, 2, 1)


def test_ties_go_to_the_lowest_class():
    graph = ir.Graph((n.Input("x", (), (3,), 0, 9), n.Output("y", ("x",))))
    assert predict(graph, np.array([[1, 5, 5], [2, 2, 2]])).tolist() == [1, 0]
