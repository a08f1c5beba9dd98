"""Labelled images in one ``.npz`` file: ``images`` (uint8), ``labels``, perhaps ``classes`` (texts); in 1-D ``signals``."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import FormatError
from ..files import write_atomic
from .dataset import Dataset

__all__ = ["read_npz", "read_images", "write_npz", "one_or_several", "pictures"]


_ACCEPTED = "accepted: an .npz file with 'images' and 'labels', an .npy file of images, a folder of a data set's files"
_MAKE = ("make it with numpy.savez(path, images=..., labels=...), for 1-D networks with signals=... (n, channels, length) "
         "instead of images")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return a ``.npz`` file's arrays, or a ``.npy`` file's as ``images``."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror or error}; {_ACCEPTED}") from None
    if not data.startswith((b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")):
        raise FormatError(f"{path} is no .npz or .npy file; {_ACCEPTED}")
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"images": loaded}
        with loaded as archive:
            return {key: archive[key] for key in archive.files if key in ("images", "signals", "labels", "classes")}
    except (ValueError, EOFError, KeyError, TypeError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        what = "it holds Python objects, which hwq never loads" if "allow_pickle" in str(error) else str(error)
        raise FormatError(f"{path} is no sound .npz or .npy file: {what}; {_ACCEPTED}") from None


def one_or_several(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return images with an axis for their number, which an array of one image of the network's ``shape`` lacks.

    For shapes of height 1, (1, length, channels), signals are taken too: (n, channels, length), and one or both first axes left out
    where they are 1.
    """
    if len(shape) == 3 and shape[0] == 1:
        length, channels = shape[1:]
        if images.shape == (channels, length) or (images.shape == (length,) and channels == 1):
            images = images[None]
        if images.shape != shape and images.shape[1:] in ((channels, length), (length,) if channels == 1 else ()):
            return _signals(images)
    single = images.shape == shape or (shape[-1:] == (1,) and images.shape == shape[:-1])
    return images[None] if single else images


def _signals(signals: np.ndarray) -> np.ndarray:
    """Return signals (n, channels, length) or (n, length) as images (n, 1, length, channels)."""
    return (signals[:, None] if signals.ndim == 2 else signals).transpose(0, 2, 1)[:, None]


def pictures(arrays: Mapping[str, np.ndarray], shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return the images in a file's arrays, or its signals as images of height 1; ``shape`` is the network's, or empty.

    Raises
    ------
    FormatError
        Neither, both, or signals of another number of axes.
    """
    if ("images" in arrays) == ("signals" in arrays):
        what = "holds both 'images' and 'signals'; leave one out" if "images" in arrays else "lacks 'images'"
        raise FormatError(f"{where} {what}; {_MAKE}")
    if "images" in arrays:
        return one_or_several(arrays["images"], shape)
    signals = arrays["signals"]
    found = one_or_several(signals, shape) if signals.ndim < 4 else np.zeros(())
    if found.ndim < 2:
        raise FormatError(f"{where}: signals must be uint8 of shape (n, length) or (n, channels, length), not "
                          f"{signals.dtype} {signals.shape}")
    return found if found.ndim == 4 else _signals(found)


def read_images(path: str | Path, shape: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray | None]:
    """Return images and labels (None where there are none) of a ``.npz`` file, or the images of a ``.npy`` file.

    A single image of the network's ``shape`` (height, width, channels) is taken too.

    Raises
    ------
    FormatError
        Unreadable, damaged, no ``images``, or of wrong types.
    """
    arrays = _arrays(Path(path))
    images = pictures(arrays, shape, str(path))
    labels = arrays.get("labels", np.zeros(len(np.atleast_1d(images)), np.int64))
    data = Dataset(images, labels, (), str(path))
    return data.images, data.labels if "labels" in arrays else None


def read_npz(path: str | Path) -> Dataset:
    """Read a labelled ``.npz`` file; never unpickles.

    Raises
    ------
    FormatError
        Unreadable, damaged, or without ``labels`` and ``images`` or ``signals`` of the right types.
    """
    arrays = _arrays(Path(path))
    missing = (["images"] if not {"images", "signals"} & set(arrays) else []) + (["labels"] if "labels" not in arrays else [])
    if missing:
        raise FormatError(f"{path} lacks {' and '.join(missing)}; {_MAKE}")
    classes = tuple(map(str, arrays["classes"].flatten())) if "classes" in arrays else ()
    return Dataset(pictures(arrays, (), str(path)), arrays["labels"], classes, str(path), "signals" in arrays)


def write_npz(path: str | Path, data: Dataset) -> None:
    """Write a labelled ``.npz`` file; the same data gives the same bytes."""
    arrays = {"signals": data.images[:, 0].transpose(0, 2, 1)} if data.signals else {"images": data.images}
    arrays |= {"labels": data.labels.astype(np.uint8 if data.labels.max(initial=0) < 256 else np.int64)}
    if data.classes:
        arrays["classes"] = np.array(data.classes)
    write_atomic(path, lambda stream: np.savez_compressed(stream, **arrays))             # type: ignore[arg-type]
