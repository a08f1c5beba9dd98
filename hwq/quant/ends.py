"""Ends of networks that the hardware leaves out or ranks by itself: Softmax, LogSoftmax, Sigmoid, argmax."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import ModelError
from .tracing import Op, trace

__all__ = ["split_ends", "on_logits"]

_KINDS = ("tail", "argmax")
_CALLS = {F.softmax, F.log_softmax, F.sigmoid, torch.softmax, torch.log_softmax, torch.sigmoid, torch.argmax, torch.Tensor.softmax,
          torch.Tensor.log_softmax, torch.Tensor.sigmoid, torch.Tensor.argmax}


def split_ends(ops: Sequence[Op]) -> tuple[list[Op], tuple[str, ...], str]:
    """Return the operators without those at the end, notes of what is left out, and the name of an argmax that hardware does.

    Raises
    ------
    ModelError
        One stands in the middle.
    """
    for op in ops:
        for source in op.sources:
            before = ops[source] if source >= 0 else op
            if before.kind in _KINDS and (op.kind not in _KINDS or before.kind == "argmax"):
                raise ModelError(f"Node '{before.name}': {before.found.text} in the middle of a network, before '{op.name}', is "
                                 "not supported; supported: as the last operation")
    body, notes, rank = [op for op in ops if op.kind not in _KINDS], list[str](), ""
    for op in ops[len(body):]:
        if op.kind == "argmax" and len(op.shape_in) == 1:
            rank = op.name
            notes.append(f"'{op.name}' ({op.found.text}) is the integer network's last layer; in torch the prepared network gives "
                         "what it ranks")
        else:
            notes.append(f"'{op.name}' ({op.found.text}) is left out: the output is its input. " + (
                "It rises with its input: positive inputs are above a half" if op.found.text == "sigmoid"
                else "The largest value stays the largest" if op.kind == "tail" else "The class is the place of the largest value"))
    return body, tuple(notes), rank


class _LeftOut(TorchFunctionMode):
    """Inside, the functions of the ends give their input back."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _CALLS:
            return args[0] if args else (kwargs or {})["input"]
        return func(*args, **(kwargs or {}))


class _OnLogits(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give what stands before the ends."""
        with _LeftOut():
            return super().forward(x)              # type: ignore[no-any-return]


def on_logits(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """Return a network that gives what stands before the ends that `prepare` leaves out, for a loss on logits.

    It has the given one's layers and parameters themselves, by the same names. A network without such ends is returned as it is,
    as is one that `prepare` would refuse, such as a teacher.
    """
    if isinstance(network, _OnLogits):
        return network
    try:
        ends = split_ends(trace(network, example))[1]
    except ModelError:
        return network
    if not ends:
        return network
    made = copy.copy(network)
    made.__class__ = type(type(network).__name__, (_OnLogits, type(network)), {})
    return made
