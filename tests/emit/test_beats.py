"""Codes to bytes and back."""

import numpy as np
import pytest

from hwq.emit import pack_codes, unpack_results
from hwq.errors import FormatError


def test_lanes_little_endian_twos_complement():
    beats = pack_codes(np.array([[1, -2, 300, -300]]), lanes=2, width=10)
    assert beats.tolist() == [[[1, 0, 0xFE, 0xFF], [0x2C, 0x01, 0xD4, 0xFE]]]


@pytest.mark.parametrize("size", range(1, 9))
def test_round_trip(size):
    lo = -(1 << 8 * size - 1)
    values = np.array([[lo, -1, 0, 1, -lo - 1]])
    assert (unpack_results(pack_codes(values, lanes=1, width=8 * size), signed=True) == values).all()


def test_unsigned_is_not_extended():
    assert unpack_results(np.array([[[255]]], np.uint8), signed=False).tolist() == [[255]]


def test_open_beat_is_refused():
    with pytest.raises(FormatError, match="3 codes an image do not fill beats of 2 codes"):
        pack_codes(np.zeros((1, 3)), lanes=2, width=8)


def test_no_image_at_all():
    assert pack_codes(np.zeros((0, 2, 2)), lanes=2, width=9).shape == (0, 2, 4)
