import math
import re

import numpy as np
import pytest

from cmbench.words.numbers import four_digits, number, progress

RNG = np.random.default_rng(0)
UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "": 1.0}


def value_of(label):
    mantissa, unit = re.fullmatch(r"(-?[\d.]+(?:e-?\d+)?)([kMGT]?)", label).groups()
    return float(mantissa) * UNITS[unit]


@pytest.mark.parametrize("step", [0.0, 1.0])
def test_a_number_of_any_size_keeps_its_value_in_seven_characters(step):
    sizes = 10.0 ** RNG.uniform(-307 if not step else 0, 308, 3000) * RNG.choice([-1, 1], 3000)
    near = np.array([1e-4, 9.9999e-4, 1e-3, 0.0012345, 999.96, 9999.4, 9999.6, 99995.0, 999_949.0, 1e15])
    for value in [*sizes, *near, *-near]:
        label = number(float(value), step)
        assert len(label) <= 7, (value, label)
        if not step or abs(value) > 10:
            assert value_of(label) == pytest.approx(value, rel=0.51)
        if not step and abs(value) > 1e-98:
            assert value_of(label) == pytest.approx(value, rel=0.051 if value > 0 else 0.51)
        if not step and 1e-3 <= abs(value) < 1e15:
            assert value_of(label) == pytest.approx(value, rel=0.051)


@pytest.mark.parametrize(
    ("value", "label"),
    [
        *[(None, ""), (0, "0"), (-0.0, "0"), (1.5, "1.5"), (12_345, "12.35k"), (9999.99, "10k"), (-1.25e-12, "-1e-12")],
        *[(math.nan, "nan"), (-math.inf, "-inf"), (1e300, "1e300"), (0.00123456, "0.00123"), (1.234e-5, "1.2e-5")],
    ],
)
def test_numbers(value, label):
    assert number(value) == label


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (659, "659"),
        (5000, "5k"),
        (5001, "5001"),
        (9999, "9999"),
        (184_320, "184k"),
        (94_371_840, "94M"),
        (10**11, "100G"),
    ],
)
def test_counts_are_short(value, text):
    assert progress(value, None) == text


def test_progress():
    assert progress(184_320, 400_000) == "184k/400k"
    assert progress(400_000, 400_000) == "400k"
    assert progress(7, None) == "7"


def test_tables_have_four_digits_and_dashes():
    assert [four_digits(value) for value in (0.02310049, 1.2344, 1e-5, 12345.6, None)] == (
        ["0.0231", "1.234", "1e-05", "1.235e+04", "-"]
    )
    assert four_digits(0.5, 0.0123) == "0.5 ± 0.012"
    assert four_digits(None, 0.1) == "-"
