"""CIFAR-10 and CIFAR-100 in both layouts of their authors: binary records, and the Python batches without unpickling.

The names in a Python batch resolve to inert stand-ins, never to code: only plain containers and the array's bytes come out.
"""

import hashlib
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError
from .dataset import Dataset
from .source import Source

__all__ = ["CIFAR10", "CIFAR100"]

_PIXELS = 3 * 32 * 32
_TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# MD5 of the files as published (the archives' are in the Sources below).
_MD5 = {"data_batch_1": "c99cafc152244af753f735de768cd75f", "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751", "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb", "test_batch": "40351d587109b95175f43aff81a1287e",
        "train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "train.bin": "6172c7755cfe09b2fe270c85cebc1b15", "test.bin": "4499cfba6c016c1be1438163640a0898"}


class _Array:
    """Stands for a numpy array in a Python batch: keeps its state, computes nothing."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Resolves numpy's names to stand-ins and refuses all others."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return lambda *_: _Array()
        if module == "numpy" and name in ("ndarray", "dtype"):
            return _Array if name == "ndarray" else lambda *_: _Array()
        if module == "_codecs" and name == "encode":                 # bytes, the way Python 3 writes old protocols
            return lambda text, coding: text.encode("latin-1") if coding == "latin1" else None
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to another file")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror}") from None


def _python(path: Path, data: bytes, key: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        batch = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        pixels, labels = batch["data"].state[-1], batch[key]
        return np.frombuffer(pixels, np.uint8).reshape(-1, _PIXELS), np.asarray(labels, np.int64).reshape(-1)
    except (pickle.UnpicklingError, ValueError, TypeError, KeyError, AttributeError, IndexError, EOFError, ImportError) as error:
        raise FormatError(f"{path} is no sound Python batch of CIFAR: {error}; fetch it again, or the binary version") from None


def _binary(path: Path, data: bytes, labels: int) -> tuple[np.ndarray, np.ndarray]:
    size = labels + _PIXELS
    if not data or len(data) % size:
        raise FormatError(f"{path} is truncated or no binary CIFAR file: {len(data)} bytes are no whole "
                          f"number of records of {size}")
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    return records[:, labels:], records[:, labels - 1].astype(np.int64)         # the fine label is the last one


class _Layout:
    """File names of a data set in both layouts."""

    def __init__(self, name: str, folders: tuple[str, str], train: tuple[str, ...], test: str, labels: int, key: str,
                 classes: tuple[str, ...] = ()) -> None:
        self.name, self.folders, self.labels, self.key, self.classes = name, folders, labels, key, classes
        self.stems = {"train": train, "test": (test,)}

    def find(self, folder: Path, split: str) -> tuple[list[Path], bool] | None:
        """Return the files of a split and whether they are binary, in the folder or in the archive's folder inside it."""
        for sub, end in ((self.folders[0], ".bin"), (self.folders[1], "")):
            for place in (folder, folder / sub):
                paths = [place / f"{stem}{end}" for stem in self.stems[split]]
                if all(path.is_file() for path in paths):
                    return paths, bool(end)
        return None

    def needs(self, folder: Path, split: str) -> bool:
        """Whether the folder holds the split."""
        return self.find(folder, split) is not None

    def read(self, folder: Path, split: str) -> Dataset:
        """Return the split; a file that differs from the published one is accepted with a warning."""
        found = self.find(folder, split)
        if found is None:
            raise FormatError(f"{folder} lacks {', '.join(self.stems[split])} (.bin or not); give the folder of the authors' "
                              f"archive: {self.folders[0]} or {self.folders[1]}")
        paths, binary = found
        parts = []
        for path in paths:
            data = _bytes(path)
            published = _MD5.get(path.name)
            if published and hashlib.md5(data, usedforsecurity=False).hexdigest() != published:
                warnings.warn(f"{path} differs from the published file (MD5); it is read as it is", stacklevel=2)
            parts.append(_binary(path, data, self.labels) if binary else _python(path, data, self.key))
        images = np.concatenate([part[0] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = np.concatenate([part[1] for part in parts])
        count = 10 if self.labels == 1 else 100
        if labels.size and labels.max() >= count:
            raise FormatError(f"{paths[0].parent}: label {labels.max()} is outside 0..{count - 1}")
        return Dataset(np.ascontiguousarray(images), labels, self.classes or self._names(paths[0].parent), f"{self.name} {split}")

    @staticmethod
    def _names(folder: Path) -> tuple[str, ...]:
        file = folder / "fine_label_names.txt"
        return tuple(file.read_text().split()) if file.is_file() else ()


_TEN_LAYOUT = _Layout("cifar-10", ("cifar-10-batches-bin", "cifar-10-batches-py"), tuple(f"data_batch_{k}" for k in range(1, 6)),
                      "test_batch", 1, "labels", _TEN)
_HUNDRED_LAYOUT = _Layout("cifar-100", ("cifar-100-binary", "cifar-100-python"), ("train",), "test", 2, "fine_labels")

CIFAR10 = Source("cifar-10", {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"},
                 ("https://www.cs.toronto.edu/~kriz/",), (), _TEN_LAYOUT.read, _TEN_LAYOUT.needs)
CIFAR100 = Source("cifar-100", {"cifar-100-binary.tar.gz": "md5:03b5dce01913d631647c71ecec9e9cb8"},
                  ("https://www.cs.toronto.edu/~kriz/",), (), _HUNDRED_LAYOUT.read, _HUNDRED_LAYOUT.needs)
