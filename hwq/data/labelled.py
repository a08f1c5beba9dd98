"""Labelled images in one ``.npz`` file: ``images`` (uint8), ``labels``, and optionally ``classes`` (texts)."""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..errors import FormatError
from ..files import write_atomic
from .dataset import Dataset

__all__ = ["read_npz", "read_images", "write_npz", "one_or_several"]


_ACCEPTED = "accepted: an .npz file with 'images' and 'labels', an .npy file of images, a folder of a data set's files"


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
            return {key: archive[key] for key in archive.files if key in ("images", "labels", "classes")}
    except (ValueError, EOFError, KeyError, TypeError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        what = "it holds Python objects, which hwq never loads" if "allow_pickle" in str(error) else str(error)
        raise FormatError(f"{path} is no sound .npz or .npy file: {what}; {_ACCEPTED}") from None


def one_or_several(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return images with an axis for their number, which an array of one image of the network's ``shape`` lacks."""
    single = images.shape == shape or (shape[-1:] == (1,) and images.shape == shape[:-1])
    return images[None] if single else images


def read_images(path: str | Path, shape: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray | None]:
    """Return images and labels (None where there are none) of a ``.npz`` file, or the images of a ``.npy`` file.

    A single image of the network's ``shape`` (height, width, channels) is taken too.

    Raises
    ------
    FormatError
        Unreadable, damaged, no ``images``, or of wrong types.
    """
    arrays = _arrays(Path(path))
    if "images" not in arrays:
        raise FormatError(f"{path} lacks 'images'; make it with numpy.savez(path, images=..., labels=...)")
    images = one_or_several(arrays["images"], shape)
    labels = arrays.get("labels", np.zeros(len(np.atleast_1d(images)), np.int64))
    data = Dataset(images, labels, (), str(path))
    return data.images, data.labels if "labels" in arrays else None


def read_npz(path: str | Path) -> Dataset:
    """Read a labelled ``.npz`` file; never unpickles.

    Raises
    ------
    FormatError
        Unreadable, damaged, or without ``images`` and ``labels`` of the right types.
    """
    arrays = _arrays(Path(path))
    missing = sorted({"images", "labels"} - set(arrays))
    if missing:
        raise FormatError(f"{path} lacks {' and '.join(missing)}; make it with numpy.savez(path, images=..., labels=...)")
    classes = tuple(map(str, arrays["classes"].flatten())) if "classes" in arrays else ()
    return Dataset(arrays["images"], arrays["labels"], classes, str(path))


def write_npz(path: str | Path, data: Dataset) -> None:
    """Write a labelled ``.npz`` file; the same data gives the same bytes."""
    arrays = {"images": data.images, "labels": data.labels.astype(np.uint8 if data.labels.max(initial=0) < 256 else np.int64)}
    if data.classes:
        arrays["classes"] = np.array(data.classes)
    write_atomic(path, lambda stream: np.savez_compressed(stream, **arrays))             # type: ignore[arg-type]
