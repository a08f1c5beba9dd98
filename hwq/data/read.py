"""IDX folders (MNIST, Fashion-MNIST) and ``.npz`` / ``.npy`` files."""

import gzip
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..errors import EnvironmentError_, FormatError

__all__ = ["DATASETS", "find_dataset", "load_images", "read_idx"]

# Where Debian's package dataset-fashion-mnist puts its files.
DATASETS = {"fashion-mnist": (Path("/usr/share/datasets/fashion-mnist"),)}


def find_dataset(name: str) -> Path:
    """Return the folder of a data set that is on this machine."""
    for folder in DATASETS.get(name, ()):
        if folder.is_dir():
            return folder
    raise EnvironmentError_(f"Data set {name!r} is not on this machine; known: {', '.join(DATASETS)}. Give its folder with --data "
                            "(Debian: apt install dataset-fashion-mnist)")


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzipped: a magic number, the sizes, the data."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"Cannot read {path}: {error}") from None
    if len(data) < 4 or data[:3] != b"\0\0\x08" or not 1 <= data[3] <= 4:
        raise FormatError(f"{path} is no IDX file of unsigned bytes: it starts with {data[:4]!r}")
    shape = tuple(int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(data[3]))
    body = data[4 + 4 * len(shape):]
    if len(body) != int(np.prod(shape, dtype=np.int64)):
        raise FormatError(f"{path} is truncated or too long: {len(body)} bytes for the shape {shape}")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _idx(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    stem = {"test": "t10k", "train": "train"}[split]
    parts = []
    for kind in ("images-idx3", "labels-idx1"):
        names = [f"{stem}-{kind}-ubyte{end}" for end in ("", ".gz")]
        found = next((folder / name for name in names if (folder / name).exists()), None)
        if found is None:
            raise FormatError(f"{folder} holds no {' or '.join(names)}; accepted: a folder of IDX files, or an .npz file")
        parts.append(read_idx(found))
    return parts[0], parts[1]


def load_images(path: str | Path, split: str = "test") -> tuple[np.ndarray, np.ndarray | None]:
    """Return images (n, h, w[, c]) as uint8 and labels (n,), or None where there are none.

    Parameters
    ----------
    path : str or Path
        Folder of IDX files, ``.npz`` with ``images`` and perhaps ``labels``, ``.npy`` of images, or a name of `DATASETS`.
    split : str
        ``train`` or ``test``, of a folder.

    Raises
    ------
    FormatError
        Missing, truncated or malformed; the message says what is accepted.
    """
    if str(path) in DATASETS:
        path = find_dataset(str(path))
    path = Path(path)
    if path.is_dir():
        images, labels = _idx(path, split)
    else:
        try:
            loaded = np.load(path, allow_pickle=False)
            images = loaded if isinstance(loaded, np.ndarray) else loaded["images"]
            labels = None if isinstance(loaded, np.ndarray) or "labels" not in loaded else loaded["labels"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise FormatError(f"Cannot read images from {path}: {error}; accepted: a folder of IDX files, an .npz file with "
                              "'images' (and 'labels'), an .npy file") from None
    if labels is not None and len(labels) != len(images):
        raise FormatError(f"{path} holds {len(images)} images but {len(labels)} labels")
    return images, labels
