"""SVHN, cropped digits: MATLAB files as published, read with scipy (extra ``svhn``)."""

from pathlib import Path

import numpy as np

from ..errors import EnvironmentError_, FormatError
from .dataset import Dataset
from .source import Source

__all__ = ["SVHN"]


def _path(folder: Path, split: str) -> Path:
    return folder / f"{split}_32x32.mat"


def _read(folder: Path, split: str) -> Dataset:
    path = _path(folder, split)
    try:
        from scipy.io import loadmat
    except ImportError:
        raise EnvironmentError_(f"Reading {path} needs scipy: pip install 'hwq[svhn]'") from None
    try:
        content = loadmat(path)
        images, labels = np.asarray(content["X"]), np.asarray(content["y"]).reshape(-1)
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror or error}") from None
    except Exception as error:                       # scipy raises many kinds on damaged files
        raise FormatError(f"{path} is truncated or no MATLAB file with 'X' and 'y': {error}; fetch it again") from None
    if images.ndim != 4 or images.shape[:3] != (32, 32, 3) or images.dtype != np.uint8 or labels.dtype.kind not in "iuf" \
            or (labels.size and not set(np.unique(labels)) <= set(range(1, 11))):
        raise FormatError(f"{path}: 'X' must be uint8 of the shape (32, 32, 3, n) and 'y' labels of 1..10 (10 is the digit 0), "
                          f"not {images.dtype} {images.shape} and {labels.dtype} {labels.shape}")
    return Dataset(np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(np.int64) % 10, tuple("0123456789"),
                   f"svhn {split}")


SVHN = Source("svhn",
              {"train_32x32.mat": "md5:e26dedcc434d2e4c54c9b2d4a06d8373", "test_32x32.mat": "md5:eb5a983be6a315427106f1b164d9cef3"},
              ("http://ufldl.stanford.edu/housenumbers/",), (), _read, lambda folder, split: _path(folder, split).is_file())
