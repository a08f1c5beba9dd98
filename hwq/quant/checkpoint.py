"""Files of torch tensors: written whole or not at all, read without unpickling anything else."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import EnvironmentError_, FormatError, ModelError
from ..files import write_atomic

__all__ = ["save_checkpoint", "load_checkpoint", "load_weights"]


def save_checkpoint(path: str | Path, data: Any) -> None:
    """Write tensors, numbers, texts, lists and dicts to ``path``, whole or not at all.

    Raises
    ------
    FormatError, EnvironmentError_
        See `hwq.files.write_atomic`.
    """
    write_atomic(path, lambda stream: torch.save(data, stream))


def load_checkpoint(path: str | Path) -> Any:
    """Read a file of torch.save (``weights_only``) or, by its name, of safetensors; onto the CPU.

    Raises
    ------
    FormatError
        Unreadable, damaged, or holding Python objects that are not tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load
            try:
                return load(path.read_bytes())
            except SafetensorError as error:
                raise FormatError(f"{path} is no sound safetensors file: {error}") from None
        return torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise EnvironmentError_(f"Reading {path} needs the package safetensors: pip install safetensors") from None
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror or error}") from None
    except pickle.UnpicklingError:
        raise FormatError(f"{path} is no file of torch.save, is damaged, or holds Python objects that are not tensors; hwq does "
                          "not unpickle them. Save the weights alone: torch.save(model.state_dict(), path)") from None
    except (RuntimeError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path} is truncated or no file of torch.save: "
                          f"{str(error).splitlines()[0] if str(error) else error!r}") from None


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a user's weights into ``model``: a state dict, or a dict with one under ``state_dict`` or ``model``.

    Raises
    ------
    FormatError
        See `load_checkpoint`.
    ModelError
        Names or shapes that do not match; the message names them.
    """
    state = load_checkpoint(path)
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise FormatError(f"{path} holds no state dict of tensors; save it with torch.save(model.state_dict(), path)")
    state = {str(key).removeprefix("module."): value for key, value in state.items()}
    own = model.state_dict()
    missing, surplus = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    shapes = [f"{k}: {tuple(state[k].shape)} instead of {tuple(own[k].shape)}" for k in own
              if k in state and state[k].shape != own[k].shape]
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or surplus or shapes:
        parts = [f"missing: {', '.join(missing)}"] * bool(missing) + [f"unknown: {', '.join(surplus)}"] * bool(surplus)
        raise ModelError(f"{path} does not fit {type(model).__name__}: "
                         + "; ".join(parts + [f"shapes: {', '.join(shapes)}"] * bool(shapes)))
    model.load_state_dict(state, strict=False)
