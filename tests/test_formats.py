"""Formats: every code of every format decodes and encodes back; spec texts parse or are refused with a message."""

import numpy as np
import pytest

from hwq.errors import FormatError
from hwq.formats import Bipolar, FixedPoint, PowerOfTwo, parse_spec


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("width", range(2, 17))
def test_fixed_point_round_trip(width, signed):
    fmt = FixedPoint(width, -3, signed)
    lo, hi = fmt.range
    values = np.arange(lo, hi + 1)
    words = fmt.encode(values)
    assert words.min() == 0 and words.max() == 2 ** width - 1 and len(np.unique(words)) == 2 ** width
    np.testing.assert_array_equal(fmt.decode(words), values)
    for bad in (lo - 1, hi + 1):
        with pytest.raises(FormatError, match=f"{lo}..{hi}"):
            fmt.encode(np.array([bad]))


@pytest.mark.parametrize("width", range(2, 17))
def test_narrow_leaves_out_the_most_negative_code(width):
    fmt = FixedPoint(width, 0, narrow=True)
    assert fmt.range == (-(2 ** (width - 1) - 1), 2 ** (width - 1) - 1)
    with pytest.raises(FormatError):
        fmt.check(np.array([-(2 ** (width - 1))]))


@pytest.mark.parametrize("width", range(2, 6))
def test_power_of_two_round_trip(width):
    fmt = PowerOfTwo(width, -1)
    levels = np.array([0] + [s * 2 ** k for k in range(2 ** (width - 1) - 1) for s in (1, -1)])
    words = fmt.encode(levels)
    assert len(np.unique(words)) == len(levels) and 0 <= words.min() and words.max() < 2 ** width
    np.testing.assert_array_equal(fmt.decode(words), levels)
    assert (levels.min(), levels.max()) == fmt.range and fmt.frac_bits == -fmt.min_exp
    with pytest.raises(FormatError, match="no level"):
        fmt.check(np.array([fmt.range[1] * 2]))


def test_bipolar_round_trip():
    fmt = Bipolar(2)
    np.testing.assert_array_equal(fmt.decode(fmt.encode(np.array([-1, 1]))), [-1, 1])
    with pytest.raises(FormatError, match="-1 or"):
        fmt.check(np.array([0]))


@pytest.mark.parametrize("fmt", [FixedPoint(4, 5), FixedPoint(4, -2, signed=False), FixedPoint(3, 0, narrow=True),
                                 PowerOfTwo(3, -2), Bipolar(1)])
def test_text_parses_back(fmt):
    spec = parse_spec(fmt.text)
    assert spec.resolve(spec.scale) == fmt


@pytest.mark.parametrize("text", ["", "int8", "dfp", "dfp:b=1", "dfp:b=17", "dfp:b=four", "dfp:b=4,b=4", "dfp:b=4,emax=1",
                                  "dfp:b=4,rule=best", "dfp:b=4,fl=2,rule=range", "dfp:b=4,fl=2,channel", "dfp:b=4,channel=1",
                                  "udfp:b=4,channel", "po2:b=3,narrow", "bipolar:b=1", "po2:b=6", "po2:b=1", "dfp:b=4,narrow=1",
                                  "udfp:b=4,narrow", "dfp:b", None, 4])
def test_bad_texts_are_refused_with_what_is_accepted(text):
    with pytest.raises(FormatError, match="accepted|Width"):
        parse_spec(text)


def test_open_scale_is_none():
    assert parse_spec("dfp:b=4").scale is None and parse_spec("dfp:b=4,fl=-3").scale == -3


@pytest.mark.parametrize("text", ["dfp:b=4", "dfp:b=4,fl=-3", "dfp:b=2,narrow,rule=range,channel", "po2:b=3,emax=-2",
                                  "po2:b=5,rule=learned", "bipolar", "bipolar:channel", "bipolar:fl=3", "udfp:b=8"])
def test_spec_text_is_its_own_inverse(text):
    assert parse_spec(text).text == text and parse_spec(parse_spec(text).text) == parse_spec(text)


def test_wide_po2_is_clamped_with_a_note():
    with pytest.warns(UserWarning, match="'po2:b=8' is taken as po2:b=5"):
        assert parse_spec("po2:b=8", clamp=True) == parse_spec("po2:b=5")
