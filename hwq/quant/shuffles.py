"""Channel shuffles as ShuffleNet writes them: a view in groups, a transposition, and a view back."""

from collections.abc import Callable

import torch
from torch import fx

from .lines import wide

__all__ = ["shuffle_of", "group_shuffle"]

_VIEWS = ("view", "reshape", "flatten", "unflatten", torch.reshape, torch.flatten, torch.unflatten)
_TURNS = ("transpose", "permute", "swapaxes", "swapdims", torch.transpose, torch.permute, torch.swapaxes, torch.swapdims)
_COPIES = ("contiguous", "clone", torch.clone)

Shape = tuple[int, ...]


def group_shuffle(channels: int, groups: int) -> tuple[int, ...]:
    """Return the order of channels behind a shuffle: ``out[i] = in[order[i]]``."""
    return tuple(torch.arange(channels).view(groups, -1).T.reshape(-1).tolist())


def _only_user(node: fx.Node, targets: tuple) -> fx.Node | None:
    users = [user for user in node.users if not (user.op == "call_method" and user.target in ("size", "dim"))]
    return users[0] if len(users) == 1 and users[0].op in ("call_method", "call_function") and users[0].target in targets else None


def _called(node: fx.Node, x: torch.Tensor) -> torch.Tensor:
    """Return what a transposition makes of another tensor of as many axes."""
    if node.op == "call_method":
        return getattr(x, str(node.target))(*node.args[1:], **node.kwargs)          # type: ignore[no-any-return]
    return node.target(x, *node.args[1:], **node.kwargs)                            # type: ignore[operator,no-any-return]


def shuffle_of(node: fx.Node, shape_of: Callable[[fx.Node], Shape]) -> tuple[list[fx.Node], fx.Node, tuple[int, ...]] | None:
    """Return the nodes inside a shuffle that begins with ``node``, its last node and the channels' order; None if none begins.

    Parameters
    ----------
    node : fx.Node
        Perhaps a view.
    shape_of : function
        Shape of a node's tensor without the batch; empty where it makes none.
    """
    if node.op not in ("call_method", "call_function") or node.target not in _VIEWS or not isinstance(node.args[0], fx.Node):
        return None
    shape = shape_of(node.args[0])
    turn = _only_user(node, _TURNS)
    if turn is None or not shape or any(not isinstance(arg, int | tuple | list) for arg in turn.args[1:]):
        return None
    inside, last = [node, turn], turn
    while (copy := _only_user(last, _COPIES)) is not None:
        inside.append(last := copy)
    end = _only_user(last, _VIEWS)
    if end is None or shape_of(end) != shape:
        return None
    places = torch.arange(torch.Size(shape).numel()).reshape(wide(shape))
    moved = _called(turn, places.reshape(1, *shape_of(node)))
    if moved.shape[0] != 1:
        return None
    moved = moved.reshape(len(places), -1)
    starts, pixels = moved[:, :1], places.reshape(len(places), -1)
    if bool((moved - starts != pixels[0]).any()) or bool((starts % pixels.shape[1]).any()):
        return None                                               # more than channels moves
    return inside, end, tuple((starts[:, 0] // pixels.shape[1]).tolist())
