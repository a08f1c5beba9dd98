"""The exact line of a monotone function: right on every reachable sum, of the smallest shift, or refused."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwq.errors import ModelError
from hwq.passes import ExactScale, exact_scale, fits, thresholds_of

QUICK = settings(max_examples=60, deadline=None)


def clamped(function, first, last):
    return lambda a: min(max(function(a), first), last)


def value(scale, a):
    offset = scale.offset if scale.offset_neg is None or a >= 0 else scale.offset_neg
    return (a * scale.mult + offset) >> scale.shift


@QUICK
@given(st.integers(1, 200), st.integers(1, 8), st.integers(0, 4), st.integers(1, 8))
def test_mean_of_unsigned_codes(pixels, width, up, bits_out):
    hi, last = pixels * ((1 << width) - 1), (1 << bits_out) - 1
    f = clamped(lambda a: floor(Fraction(a << up, pixels) + Fraction(1, 2)), 0, last)
    thresholds = thresholds_of(f, 0, hi, 0, last)
    scale = exact_scale(thresholds, 0, 0, hi)
    assert fits(scale, thresholds, 0, 0, hi)
    assert all(min(max(value(scale, a), 0), last) == f(a) for a in range(hi + 1))


@QUICK
@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 3))
def test_mean_of_signed_codes(pixels, width, up):
    lo, hi = -pixels << (width - 1), pixels * ((1 << (width - 1)) - 1)
    f = clamped(lambda a: floor(Fraction(a << up, pixels) + Fraction(1, 2)), -8, 7)
    scale = exact_scale(thresholds_of(f, lo, hi, -8, 7), -8, lo, hi, two_offsets=True)
    assert all(min(max(value(scale, a), -8), 7) == f(a) for a in range(lo, hi + 1))


@QUICK
@given(st.fractions(0, 2, max_denominator=97).filter(lambda q: q > 0), st.fractions(-40, 40, max_denominator=31),
       st.integers(-300, 0), st.integers(1, 300))
def test_any_real_line_and_no_smaller_shift(gain, constant, lo, hi):
    f = clamped(lambda a: floor(a * gain + constant), 0, 15)
    thresholds = thresholds_of(f, lo, hi, 0, 15)
    scale = exact_scale(thresholds, 0, lo, hi)
    assert all(min(max(value(scale, a), 0), 15) == f(a) for a in range(lo, hi + 1))
    if 0 < scale.shift <= 5 and hi - lo < 100:     # by brute force: nothing smaller exists
        s = scale.shift - 1
        for m in range(0, 64 + 1):
            low = max((k << s) - t * m for k, t in enumerate(thresholds, 1)) if thresholds else 0
            assert not any(fits(ExactScale(m, b, s), thresholds, 0, lo, hi) for b in range(low, low + 2))


def test_rounding_away_from_zero_by_a_plain_shift_needs_two_offsets():
    def away(a):
        return (a + 8) >> 4 if a >= 0 else -((-a + 8) >> 4)
    f = clamped(away, -128, 127)
    thresholds = thresholds_of(f, -3000, 3000, -128, 127)
    with pytest.raises(ModelError, match="1 bits with one offset.*use thresholds"):
        exact_scale(thresholds, -128, -3000, 3000, max_bits=1)
    scale = exact_scale(thresholds, -128, -3000, 3000, max_bits=1, two_offsets=True)
    assert (scale.mult, scale.shift) == (1, 4) and scale.offset_neg is not None
    assert all(min(max(value(scale, a), -128), 127) == f(a) for a in range(-3000, 3001))


def test_a_function_that_is_no_line_is_refused():
    with pytest.raises(ModelError, match="use thresholds"):
        exact_scale([0, 1, 50, 51], 0, 0, 100, two_offsets=True)


@pytest.mark.parametrize("pixels, mult, shift", [(9, 455, 12), (49, 2675, 17), (64, 8193, 19)])
def test_published_averages_are_not_beaten_by_ours_being_wrong(pixels, mult, shift):
    lo, hi = 0, 255 * pixels
    f = clamped(lambda a: (2 * a + pixels) // (2 * pixels), 0, 255)
    scale = exact_scale(thresholds_of(f, lo, hi, 0, 255), 0, lo, hi)
    assert scale.shift <= shift and scale.mult <= mult
