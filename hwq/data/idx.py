"""IDX files, the layout of MNIST and its relatives, plain or gzipped."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from ..errors import FormatError

__all__ = ["read_idx"]

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"Cannot read {path}: {error.strerror}") from None
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path} is truncated or damaged: gzip says '{error}'; fetch it again") from None


def read_idx(path: str | Path, axes: int | None = None) -> np.ndarray:
    """Return the array in an IDX file, in native byte order.

    Parameters
    ----------
    path : path
        Gzip is recognised by content, not by name.
    axes : int, optional
        Number of axes that is expected.

    Raises
    ------
    FormatError
        Unreadable, not IDX, truncated, surplus bytes, damaged, or another number of axes.
    """
    path = Path(path)
    data = _bytes(path)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _TYPES or not data[3]:
        raise FormatError(f"{path} is no IDX file: it starts with {data[:4].hex(' ') or 'nothing'}; "
                          f"expected 00 00, a type of {', '.join(f'{t:02x}' for t in _TYPES)}, and the number of axes")
    if axes is not None and data[3] != axes:
        raise FormatError(f"{path} holds {data[3]} axes, expected {axes}; images have 3, labels 1: is it the right file?")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise FormatError(f"{path} is truncated: its header needs {start} bytes, the file has {len(data)}")
    shape = [int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(data[3])]
    dtype = np.dtype(_TYPES[data[2]])
    need = start + dtype.itemsize
    for size in shape:                                 # Python integers: a damaged header must not overflow
        need = start + (need - start) * size
    if len(data) != need:
        what = "truncated" if len(data) < need else "too long"
        raise FormatError(f"{path} is {what}: shape {tuple(shape)} needs {need} bytes, the file has {len(data)}; fetch it again")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
