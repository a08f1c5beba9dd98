"""Readers of labelled images, in the layouts their authors publish. numpy only."""

from .read import DATASETS, find_dataset, load_images, read_idx

__all__ = ["DATASETS", "find_dataset", "load_images", "read_idx"]
