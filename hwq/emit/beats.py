"""Numbers to the bytes of bus beats, and back: the one definition of what stands on the core's streams."""

import numpy as np

from ..errors import FormatError

__all__ = ["pack_codes", "unpack_results", "element_bytes"]


def element_bytes(width: int) -> int:
    """Return the bytes that one value of ``width`` bits takes on the bus."""
    return -(-width // 8)


def pack_codes(codes: np.ndarray, *, lanes: int, width: int) -> np.ndarray:
    """Return the beats of numbers.

    Parameters
    ----------
    codes : int array (n, ...)
        Raster order, channels last.
    lanes : int
        Numbers a beat; the first stands in the low bytes.
    width : int
        Bits of a number; each takes whole bytes, little endian, two's complement.

    Returns
    -------
    uint8 array (n, beats, lanes * bytes of a number)

    Raises
    ------
    FormatError
        The numbers of an image do not fill whole beats.
    """
    flat = np.ascontiguousarray(codes, dtype="<i8").reshape(len(codes), int(np.prod(np.shape(codes)[1:])))
    if flat.shape[1] % lanes:
        raise FormatError(f"{flat.shape[1]} codes an image do not fill beats of {lanes} codes")
    size = element_bytes(width)
    return np.ascontiguousarray(flat.view(np.uint8).reshape(*flat.shape, 8)[..., :size]).reshape(
        len(flat), flat.shape[1] // lanes, lanes * size)


def unpack_results(beats: np.ndarray, *, signed: bool) -> np.ndarray:
    """Return the values (n, beats) in result beats (n, beats, bytes): one a beat, all bytes count."""
    fill = np.where(signed & (beats[..., -1:] >= 128), 255, 0).astype(np.uint8)
    whole = np.concatenate([beats, *[fill] * (8 - beats.shape[-1])], axis=-1)
    return np.ascontiguousarray(whole).view("<i8")[..., 0]
