# amaranth: UnusedElaboratable=no
"""Images made of flat tensors: nothing moves, but lanes need not divide the channels any more."""

import numpy as np
import pytest

from hwq import ir
from hwq.errors import ModelError
from hwq.formats import FixedPoint
from hwq.interp import run
from hwq.ir import Flatten, Linear, MaxPool2d, Requantize, Unflatten, Upsample, dumps, loads

from .test_attributes import conv
from .test_corners import exact, linear
from .test_cycles import check
from .test_operators import signed

RNG = np.random.default_rng(0)


def image_of(*nodes, shape=(2, 4, 3)):
    """Return a network whose linear layer makes an image ``i``."""
    fc = Linear("fc", ("in",), weight=RNG.integers(-8, 8, (24, 12)), bias=RNG.integers(-50, 50, 24), weight_format=FixedPoint(4, 0))
    return signed(fc, Requantize("q", ("fc",), shift=3, lo=-8, hi=7), Unflatten("i", ("q",), shape), *nodes, shape=(12,))


NETWORKS = {
    "enlarged": image_of(Upsample("u", ("i",))),
    "convolved": image_of(*conv("a", "i", 4, (3, 3), 3, pads=(1, 1, 1, 1)), Flatten("f", ("a_q",)), linear("fc2", "f", 3, 32)),
    "other pixels": signed(Flatten("f", ("in",)), Unflatten("i", ("f",), (3, 5, 4)),
                           MaxPool2d("p", ("i",), (2, 2), (1, 1)), shape=(5, 2, 6)),
    "of the input": signed(Unflatten("i", ("in",), (3, 5, 4)), MaxPool2d("p", ("i",), (2, 2), (1, 1)), shape=(60,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_images_of_flat_tensors(name):
    graph = NETWORKS[name]
    exact(graph, "up5k")
    check(graph)
    x = np.arange(graph.edges["i"].lo, graph.edges["i"].lo + 4).repeat(np.prod(graph.input.shape) // 4).reshape(
        1, *graph.input.shape)
    edges = run(graph, x)
    np.testing.assert_array_equal(edges["i"].ravel(), edges[graph.by_name["i"].inputs[0]].ravel())
    assert edges["i"].shape[1:] == graph.by_name["i"].shape and dumps(loads(dumps(graph))) == dumps(graph)


@pytest.mark.parametrize("nodes", [
    (ir.Pad("b", ("i",), (1, 0, 0, 2), 5),), (MaxPool2d("p", ("i",), (2, 2), (1, 1)),),
    (ir.AvgPool2d("p", ("i",), (2, 2), (2, 2)),), (Upsample("u", ("i",)),),
    (Requantize("r", ("i",), mult=np.array([1, 3, -2]), shift=1, lo=-8, hi=9),),
    (ir.GlobalAvgPool2d("g", ("i",)), Requantize("r", ("g",), shift=3, lo=-8, hi=7)), tuple(conv("a", "i", 2, (2, 3), 3)),
    (ir.Add("s", ("i", "i"), (1, 2)),), (Flatten("f", ("i",)), ir.TopK("t", ("f",), 2))], ids=lambda nodes: nodes[-1].op)
def test_lanes_that_do_not_divide_the_channels(nodes):
    graph = image_of(*nodes)
    plan, _ = exact(graph, folds={"fc": (4, 12)})
    assert plan.layers[0].fold.lanes == 4
    check(graph, "generic", folds={"fc": (4, 12)})


@pytest.mark.parametrize("shape, text", [((2, 4, 4), "of 24 values"), ((24,), "of 24 values"), ((-2, -4, 3), "of 24 values")])
def test_shapes_that_are_refused(shape, text):
    with pytest.raises(ModelError, match=f"Unflatten 'i': shape must be .*{text}"):
        image_of(shape=shape)


def test_an_image_is_flat_no_more():
    with pytest.raises(ModelError, match="Unflatten 'i': input must be flat"):
        signed(Unflatten("i", ("in",), (6, 5, 2)))
