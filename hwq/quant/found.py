"""What an operator of a torch network is, and the refusal of what it may not be."""

from dataclasses import dataclass
from math import inf
from typing import Any

from ..errors import ModelError

__all__ = ["Found", "SUPPORTED", "refuse"]

SUPPORTED = ("Conv1d/2d, Linear, BatchNorm1d/2d behind them, ReLU, ReLU6, Hardtanh, LeakyReLU, PReLU, MaxPool1d/2d, AvgPool1d/2d, "
             "AdaptiveAvgPool1d/2d to sizes that divide the image's, mean over the image, additions, concatenations along "
             "the channels, ZeroPad1d/2d, Upsample (nearest), Flatten, Unflatten, ChannelShuffle, Dropout, Identity, slices of "
             "channels, rows and columns (x[:, a:b], x[:, :, :-k], x[..., -1], chunk, split, narrow, select), Softmax, LogSoftmax, "
             "Sigmoid and argmax at the end, and the functions "
             "relu, relu6, hardtanh, leaky_relu, prelu, clamp, max_pool1d/2d, avg_pool1d/2d, adaptive_avg_pool1d/2d, add, cat, "
             "pad, interpolate, flatten, view, reshape, squeeze, dropout, softmax, log_softmax, sigmoid")

Pads = tuple[int, int, int, int]


@dataclass(frozen=True)
class Found:
    """What a layer or function is.

    Attributes
    ----------
    kind : str
        ``conv``, ``linear``, ``bn``, ``clip``, ``slope``, ``maxpool``, ``avgpool``, ``gap``, ``gap+flatten``, ``flatten``,
        ``unflatten``, ``shuffle``, ``select``, ``pad``, ``upsample``, ``add``, ``concat``, ``tail`` (such as a softmax),
        ``argmax``; empty where nothing is to do at run time.
    kernel, stride : (int, int)
        Of a pooling; of an upsampling, its factors.
    pads : (top, left, bottom, right)
        Of a pooling or padding; what ``ceil_mode`` adds is among them. Of a padding, below 0: pixels that go.
    order : tuple of int
        Of a shuffle of channels or a slice: ``out[i] = in[order[i]]``.
    inside : bool
        Of an average pooling: each window is divided by its pixels inside the image.
    clip : (float, float)
        Of a ReLU or another clamp, its ends: least and largest value.
    slope : float
        Of a LeakyReLU; of a PReLU the module has it.
    several : bool
        Of a PReLU: one a channel.
    text : str
        Of what stands at the end, for messages.
    """

    kind: str
    kernel: tuple[int, int] = (0, 0)
    stride: tuple[int, int] = (0, 0)
    pads: Pads = (0, 0, 0, 0)
    clip: tuple[float, float] = (-inf, inf)
    inside: bool = False
    order: tuple[int, ...] = ()
    slope: float = 1.0
    several: bool = False
    text: str = ""


def refuse(name: str, attribute: str, value: Any, accepted: str) -> None:
    """Raise the `ModelError` of an attribute."""
    raise ModelError(f"Node '{name}': {attribute} = {value!r} is not supported; accepted: {accepted}")
