"""A network small enough to build in seconds."""

import numpy as np

from hwq.formats import FixedPoint
from hwq.ir import Conv2d, Flatten, Graph, Input, Linear, MaxPool2d, Output, Preprocess, Requantize

__all__ = ["small_graph"]


def small_graph(seed=0, *, channels=4, name="small"):
    """A 3x3 convolution with pooling, and a linear layer whose results are signed; 6x6 images of 4 bits."""
    rng = np.random.default_rng(seed)
    weight, flat = rng.integers(-7, 8, (channels, 3, 3, 1)), 9 * channels
    return Graph((
        Input("x", (), shape=(6, 6, 1), lo=0, hi=15),
        Conv2d("net.conv", ("x",), weight=weight, bias=rng.integers(-20, 20, channels), weight_format=FixedPoint(4, 0),
               pads=(1,) * 4), Requantize("q", ("net.conv",), mult=np.ones(1), offset=np.array([4]), shift=3, lo=0, hi=15),
        MaxPool2d("p", ("q",)), Flatten("f", ("p",)),
        Linear("fc", ("f",), weight=rng.integers(-4, 4, (3, flat)), bias=rng.integers(-20, 20, 3), weight_format=FixedPoint(3, 0)),
        Output("y", ("fc",))), preprocess=Preprocess(4), classes=("a", "b", "c"), name=name)
