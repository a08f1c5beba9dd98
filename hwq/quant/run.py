"""A whole training run in a folder: float network, teacher, fine-tuning; and the way back from the folder to the model."""

import ast
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import Dataset
from ..errors import EnvironmentError_, FormatError, ModelError
from .checkpoint import load_weights, save_checkpoint
from .config import Recipe, read_recipe
from .inputs import InputSpec
from .model import QuantizedModel
from .prepare import prepare
from .train import Samples, accuracy, fit
from .tune import tune

__all__ = ["Run", "load_factory", "make_network", "train_run", "save_run", "load_run"]


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
        raise ModelError(f"Cannot import {module!r} of {name!r}: {error}") from None
    except AttributeError:
        raise ModelError(f"Module {module!r} has no {attribute!r}") from None
    if not callable(factory):
        raise ModelError(f"{name!r} is no function that makes a network, but a {type(factory).__name__}")
    return partial(factory, **arguments) if arguments else factory


def make_network(name: str) -> nn.Module:
    """Return the network of a factory's name, or raise `ModelError`."""
    try:
        model = load_factory(name)()
    except TypeError as error:
        raise ModelError(f"Factory {name!r} does not take these arguments: {error}") from None
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name!r} must return a torch.nn.Module, not a {type(model).__name__}")
    return model


@dataclass(frozen=True)
class Run:
    """What ``run.json`` in the folder says: where the model comes from and what it takes.

    Attributes
    ----------
    factory : str
        ``pkg.mod:factory``.
    seed : int
        Of everything random.
    shape : tuple of int
        Of an input, (c, h, w).
    classes : tuple of str
        Names of the outputs, or empty.
    recipe : str
        TOML text.
    """

    factory: str
    seed: int
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    recipe: str


def _prepared(network: nn.Module, shape: tuple[int, ...], recipe: Recipe) -> QuantizedModel:
    return prepare(network, torch.zeros(2, *shape), recipe.weights, activations=recipe.activations,
                   input=InputSpec(recipe.input_bits), batchnorm=recipe.batchnorm, mult_bits=recipe.mult_bits)


def train_run(factory: str, data: Dataset, config: str, folder: Path, *, seed: int = 0, device: str = "cpu",
              resume: bool = False, weights: Path | None = None,
              report: Callable[[str, dict[str, Any]], None] = lambda phase, row: None) -> dict[str, Any]:
    """Train by a recipe into a folder: ``run.json``, ``model.pt``, ``log.json``, and a checkpoint for every phase.

    Parameters
    ----------
    factory : str
        ``pkg.mod:factory`` of the float network.
    data : Dataset
        Training images; the validation part is taken from them.
    config : str
        TOML text, see `hwq.quant.config`.
    folder : path
        Made if need be; must hold no run unless ``resume``.
    weights : path, optional
        Trained float weights: the float phase is left out.
    report : (phase, row) -> None
        Called after every epoch.

    Returns
    -------
    dict
        ``float`` and ``quantized`` validation accuracy, and the log of every phase.

    Raises
    ------
    ModelError, FormatError, EnvironmentError_
        See `read_recipe`, `prepare`, `fit`; a folder with another run; no CUDA where it is asked for.
    """
    recipe = read_recipe(config)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EnvironmentError_(f"Device {device!r} is not there: torch sees no CUDA device; use --device cpu")
    torch.manual_seed(seed)
    network = make_network(factory)
    spec = InputSpec(recipe.input_bits)
    inputs, labels = spec.tensor(data.images), torch.from_numpy(np.asarray(data.labels, np.int64))
    shape = tuple(inputs.shape[1:])
    _prepared(network, shape, recipe)                  # refuses now what it would refuse after hours
    _describe(folder, Run(factory, seed, shape, data.classes, config), resume)
    samples = Samples.split(inputs, labels, recipe.validation, seed)
    common: dict[str, Any] = {"seed": seed, "device": device, "resume": resume}
    log: dict[str, Any] = {}
    if weights is not None:
        load_weights(network, weights)
        network.to(device)
    else:
        log["float"] = fit(network, samples, recipe.float_phase, checkpoint=folder / "float.pt",
                           report=lambda row: report("float", row), **common)
    teacher = network
    if recipe.teacher and recipe.tune.teacher_weight > 0:
        torch.manual_seed(seed)
        teacher = make_network(recipe.teacher)
        log["teacher"] = fit(teacher, samples, recipe.teacher_phase, checkpoint=folder / "teacher.pt",
                             report=lambda row: report("teacher", row), **common)
    model = _prepared(network.cpu().eval(), shape, recipe).to(device)
    log["tune"] = tune(model, samples, recipe.tune, penalty=recipe.penalty, calibration=recipe.calibration,
                       checkpoint=folder / "tune.pt", teacher=teacher.to(device), report=lambda row: report("tune", row), **common)
    result = {"float": accuracy(network.to(device), samples, device), "quantized": accuracy(model, samples, device),
              "validation_images": len(samples.validation), "log": log}
    save_checkpoint(folder / "model.pt", {key: value.cpu() for key, value in model.state_dict().items()})
    _write(folder / "log.json", result)
    return result


def _write(path: Path, data: Any) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(json.dumps(data, indent=1) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise EnvironmentError_(f"Cannot write {path}: {error.strerror}") from None


def _describe(folder: Path, run: Run, resume: bool, replace: bool = False) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentError_(f"Cannot make the folder {folder}: {error.strerror}; name another one with -o") from None
    if (folder / "run.json").exists() and not replace:
        if not resume:
            raise ModelError(f"{folder} holds a training run; go on with --resume, or name another folder")
        if _read(folder) != run:
            raise ModelError(f"{folder} holds the run of another network, recipe, seed or data; name another folder")
    _write(folder / "run.json", {"factory": run.factory, "seed": run.seed, "shape": list(run.shape),
                                 "classes": list(run.classes), "recipe": run.recipe})
    (folder / "config.toml").write_text(run.recipe)


def _read(folder: Path) -> Run:
    try:
        data = json.loads((folder / "run.json").read_text())
        return Run(data["factory"], data["seed"], tuple(data["shape"]), tuple(data["classes"]), data["recipe"])
    except OSError as error:
        raise FormatError(f"{folder} is no training run: cannot read run.json ({error.strerror}); make one with hwq train") from None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{folder / 'run.json'} is malformed: {error!r}") from None


def save_run(folder: Path, run: Run, model: QuantizedModel, result: dict[str, Any]) -> None:
    """Write a trained model as a run that `load_run` and ``hwq lower`` take; what is there is replaced."""
    _describe(folder, run, False, replace=True)
    save_checkpoint(folder / "model.pt", {key: value.cpu() for key, value in model.state_dict().items()})
    _write(folder / "log.json", result)


def load_run(folder: str | Path) -> tuple[QuantizedModel, Run]:
    """Return the trained model in a folder, in eval mode, and what the folder says about it.

    Raises
    ------
    FormatError, ModelError
        No such run, not finished, or the factory now makes another network.
    """
    folder = Path(folder)
    run = _read(folder)
    if not (folder / "model.pt").exists():
        raise FormatError(f"{folder} holds no model.pt: its training has not finished; go on with hwq train --resume")
    model = _prepared(make_network(run.factory), run.shape, read_recipe(run.recipe))
    load_weights(model, folder / "model.pt")
    return model.eval(), run
