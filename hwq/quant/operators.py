"""What each layer and function of a user's network is, with its geometry; all that cannot be done exactly is refused by name."""

import operator
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ..errors import ModelError
from .found import SUPPORTED, Found, refuse
from .lines import wide
from .shuffles import group_shuffle

__all__ = ["PRELUS", "layer", "function", "prelu"]

PRELUS = (F.prelu, torch.prelu, "prelu")

Shape = tuple[int, ...]


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _windows(kind: str, shape: Shape, out: Shape, kernel_size: Any, stride: Any, padding: Any, ceil_mode: Any) -> Found:
    kernel, (down, right) = _pair(kernel_size), _pair(padding)
    stride = kernel if stride is None or stride == [] else _pair(stride)
    pads = (down, right, down, right)
    if ceil_mode:                                  # as far as the last windows reach
        down, right = [max((count - 1) * s + k - size - before, 0)
                       for size, count, k, s, before in zip(wide(shape)[1:], wide(out)[1:], kernel, stride, pads[:2], strict=True)]
        pads = (*pads[:2], down, right)
    return Found(kind, kernel, stride, pads)


def _max_pool(name: str, shape: Shape, out: Shape, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
              ceil_mode: Any = False, return_indices: Any = False) -> Found:
    if _pair(dilation) != (1, 1):
        refuse(name, "dilation", dilation, "1")
    if return_indices:
        refuse(name, "return_indices", return_indices, "False")
    return _windows("maxpool", shape, out, kernel_size, stride, padding, ceil_mode)


def _avg_pool(name: str, shape: Shape, out: Shape, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: Any = False,
              count_include_pad: Any = True, divisor_override: Any = None) -> Found:
    if divisor_override is not None:
        refuse(name, "divisor_override", divisor_override, "None")
    found = _windows("avgpool", shape, out, kernel_size, stride, padding, False)
    if ceil_mode and any(more > pad for more, pad in zip(_windows("", shape, out, kernel_size, stride, padding, True).pads,
                                                         found.pads, strict=True)):
        refuse(name, "ceil_mode", ceil_mode,
               f"False where windows leave an image of {wide(shape)[1:]}, which torch divides by another number")
    return found if count_include_pad or not any(found.pads) else replace(found, inside=True)


def _clip(name: str, low: Any, high: Any) -> Found:
    """Return a clamp; its range holds zero, as the borders do that it may change places with."""
    ends = (-inf if low is None else low, inf if high is None else high)
    if not all(isinstance(end, int | float) for end in ends) or not ends[0] <= 0 <= ends[1] or ends[0] == ends[1]:
        refuse(name, "range", (low, high), "numbers, the first at most 0, the second at least 0, not both 0")
    return Found("clip", clip=(float(ends[0]), float(ends[1])))


_RELU = Found("clip", clip=(0.0, inf))


def _slope(name: str, slope: Any) -> Found:
    if not isinstance(slope, int | float):
        refuse(name, "negative_slope", slope, "a number")
    return Found("slope", slope=float(slope))


def prelu(name: str, module: nn.PReLU | None) -> Found:
    """Return what a PReLU is; None: a function with a slope that is no parameter."""
    if module is None:
        refuse(name, "weight", "what is computed", "a parameter or buffer of the module")
    assert module is not None
    return Found("slope", several=module.weight.numel() > 1)


def _end(name: str, text: str, shape: Shape, dim: Any) -> Found:
    """Return a softmax or argmax, over the channels only; torch's softmax has a default that depends on the shape."""
    axis = (1 if len(shape) in (1, 3) else 0) if dim is None and text != "argmax" else dim
    if not isinstance(axis, int) or axis % (len(shape) + 1) != 1:
        refuse(name, f"dim of {text}", dim, "1, the channels")
    return Found("argmax" if text == "argmax" else "tail", text=text)


def _adaptive(name: str, shape: Shape, out: Shape) -> Found:
    size, wanted = wide(shape)[1:], wide(out)[1:]
    if wanted == (1, 1):
        return Found("gap")
    if any(old % new for old, new in zip(size, wanted, strict=True)):
        refuse(name, "output_size", out[1:], f"1 (global average), or what divides the image's {shape[1:]}")
    kernel = size[0] // wanted[0], size[1] // wanted[1]
    return Found("avgpool" if kernel != (1, 1) else "", kernel, kernel)


def _pad(name: str, pad: Any, mode: str = "constant", value: Any = None) -> Found:
    if mode != "constant":
        refuse(name, "mode", mode, "'constant'")
    if value not in (None, 0):
        refuse(name, "value", value, "0")
    if len(pad) not in (2, 4):
        refuse(name, "pad", tuple(pad), "2 or 4 numbers, for width and height")
    left, right, top, bottom = (*pad, 0, 0)[:4]
    return Found("pad", pads=(top, left, bottom, right))


def _upsample(name: str, shape: Shape, out: Shape, mode: str) -> Found:
    if mode not in ("nearest", "nearest-exact"):
        refuse(name, "mode", mode, "'nearest'")
    if len(shape) != 3 or out[1] % shape[1] or out[2] % shape[2]:
        refuse(name, "size", out[1:], f"a multiple of the image's {shape[1:]}")
    return Found("upsample", (out[1] // shape[1], out[2] // shape[2]))


def layer(name: str, module: nn.Module, shape: Shape, out: Shape) -> Found:
    """Return what a layer is; ``shape`` and ``out`` are those of its input and output, without the batch; 1-D ones are `widened`.

    Raises
    ------
    ModelError
        It is not supported, or one of its attributes is not.
    """
    kind = type(module)
    if kind is nn.Conv2d:
        if module.padding_mode != "zeros":
            refuse(name, "padding_mode", module.padding_mode, "'zeros'")
        return Found("conv")
    if kind is nn.Linear:
        return Found("linear")
    if kind in (nn.BatchNorm2d, nn.BatchNorm1d):
        if module.running_mean is None:
            refuse(name, "track_running_stats", False, "True")
        return Found("bn")
    if kind is nn.ReLU:
        return _RELU
    if isinstance(module, nn.Hardtanh) and kind in (nn.Hardtanh, nn.ReLU6):
        return _clip(name, module.min_val, module.max_val)
    if isinstance(module, nn.MaxPool2d) and kind is nn.MaxPool2d:
        return _max_pool(name, shape, out, module.kernel_size, module.stride, module.padding, module.dilation,
                         module.ceil_mode, module.return_indices)
    if isinstance(module, nn.AvgPool2d) and kind is nn.AvgPool2d:
        return _avg_pool(name, shape, out, module.kernel_size, module.stride, module.padding, module.ceil_mode,
                         module.count_include_pad, module.divisor_override)
    if kind is nn.AdaptiveAvgPool2d:
        return _adaptive(name, shape, out)
    if isinstance(module, nn.LeakyReLU) and kind is nn.LeakyReLU:
        return _slope(name, module.negative_slope)
    if isinstance(module, nn.PReLU) and kind is nn.PReLU:
        return prelu(name, module)
    if isinstance(module, nn.Softmax | nn.LogSoftmax) and kind in (nn.Softmax, nn.LogSoftmax):
        return _end(name, "softmax" if kind is nn.Softmax else "log_softmax", shape, module.dim)
    if kind is nn.Sigmoid:
        return Found("tail", text="sigmoid")
    if kind in (nn.ZeroPad2d, nn.ConstantPad2d):
        return _pad(name, module.padding, "constant", module.value)
    if kind in (nn.Upsample, nn.UpsamplingNearest2d):
        return _upsample(name, shape, out, str(module.mode))
    if kind is nn.Flatten:
        if module.start_dim != 1 or len(out) != 1:
            refuse(name, "start_dim, end_dim", (module.start_dim, module.end_dim), "1, -1")
        return Found("flatten")
    if kind is nn.Unflatten:
        return _unflatten(name, shape, out)
    if isinstance(module, nn.ChannelShuffle) and kind is nn.ChannelShuffle:
        return Found("shuffle", order=group_shuffle(shape[0], module.groups))
    if isinstance(module, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Identity):
        return Found("")
    raise ModelError(f"Node '{name}': layer {kind.__name__} is not supported; supported: {SUPPORTED}")


def _given(node: fx.Node, *names: str) -> dict[str, Any]:
    """Return a function's arguments behind its tensor, by name; sizes computed on the way as numbers."""
    given = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
    given = {key: fx.node.map_arg(value, lambda each: each.meta.get("value", each)) for key, value in given.items()}
    return {key: value for key, value in given.items() if key not in ("inplace", "input", "out")}


def _mean(name: str, node: fx.Node, shape: Shape) -> Found:
    given = _given(node, "dim", "keepdim")
    axes, rank = given.get("dim"), len(shape) + 1
    places = [axes] if isinstance(axes, int) else axes
    if rank not in (3, 4) or not isinstance(places, tuple | list) or sorted(a % rank for a in places) != list(range(2, rank)):
        refuse(name, "dim", axes, "(2, 3), the whole image, or 2, the whole line")
    if given.get("dtype") is not None:
        refuse(name, "dtype", given["dtype"], "None")
    return Found("gap" if given.get("keepdim") else "gap+flatten")


def _unflatten(name: str, shape: Shape, out: Shape) -> Found:
    if len(shape) != 1 or len(out) not in (2, 3):
        refuse(name, "shape behind it", out, "(channels, height, width) or (channels, length) of a flat tensor")
    return Found("unflatten")


def _flatten(name: str, node: fx.Node, shape: Shape, out: Shape) -> Found:
    if node.target in (torch.flatten, "flatten"):
        given = _given(node, "start_dim", "end_dim")
        if given.get("start_dim", 0) != 1 or given.get("end_dim", -1) not in (-1, len(shape)):
            refuse(name, "start_dim, end_dim", (given.get("start_dim", 0), given.get("end_dim", -1)), "1, -1")
    if len(shape) == 1 and len(out) > 1:
        return _unflatten(name, shape, out)
    size = 1
    for axis in shape:
        size *= axis
    if out != (size,):
        refuse(name, f"shape behind {_called(node)}", out, f"({size},): all but the batch in one axis")
    return Found("flatten")


def _squeeze(name: str, node: fx.Node, shape: Shape, out: Shape) -> Found:
    if wide(out) == wide(shape):
        return Found("")
    if len(shape) < 2 or out != shape[:1] or any(size != 1 for size in shape[1:]):
        refuse(name, "shape behind squeeze", out, "the channels alone, of one pixel")
    return Found("flatten")


def _lined(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a 1-D window as those of a 2-D one of height 1."""
    def one(value: Any) -> int:
        return int(value[0] if isinstance(value, tuple | list) else value)
    ends = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}
    return {key: (ends[key], one(value)) if key in ends and value not in (None, (), []) else value for key, value in given.items()}


def _add(name: str, node: fx.Node, shape: Shape, out: Shape) -> Found:
    given = _given(node, "other", "alpha")
    operands = [given.get("other"), *node.args[:1]]
    if given.get("alpha", 1) != 1:
        refuse(name, "alpha", given["alpha"], "1")
    numbers = [operand for operand in operands if not isinstance(operand, fx.Node)]
    if numbers and numbers != [0]:
        raise ModelError(f"Node '{name}' adds {numbers[0]!r}; supported: the sum of two tensors of one shape")
    return Found("" if numbers else "add")


def _concat(name: str, node: fx.Node, shape: Shape, out: Shape) -> Found:
    axis = _given(node, "dim", "axis").get("dim", node.kwargs.get("axis", 0))
    if not isinstance(axis, int) or axis % (len(out) + 1) != 1:
        refuse(name, "dim", axis, "1, the channels")
    return Found("concat")


def _called(node: fx.Node) -> str:
    target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    windows = [name for name in ("max_pool1d", "max_pool2d") if node.name.startswith(name)]
    return windows[0] if windows and target in ("boolean_dispatch", "_max_pool1d", "_max_pool2d", "fn") else target


_FUNCTIONS: list[tuple[tuple[Any, ...], Callable[[str, fx.Node, Shape, Shape], Found]]] = [
    ((F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"), lambda name, node, shape, out: _RELU),
    ((F.relu6,), lambda name, node, shape, out: _clip(name, 0, 6)),
    ((F.hardtanh, F.hardtanh_),
     lambda name, node, shape, out: _clip(name, *({"min_val": -1, "max_val": 1} | _given(node, "min_val", "max_val")).values())),
    ((torch.clamp, torch.clip, torch.clamp_, torch.clip_, "clamp", "clip", "clamp_", "clip_"), lambda name, node, shape, out: _clip(
        name, *({"min": None, "max": None} | _given(node, "min", "max")).values())),
    ((torch.clamp_min, torch.clamp_min_, "clamp_min", "clamp_min_"),
     lambda name, node, shape, out: _clip(name, _given(node, "min")["min"], None)),
    ((torch.clamp_max, torch.clamp_max_, "clamp_max", "clamp_max_"),
     lambda name, node, shape, out: _clip(name, None, _given(node, "max")["max"])),
    ((F.max_pool2d, torch.max_pool2d), lambda name, node, shape, out: _max_pool(
        name, shape, out, **_given(node, "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"))),
    ((F.avg_pool2d,), lambda name, node, shape, out: _avg_pool(
        name, shape, out,
        **_given(node, "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"))),
    ((F.max_pool1d, torch.max_pool1d), lambda name, node, shape, out: _max_pool(
        name, shape, out, **_lined(_given(node, "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")))),
    ((F.avg_pool1d, torch.avg_pool1d), lambda name, node, shape, out: _avg_pool(
        name, shape, out, **_lined(_given(node, "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")))),
    ((F.adaptive_avg_pool2d, F.adaptive_avg_pool1d, torch.adaptive_avg_pool1d),
     lambda name, node, shape, out: _adaptive(name, shape, out)),
    ((F.leaky_relu, F.leaky_relu_),
     lambda name, node, shape, out: _slope(name, _given(node, "negative_slope").get("negative_slope", 0.01))),
    ((F.softmax, torch.softmax, "softmax"), lambda name, node, shape, out: _end(
        name, "softmax", shape, _given(node, "dim").get("dim"))),
    ((F.log_softmax, torch.log_softmax, "log_softmax"), lambda name, node, shape, out: _end(
        name, "log_softmax", shape, _given(node, "dim").get("dim"))),
    ((F.sigmoid, torch.sigmoid, "sigmoid"), lambda name, node, shape, out: Found("tail", text="sigmoid")),
    ((torch.argmax, "argmax"), lambda name, node, shape, out: _end(name, "argmax", shape, _given(node, "dim").get("dim"))),
    ((torch.mean, "mean"), lambda name, node, shape, out: _mean(name, node, shape)),
    ((torch.flatten, "flatten", "view", "reshape", torch.reshape), _flatten),
    (("unflatten", torch.unflatten), lambda name, node, shape, out: _unflatten(name, shape, out)),
    ((torch.channel_shuffle,),
     lambda name, node, shape, out: Found("shuffle", order=group_shuffle(shape[0], _given(node, "groups")["groups"]))),
    ((torch.squeeze, "squeeze", torch.unsqueeze, "unsqueeze"), _squeeze),
    ((F.dropout, F.dropout1d, F.dropout2d, "contiguous"), lambda name, node, shape, out: Found("")),
    ((F.pad,), lambda name, node, shape, out: _pad(name, **_given(node, "pad", "mode", "value"))),
    ((F.interpolate, F.upsample), lambda name, node, shape, out: _upsample(
        name, wide(shape), wide(out), _given(node, "size", "scale_factor", "mode").get("mode", "nearest"))),
    ((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
    ((torch.cat, torch.concat, torch.concatenate), _concat),
]


def function(name: str, node: fx.Node, shape: Shape, out: Shape) -> Found:
    """Return what a called function or method is; shapes as for `layer`.

    Raises
    ------
    ModelError
        It is not supported, or one of its arguments is not.
    """
    for targets, rule in _FUNCTIONS:
        if node.target in targets:
            return rule(name, node, shape, out)
    raise ModelError(f"Node '{name}': function '{_called(node)}' is not supported; supported: {SUPPORTED}")
