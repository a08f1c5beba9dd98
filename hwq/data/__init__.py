"""Readers of labelled images, without torch: data sets by name, IDX files, ``.npz`` files."""

from .dataset import Dataset
from .idx import read_idx
from .labelled import one_or_several, pictures, read_npz, write_npz
from .registry import DATASETS, load_dataset, load_images, open_dataset

__all__ = ["Dataset", "read_idx", "read_npz", "write_npz", "one_or_several", "pictures", "DATASETS", "load_dataset",
           "load_images", "open_dataset"]
