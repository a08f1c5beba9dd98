"""A user's network by the name of the function that makes it."""

import ast
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from torch import nn

from ..errors import ModelError

__all__ = ["load_factory", "make_network"]


def _arguments(name: str, text: str) -> dict[str, Any]:
    """Return the keyword arguments in ``(key=literal, ...)``; nothing is executed."""
    try:
        call = ast.parse(f"f({text}", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args and all(k.arg for k in call.keywords)
        return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise ModelError(f"Arguments of factory {name!r} must be written (name=number, ...), literals only") from None


def load_factory(name: str) -> Callable[[], nn.Module]:
    """Return the function that ``pkg.mod:factory`` names; modules of the current folder are found too.

    Arguments may follow: ``hwq.models.allcnn:network(width=0.125, classes=100)``.

    Raises
    ------
    ModelError
        Malformed, not found, not callable, or arguments that are no literals.
    """
    module, colon, attribute = name.partition(":")
    attribute, bracket, text = attribute.partition("(")
    if not colon or not module or not attribute:
        raise ModelError(f"Factory must be written package.module:function, not {name!r}")
    arguments = _arguments(name, text) if bracket else {}
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(import_module(module), attribute)
    except ImportError as error:
        raise ModelError(f"Cannot import {module!r} of {name!r}: {error}; run from the folder that holds the module, or "
                         "set PYTHONPATH") from None
    except AttributeError:
        raise ModelError(f"Module {module!r} has no {attribute!r}") from None
    if not callable(factory):
        raise ModelError(f"{name!r} is no function that makes a network, but a {type(factory).__name__}")
    return partial(factory, **arguments) if arguments else factory


def make_network(name: str) -> nn.Module:
    """Return the network of a factory's name.

    Raises
    ------
    ModelError
        See `load_factory`; the function raised, or returns something else.
    """
    factory = load_factory(name)
    try:
        model = factory()
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ModelError(f"Factory {name!r} raised {type(error).__name__}: {error} (line {last.lineno} of "
                         f"{last.filename})") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name!r} must return a torch.nn.Module, not a {type(model).__name__}")
    return model
