"""What decides the outcome of a training: the setting of an experiment, one job of it, and the images, split."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import torch

from ..data import Dataset, open_dataset
from ..errors import ModelError
from ..quant import InputSpec, Penalty, Phase

__all__ = ["Setting", "Job", "Parts", "parts_of", "shortened", "test_images"]


@dataclass(frozen=True)
class Setting:
    """What all jobs of an experiment share.

    Attributes
    ----------
    factory : str
        ``pkg.mod:factory`` of the float network.
    data : str
        What `hwq.data.open_dataset` takes; empty for the default.
    test : str
        Likewise, for the test set; empty: the data set's own. A single file has none.
    search, confirm : int
        Images taken off the training set: to choose by, and to confirm with.
    train : int
        Use only so many of the others; 0 for all.
    split_seed : int
        Of the order in which they are taken.
    activations : dict of pattern to spec
        See `hwq.quant.prepare`, like the next three.
    input_bits, mult_bits, batchnorm
        See there.
    calibration : int
        Training images that calibrate the activations.
    block_ram_device : str
        Count block RAMs of this device too; empty: do not.
    threads : int
        Of torch in every job: part of what makes results repeatable.
    device : str
        ``cpu`` or ``cuda``.
    weights : str
        File of trained float weights instead of the float training; empty: train.
    """

    factory: str
    data: str = ""
    test: str = ""
    search: int = 10_000
    confirm: int = 5_000
    train: int = 0
    split_seed: int = 0
    activations: dict[str, str] = field(default_factory=lambda: {"*": "dfp:b=8"})
    input_bits: int = 8
    mult_bits: int = 10
    batchnorm: str = "fold"
    calibration: int = 512
    block_ram_device: str = ""
    threads: int = 1
    device: str = "cpu"
    weights: str = ""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes
    ----------
    seed : int
        Of everything random in it.
    phase : Phase
        How it trains; ``epochs = 0``: only calibration. With a ``teacher_weight`` the float network at the root of its bases
        teaches it.
    weights : dict of layer or pattern to spec, or None
        None: the float network.
    base : str
        Key of the job to start from; empty: an untrained network.
    penalty : Penalty
        Quantized jobs only.
    all_data : bool
        Train on the search images too.
    score : tuple of str
        Parts to score at the end: ``search``, ``confirm``, ``test``. No part of the key: what is missing is scored later.
    """

    seed: int
    phase: Phase
    weights: dict[str, str] | None = None
    base: str = ""
    penalty: Penalty = Penalty()
    all_data: bool = False
    score: tuple[str, ...] = ("search",)


def shortened(phase: Phase, epochs: int) -> Phase:
    """Return a phase of so many epochs, whose scales follow the weights for half of them at most, but at the start of the first."""
    return replace(phase, epochs=epochs, calibrate_until=min(phase.calibrate_until, max(1, epochs // 2)))


@dataclass(frozen=True, eq=False)
class Parts:
    """The images of an experiment, split.

    Attributes
    ----------
    inputs, labels : tensor
        The whole training set as torch is fed, and its classes.
    train, search, confirm : int tensor
        Disjoint indices.
    data : Dataset
        As read.
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    train: torch.Tensor
    search: torch.Tensor
    confirm: torch.Tensor
    data: Dataset


def parts_of(setting: Setting) -> Parts:
    """Read and split the training set; kept in memory for the next call.

    Raises
    ------
    ModelError
        No search split, or the splits leave nothing to train on.
    """
    return _parts(setting.data, setting.input_bits, setting.search, setting.confirm, setting.train, setting.split_seed)


@lru_cache(maxsize=2)
def _parts(where: str, input_bits: int, search: int, confirm: int, train_images: int, split_seed: int) -> Parts:
    data = open_dataset(where or None, "train")
    if search < 1 or confirm < 1:
        raise ModelError(f"A search needs images to choose by and others to confirm with, not {search} and {confirm}")
    left = len(data) - search - confirm
    if left < max(1, train_images):
        raise ModelError(f"{search} images to search and {confirm} to confirm leave {left} of {len(data)} to train on"
                         f"{f', fewer than the {train_images} asked for' if train_images else ''}; lower them")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(split_seed))
    cut = confirm + search
    train = order[cut:cut + train_images] if train_images else order[cut:]
    return Parts(InputSpec(input_bits).samples(data), torch.from_numpy(data.labels), train, order[confirm:cut],
                 order[:confirm], data)


@lru_cache(maxsize=2)
def _test(where: str, input_bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = open_dataset(where or None, "test")
    return InputSpec(input_bits).samples(data), torch.from_numpy(data.labels)


def test_images(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the test set as torch is fed, and its classes.

    Raises
    ------
    ModelError
        The data are one file, whose images are trained on, and no other was named; they are no more of those images.
    """
    if not setting.test and setting.data and Path(setting.data).is_file():
        raise ModelError(f"{setting.data} is one file, so it has no test images of its own; name others with --test")
    inputs, labels = _test(setting.test or setting.data, setting.input_bits)
    parts = parts_of(setting)
    shape, classes = tuple(parts.inputs.shape[1:]), max(len(parts.data.classes), int(parts.labels.max()) + 1)
    if inputs.shape[1:] != shape or int(labels.max()) >= classes:
        raise ModelError(f"The test images are of the shape {tuple(inputs.shape[1:])} with labels up to {int(labels.max())}, those "
                         f"to train on of {shape} with {classes} classes: do they belong together?")
    return inputs, labels
