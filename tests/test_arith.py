"""Rounding, shifting and saturation against Python's unbounded integers and fractions."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwq.arith import bit_range, round_half_up, saturate, scale_shift, shift_right_floor, width_of
from hwq.errors import FormatError

INT = st.integers(-(2 ** 30), 2 ** 30)


@given(INT, st.integers(-(2 ** 20), 2 ** 20), INT, st.integers(-8, 40), st.integers(-300, 0), st.integers(0, 300))
def test_scale_shift_is_the_floor_of_a_fraction(acc, mult, offset, shift, lo, hi):
    exact = floor(Fraction(acc * mult + offset) / Fraction(2) ** shift)
    found = scale_shift(np.array([acc]), mult, offset, shift, lo, hi)
    assert int(found[0]) == min(max(exact, lo), hi)


@given(INT, st.integers(1, 30))
def test_offset_of_half_rounds_half_up(acc, shift):
    found = scale_shift(np.array([acc]), 1, 1 << (shift - 1), shift, -(2 ** 40), 2 ** 40)
    assert int(found[0]) == floor(Fraction(acc, 1 << shift) + Fraction(1, 2))


@given(INT, st.integers(1, 30))
def test_half_even_is_pythons_round(acc, shift):
    found = scale_shift(np.array([acc]), 1, 0, shift, -(2 ** 40), 2 ** 40, half_even=True)
    assert int(found[0]) == round(Fraction(acc, 1 << shift))


@given(st.lists(INT, min_size=1, max_size=20), INT, INT)
def test_offset_neg_serves_negative_sums(accs, offset, offset_neg):
    found = scale_shift(np.array(accs), 3, offset, 4, -(2 ** 40), 2 ** 40, np.array(offset_neg))
    assert found.tolist() == [(a * 3 + (offset_neg if a < 0 else offset)) >> 4 for a in accs]


@given(INT, st.integers(-20, 40))
def test_shift_right_floor(value, shift):
    assert int(shift_right_floor(np.array([value]), shift)[0]) == (value >> shift if shift >= 0 else value << -shift)


@given(st.fractions(-1000, 1000, max_denominator=1 << 10).filter(lambda f: f.denominator & (f.denominator - 1) == 0))
def test_round_half_up(value):
    assert float(round_half_up(np.array(float(value)))) == floor(value + Fraction(1, 2))


@given(INT, INT)
def test_width_is_the_least_that_holds(a, b):
    lo, hi = min(a, b), max(a, b)
    width, signed = width_of(lo, hi)
    low, high = bit_range(width, signed)
    assert low <= lo and hi <= high and signed == (lo < 0)
    if width > 1:
        low, high = bit_range(width - 1, signed)
        assert not (low <= lo and hi <= high)


def test_empty_range_is_refused():
    with pytest.raises(FormatError, match="3..2"):
        width_of(3, 2)


def test_saturate():
    np.testing.assert_array_equal(saturate(np.array([-9, -2, 0, 7, 8]), -2, 7), [-2, -2, 0, 7, 7])
