"""Data sets by name, and where to look for them."""

from pathlib import Path

import numpy as np

from ..errors import FormatError
from .cifar import CIFAR10, CIFAR100
from .dataset import Dataset
from .labelled import read_images, read_npz
from .mnist import FASHION_MNIST, MNIST
from .source import Source, cache_folder, fetch
from .svhn import SVHN

__all__ = ["DATASETS", "load_dataset", "open_dataset", "load_images"]

DATASETS: dict[str, Source] = {source.name: source for source in (FASHION_MNIST, MNIST, CIFAR10, CIFAR100, SVHN)}


def load_dataset(name: str | None = None, folder: str | Path | None = None, split: str = "test") -> Dataset:
    """Return a split of a data set.

    Looked for in ``folder`` if given; otherwise where a package of the system puts it; otherwise in the cache folder,
    downloaded into it if need be.

    Parameters
    ----------
    name : str, optional
        A key of `DATASETS`. If left out: the folder's name where it is one, else the data set whose files the folder
        holds (``fashion-mnist`` before ``mnist``, whose files have the same names); ``fashion-mnist`` without a folder.
    folder : path, optional
        Holds the files as published.
    split : str
        ``"train"`` or ``"test"``.

    Raises
    ------
    FormatError
        Unknown name or split, missing folder, missing or damaged files, a folder of several data sets without a name.
    EnvironmentError_
        Nowhere on this machine, and no network.
    """
    if split not in ("train", "test"):
        raise FormatError(f"Split must be 'train' or 'test', not {split!r}")
    if name is None:
        name = _recognize(Path(folder), split) if folder is not None else "fashion-mnist"
    if name not in DATASETS:
        raise FormatError(f"Unknown data set {name!r}; known: {', '.join(DATASETS)}, or give a labelled .npz file")
    source = DATASETS[name]
    if folder is not None:
        if not Path(folder).is_dir():
            raise FormatError(f"There is no folder {folder}; give one that holds {', '.join(source.files)}")
        return source.read(Path(folder), split)
    for place in map(Path, source.folders):
        if source.needs(place, split):
            return source.read(place, split)
    cache = cache_folder(name)
    if not source.needs(cache, split):
        fetch(source, cache)
    return source.read(cache, split)


def _recognize(folder: Path, split: str) -> str:
    if folder.name in DATASETS:
        return folder.name
    found = [name for name, source in DATASETS.items() if source.needs(folder, split)]
    if len(found) > 1 and {*found} != {"fashion-mnist", "mnist"}:                       # these two call their files alike
        raise FormatError(f"{folder} holds the data sets {', '.join(found)}; say which one: {found[0]}={folder}")
    return found[0] if found else "fashion-mnist"


def open_dataset(where: str | Path | None, split: str = "test") -> Dataset:
    """Return what a user names: a labelled ``.npz`` file, a data set's name, a folder, ``NAME=FOLDER``; None: the default place.

    Raises
    ------
    FormatError, EnvironmentError_
        See `load_dataset` and `hwq.data.read_npz`.
    """
    if where is None:
        return load_dataset(None, None, split)
    if both := _both(where):
        return load_dataset(*both, split)
    if Path(where).is_file() or str(where).endswith(".npz"):
        return read_npz(where)
    if str(where) in DATASETS and not Path(where).is_dir():
        return load_dataset(str(where), None, split)
    if not Path(where).exists():
        raise _unknown(where)
    return load_dataset(None, where, split)


def _both(where: str | Path) -> tuple[str, str] | None:
    """Return name and folder of a text ``NAME=FOLDER``; None if it is none."""
    name, _, folder = str(where).partition("=")
    return (name, folder) if folder and name in DATASETS and not Path(where).exists() else None


def _unknown(where: str | Path) -> FormatError:
    return FormatError(f"There is no data set, file or folder {str(where)!r}; known data sets: {', '.join(DATASETS)}; "
                       "or give a folder of such a set's files (NAME=FOLDER where it holds several), or an .npz file with 'images' "
                       "and 'labels'")


def load_images(where: str | Path | None, split: str = "test", shape: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray | None]:
    """Return images (n, h, w[, c]) as uint8 and labels (n,), or None where there are none.

    Like `open_dataset`, but a ``.npz`` file may lack ``labels``, and a ``.npy`` file of images alone does; a file may hold a
    single image of the network's ``shape`` (height, width, channels).

    Raises
    ------
    FormatError, EnvironmentError_
        See `load_dataset` and `hwq.data.read_npz`.
    """
    if where is not None and not Path(where).is_dir() and str(where) not in DATASETS and not _both(where):
        if not Path(where).exists() and Path(where).suffix not in (".npz", ".npy"):
            raise _unknown(where)
        return read_images(where, shape)
    data = open_dataset(where, split)
    return data.images, data.labels
