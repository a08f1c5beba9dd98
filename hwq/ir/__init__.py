"""The integer intermediate representation: nodes, graph, checker, text form, storage. No torch, no amaranth."""

from .graph import Graph, Preprocess
from .infer import channel_ranges, infer, window_size
from .nodes import (
    NODE_TYPES,
    Add,
    ArgMax,
    AvgPool2d,
    Concat,
    Conv2d,
    Edge,
    Flatten,
    GlobalAvgPool2d,
    Input,
    Linear,
    MaxPool2d,
    Node,
    Output,
    Pad,
    Permute,
    Requantize,
    Select,
    TopK,
    Unflatten,
    Upsample,
)
from .storage import content_hash, dumps, load, loads, save
from .text import to_text

__all__ = [
    "Graph", "Preprocess", "infer", "channel_ranges", "window_size", "NODE_TYPES", "Node", "Edge", "Input", "Conv2d",
    "Linear", "Add", "Concat", "MaxPool2d", "AvgPool2d", "GlobalAvgPool2d", "Pad", "Upsample", "Flatten", "Unflatten",
    "Permute", "Select", "Requantize", "ArgMax", "TopK", "Output", "save", "load", "dumps", "loads", "content_hash", "to_text",
]
