"""MNIST and Fashion-MNIST: two IDX files a split, 28x28 pixels, ten classes."""

from pathlib import Path

from ..errors import FormatError
from .dataset import Dataset
from .idx import read_idx
from .source import Source

__all__ = ["MNIST", "FASHION_MNIST"]

_PREFIX = {"train": "train", "test": "t10k"}


def _find(folder: Path, stem: str) -> Path | None:
    for name in (f"{stem}.gz", stem, stem.replace("-idx", ".idx") + ".gz", stem.replace("-idx", ".idx")):
        if (folder / name).is_file():
            return folder / name
    return None


def _paths(folder: Path, split: str) -> tuple[Path | None, Path | None]:
    return _find(folder, f"{_PREFIX[split]}-images-idx3-ubyte"), _find(folder, f"{_PREFIX[split]}-labels-idx1-ubyte")


def _reader(name: str, classes: tuple[str, ...]):
    def read(folder: Path, split: str) -> Dataset:
        images, labels = _paths(folder, split)
        if images is None or labels is None:
            raise FormatError(f"{folder} lacks {_PREFIX[split]}-images-idx3-ubyte or "
                              f"{_PREFIX[split]}-labels-idx1-ubyte (.gz or not)")
        data = Dataset(read_idx(images, 3), read_idx(labels, 1), classes, f"{name} {split}")
        if data.labels.size and data.labels.max() >= len(classes):
            raise FormatError(f"{labels}: label {data.labels.max()} is outside 0..{len(classes) - 1}")
        return data
    return read


def _needs(folder: Path, split: str) -> bool:
    return None not in _paths(folder, split)


MNIST = Source(
    "mnist",
    {"train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
     "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
     "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
     "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"},
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    ("/usr/share/datasets/mnist",),
    _reader("mnist", tuple("0123456789")), _needs)

FASHION_MNIST = Source(
    "fashion-mnist",
    {"train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
     "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
     "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
     "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"},
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",       # checked by SHA-256, so plain http does
     "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"),
    ("/usr/share/datasets/fashion-mnist",),
    _reader("fashion-mnist", ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                              "Ankle boot")), _needs)
