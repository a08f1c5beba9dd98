"""A whole training run in a folder: float network, teacher, fine-tuning; and the way back from the folder to the model."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import Dataset
from ..errors import EnvironmentError_, FormatError, ModelError
from ..files import write_atomic
from . import parallel
from .checkpoint import load_weights, save_checkpoint
from .config import Recipe, read_recipe
from .ends import on_logits
from .factory import make_network
from .inputs import InputSpec
from .model import QuantizedModel
from .prepare import prepare
from .train import Samples, accuracy, fit
from .tune import tune

__all__ = ["Run", "train_run", "save_run", "load_run", "check_outputs"]


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
        Of an input, (c, h, w) or (c, length).
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
              resume: bool = False, weights: Path | None = None, check: Callable[[QuantizedModel], None] = lambda model: None,
              report: Callable[[str, dict[str, Any]], None] = lambda phase, row: None,
              progress: Callable[[str, int, int], None] = lambda phase, done, total: None) -> dict[str, Any]:
    """Train by a recipe into a folder: ``run.json``, ``model.pt``, ``log.json``, and a checkpoint for every phase.

    Under torchrun, inside of `hwq.quant.parallel.team`, the processes share every batch; the first alone writes and reports.

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
    check : function of QuantizedModel
        Given the prepared network before anything is trained; raises what would be refused afterwards.
    report : (phase, row) -> None
        Called after every epoch.
    progress : (phase, done, total) -> None
        Called after every step, with the phase's steps.

    Returns
    -------
    dict
        ``float`` and ``quantized`` validation accuracy, ``notes`` of what of the network's end was left out, and the log of every
        phase.

    Raises
    ------
    ModelError, FormatError, EnvironmentError_
        See `read_recipe`, `prepare`, `fit`; a folder with another run or something else; no CUDA where it is asked for. What
        can be known is said before anything is written.
    """
    recipe = read_recipe(config)
    _check_device(device)
    torch.manual_seed(seed)
    network = make_network(factory)
    spec = InputSpec(recipe.input_bits)
    inputs, labels = spec.samples(data), torch.from_numpy(np.asarray(data.labels, np.int64))
    shape = tuple(inputs.shape[1:])
    prepared = _prepared(network, shape, recipe)                  # refuses now what it would refuse after hours
    check_outputs(prepared, inputs[:1], data)
    check(prepared)
    samples = Samples.split(inputs, labels, recipe.validation, seed)
    if weights is not None:
        load_weights(network, weights)
        _prepared(network, shape, recipe)
    if parallel.lead():
        _describe(folder, Run(factory, seed, shape, data.classes, config), resume)
    else:
        report, progress = lambda phase, row: None, lambda phase, done, total: None
    common: dict[str, Any] = {"seed": seed, "device": device, "resume": resume}
    log: dict[str, Any] = {}
    trained = on_logits(network, inputs[:2])
    if weights is not None:
        trained.to(device)
    else:
        log["float"] = fit(trained, samples, recipe.float_phase, checkpoint=folder / "float.pt",
                           report=partial(report, "float"), progress=partial(progress, "float"), **common)
    teacher = trained
    if recipe.teacher and recipe.tune.teacher_weight > 0:
        torch.manual_seed(seed)
        teacher = on_logits(make_network(recipe.teacher), inputs[:2])
        log["teacher"] = fit(teacher, samples, recipe.teacher_phase, checkpoint=folder / "teacher.pt",
                             report=partial(report, "teacher"), progress=partial(progress, "teacher"), **common)
    model = _prepared(network.cpu().eval(), shape, recipe).to(device)
    log["tune"] = tune(model, samples, recipe.tune, penalty=recipe.penalty, calibration=recipe.calibration,
                       checkpoint=folder / "tune.pt", teacher=teacher.to(device), report=partial(report, "tune"),
                       progress=partial(progress, "tune"), **common)
    result = {"float": accuracy(trained.to(device), samples, device), "quantized": accuracy(model, samples, device),
              "validation_images": len(samples.validation), "notes": list(prepared.notes), "log": log}
    if parallel.lead():
        save_checkpoint(folder / "model.pt", {key: value.cpu() for key, value in model.state_dict().items()})
        _write(folder / "log.json", result)
    return result


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise ModelError(f"Device must be cpu or cuda (cuda:1, ...), not {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise EnvironmentError_(f"Device {device!r} is not there: torch sees no CUDA device; use --device cpu")


def check_outputs(model: QuantizedModel, image: torch.Tensor, data: Dataset) -> None:
    """Refuse a network whose outputs are not the data's classes.

    Parameters
    ----------
    model : QuantizedModel
        Prepared, not calibrated.
    image : float tensor (1, channels, height, width)
    data : Dataset

    Raises
    ------
    ModelError
        More axes than one; another number than that of the classes, or where they have no names, too few for the labels.
    """
    with torch.no_grad():
        shape = tuple(model.train()(torch.cat([image, image])).shape[1:])                # two: batch norms need a variance
    if len(shape) != 1:
        raise ModelError(f"The network gives {shape} for an image, where one axis of outputs is needed: "
                         "flatten, or pool over the image")
    most, classes = int(data.labels.max()), len(data.classes)
    if classes and shape[0] != classes:
        raise ModelError(f"The network gives {shape[0]} outputs an image, but the data have {classes} classes: it needs as many")
    if shape[0] <= most:
        raise ModelError(f"The network gives {shape[0]} outputs an image, but the data have labels up to {most}: "
                         f"it needs at least {most + 1}")


def _write(path: Path, data: Any) -> None:
    write_atomic(path, (json.dumps(data, indent=1) + "\n").encode())


def _describe(folder: Path, run: Run, resume: bool, replace: bool = False) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FormatError(f"Output {folder} is a file; give a folder with -o") from None
    except OSError as error:
        raise EnvironmentError_(f"Cannot make the folder {folder}: {error.strerror}; name another one with -o") from None
    if not replace and not (folder / "run.json").exists() and any(folder.iterdir()):
        raise FormatError(f"Output folder {folder} holds something that is no training run; give another one with -o")
    if (folder / "run.json").exists() and not replace:
        if not resume:
            raise ModelError(f"{folder} holds a training run; go on with --resume, or name another folder")
        if _read(folder) != run:
            raise ModelError(f"{folder} holds the run of another network, recipe, seed or data; name another folder")
    _write(folder / "run.json", {"factory": run.factory, "seed": run.seed, "shape": list(run.shape),
                                 "classes": list(run.classes), "recipe": run.recipe})
    write_atomic(folder / "config.toml", run.recipe.encode())


def _read(folder: Path) -> Run:
    try:
        data = json.loads((folder / "run.json").read_text())
        return Run(data["factory"], data["seed"], tuple(data["shape"]), tuple(data["classes"]), data["recipe"])
    except OSError as error:
        raise FormatError(f"{folder} is no training run: cannot read run.json ({error.strerror}); make one "
                          "with hwq train") from None
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
