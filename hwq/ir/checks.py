"""Types of a node's attributes: a file can say anything, and what numpy would round or Python would accept is no integer."""

from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import numpy as np

from ..errors import ModelError

__all__ = ["checked", "plain_text", "LARGEST"]

LARGEST = 1 << 62                                        # integers lie below this, so that int64 holds their sums


def plain_text(text: object, limit: int = 200) -> bool:
    """Return whether ``text`` is 1 to ``limit`` printable characters on one line; it reaches comments, pages and terminals."""
    return isinstance(text, str) and 1 <= len(text) <= limit and text.isprintable()


def checked(value: Any, kind: Any, what: str) -> Any:
    """Return ``value`` as ``kind``: numpy's integers as Python's, lists as tuples, arrays as read-only int64.

    Parameters
    ----------
    value : object
    kind : type
        int, bool, str, a class, ndarray, a tuple of those (``tuple[int, int]``, ``tuple[int, ...]``), or one of several (``X |
        None``).
    what : str
        Names the value in messages.

    Raises
    ------
    ModelError
        Another type, a fraction, an integer of 62 bits or more.
    """
    if isinstance(kind, UnionType):
        choices = [each for each in get_args(kind) if each is not NoneType]
        if value is None and len(choices) < len(get_args(kind)):
            return None
        return checked(value, choices[0] if len(choices) == 1 else tuple(choices), what)
    if kind is np.ndarray:
        return _array(value, what)
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple | list):
            raise ModelError(f"{what} must be a list, not {_shown(value)}")
        kinds = get_args(kind)
        if kinds[-1] is not Ellipsis and len(value) != len(kinds):
            raise ModelError(f"{what} must have {len(kinds)} entries, not {len(value)}")
        return tuple(checked(entry, kinds[0], f"{what}[{k}]") for k, entry in enumerate(value))
    if kind is int:
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
            raise ModelError(f"{what} must be an integer, not {_shown(value)}")
        if abs(int(value)) >= LARGEST:
            raise ModelError(f"{what} must be an integer below 2**62, not {_shown(int(value))}")
        return int(value)
    if kind is bool and isinstance(value, np.bool_):
        return bool(value)
    if not isinstance(value, kind):
        names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise ModelError(f"{what} must be of the type {names}, not {_shown(value)}")
    return value


def _array(value: Any, what: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise ModelError(f"{what} must be an array, not {_shown(value)}")
    if value.dtype.kind not in "iuf":
        raise ModelError(f"{what} must be an array of integers, not of {value.dtype}")
    # A fraction, an infinity, or an unsigned integer above int64 does not come back the same.
    if value.dtype.kind != "i" and value.size and not (np.abs(value) < 2.0 ** 63).all():
        raise ModelError(f"{what} has values that are no integers of 64 bits")
    array = np.array(value, dtype=np.int64)
    if value.dtype.kind == "f" and (array != value).any():
        raise ModelError(f"{what} has values that are no integers, e.g. {value[array != value].flat[0]}")
    array.setflags(write=False)
    return array


def _shown(value: object) -> str:
    text = f"2**{value.bit_length() - 1} or more" if isinstance(value, int) and abs(value) >= LARGEST else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
