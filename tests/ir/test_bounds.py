"""Ranges are exact or refused: nothing wraps on the way to the check, against Python's own integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwq.errors import ModelError
from hwq.formats import FixedPoint
from hwq.interp import run
from hwq.ir import Graph, channel_ranges
from hwq.ir import nodes as n

BIG = 1 << 62


def chain(shape, lo, hi, *nodes):
    """A network of nodes in a row."""
    made = [n.Input("x", (), shape, lo, hi)]
    for make in nodes:
        made.append(make(made[-1].name))
    return Graph((*made, n.Output("y", (made[-1].name,))))


def linear(weight, bias=None):
    weight = np.array(weight, np.int64)
    return lambda source: n.Linear("fc", (source,), weight, np.zeros(len(weight), np.int64) if bias is None else np.array(bias),
                                   FixedPoint(16, 0))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-30_000, 30_000), min_size=1, max_size=5), st.integers(-BIG, BIG), st.integers(-BIG + 1, BIG - 1),
       st.integers(0, BIG), st.integers(0, 62))
def test_sums(weights, bias, start, span, small):
    """Sums near and beyond 62 bits, down to small ones: exact, or refused where one does not fit."""
    lo, hi, bias = start >> small, min((start >> small) + (span >> small), BIG - 1), max(-BIG + 1, min(BIG - 1, bias)) >> small
    low, high = (bias + sum(f(w * lo, w * hi) for w in weights) for f in (min, max))
    node, edge = linear([weights], [bias])("x"), n.Edge((len(weights),), lo, hi)
    assert tuple(int(v[0]) for v in channel_ranges(node, edge)) == (low, high)
    if max(abs(low), abs(high)) < BIG:
        graph = chain((len(weights),), lo, hi, linear([weights], [bias]))
        assert (graph.edges["fc"].lo, graph.edges["fc"].hi) == (low, high)
        ends = np.array([[lo if w > 0 else hi for w in weights], [hi if w > 0 else lo for w in weights]])
        assert run(graph, ends)["y"].ravel().tolist() == [low, high]
    else:
        with pytest.raises(ModelError, match="Linear 'fc': the sums do not fit 62 bits"):
            chain((len(weights),), lo, hi, linear([weights], [bias]))


@settings(max_examples=200, deadline=None)
@given(st.integers(-BIG + 1, BIG - 1), st.integers(-BIG + 1, BIG - 1), st.integers(-BIG + 1, BIG - 1), st.integers(-62, 62),
       st.integers(0, 61), st.booleans())
def test_requantize(mult, offset, offset_neg, shift, small, even):
    """What is accepted is computed without wrapping; the bound covers the offset of negative sums."""
    mult, offset, offset_neg = mult >> small, offset >> small // 2, offset_neg >> small // 2

    def make(source):
        return n.Requantize("q", (source,), np.array([mult]), np.array([offset]), shift, -1000, 1000, np.array([offset_neg]), even)

    def true(acc):
        total = acc * mult + (offset_neg if acc < 0 else offset)
        if even and shift > 0:
            total += (1 << shift - 1) - 1 + (total >> shift & 1)
        return max(-1000, min(1000, total >> shift if shift >= 0 else total << -shift))

    if (8 * abs(mult) + max(abs(offset), abs(offset_neg))) << max(0, -shift) >= BIG:
        with pytest.raises(ModelError, match="Requantize 'q': products do not fit 62 bits"):
            chain((1,), -8, 7, make)
        return
    graph, codes = chain((1,), -8, 7, make), range(-8, 8)
    found = run(graph, np.array(codes).reshape(-1, 1))["y"].ravel().tolist()
    assert found == [true(acc) for acc in codes]
    assert (graph.edges["q"].lo, graph.edges["q"].hi) == (min(found), max(found))


@pytest.mark.parametrize("shape, lo, hi, make, words", [
    ((2,), 0, 15, lambda x: n.Add("a", (x, x), (BIG - 1, 1)), "Add 'a': products do not fit 62 bits"),
    ((2,), BIG // 2, BIG // 2, lambda x: n.Add("a", (x, x), (2, -2)), "Add 'a': products do not fit 62 bits"),
    ((2,), 0, BIG // 2, lambda x: n.Add("a", (x, x)), "Add 'a': the range .* does not fit 62 bits"),
    ((4, 4, 1), 0, 15, lambda x: n.Pad("p", (x,), (-1, 0, -3, 9)),
     r"Pad 'p': pads \(-1, 0, -3, 9\) leave nothing of the image of 4x4"),
    ((4, 4, 1), 0, 15, lambda x: n.Upsample("u", (x,), (0, 2)), "Upsample 'u': factor must be at least 1"),
    ((1 << 15, 1 << 16, 1), 0, 1, lambda x: n.Upsample("u", (x,)), "Upsample 'u': the shape .* has more than"),
    ((4, 4, 1), 0, BIG // 8, lambda x: n.GlobalAvgPool2d("g", (x,)), "GlobalAvgPool2d 'g': the range .* does not fit 62 bits"),
    ((1 << 32, 1 << 32, 1), 0, 15, lambda x: n.Flatten("f", (x,)), "Input 'x': the shape .* has more than"),
    ((1,), 0, 15, lambda x: n.Requantize("q", (x,), lo=0, hi=2, thresholds=np.array([[BIG - 1, -BIG]])), "thresholds must ascend"),
])
def test_refused(shape, lo, hi, make, words):
    with pytest.raises(ModelError, match=words):
        chain(shape, lo, hi, make)
