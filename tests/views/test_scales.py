import math
import re
from itertools import pairwise

import numpy as np
import pytest

from cmbench.views.axes import KINDS, Scale, grown, limits, ticks

RNG = np.random.default_rng(0)
UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "": 1.0}


def value_of(label):
    mantissa, unit = re.fullmatch(r"(-?[\d.]+(?:e-?\d+)?)([kMGT]?)", label).groups()
    return float(mantissa) * UNITS[unit]


def last_digit(label):
    """What one more in the last digit of a label would add."""
    mantissa, exponent, unit = re.fullmatch(r"-?([\d.]+)(?:e(-?\d+))?([kMGT]?)", label).groups()
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])) * UNITS[unit]


@pytest.mark.parametrize("kind", KINDS)
def test_a_scale_is_monotone_and_has_an_inverse(kind):
    scale = Scale(kind, 1e-2)
    values = np.logspace(-9, 9, 91)
    values = values if kind == "log" else np.concatenate([-values[::-1], [0.0], values])
    places = scale.forward(values)
    assert (np.diff(places) > 0).all()
    assert [scale.inverse(p) for p in places] == pytest.approx(values, rel=1e-5, abs=1e-12)
    assert scale.inverse(1e9) == (1e9 if kind == "linear" else math.inf)


def test_a_log_axis_has_no_place_for_what_is_not_positive():
    assert np.isnan(Scale("log").forward([0.0, -1.0, np.nan])).all()


@pytest.mark.parametrize("kind", KINDS)
def test_ticks_are_round_in_sight_apart_and_true(kind):
    for _ in range(1500):
        scale = Scale(kind, 10.0 ** RNG.integers(-4, 4))
        low, high = sorted(RNG.uniform(-9, 9, 2) * (10.0 ** RNG.uniform(-6, 6) if kind == "linear" else 1))
        most = int(RNG.integers(1, 20))
        marks = ticks(low, high, scale, most)
        labels = [label for _, label in marks]
        assert len(marks) <= most
        assert len(set(labels)) == len(labels)
        assert all(len(label) <= 7 for label in labels)
        assert all(low <= place <= high for place, _ in marks)
        assert all(a[0] < b[0] for a, b in pairwise(marks))
        for place, label in marks:
            assert abs(value_of(label) - scale.inverse(place)) <= 0.51 * last_digit(label)


@pytest.mark.parametrize(
    ("ends", "scale", "most", "labels"),
    [
        ((0, 10), Scale(), 6, ["0", "2", "4", "6", "8", "10"]),
        ((0, 1), Scale(), 3, ["0", "0.5", "1.0"]),
        ((0, 10), Scale(), 10, ["0", "2", "4", "6", "8", "10"]),
        ((0, 20_000), Scale(), 5, ["0", "5000", "10k", "15k", "20k"]),
        ((0, 0.002), Scale(), 5, ["0", "0.0005", "0.0010", "0.0015", "0.0020"]),
        ((-3, 1), Scale("log"), 9, ["0.001", "0.01", "0.1", "1", "10"]),
        ((-6, 6), Scale("log"), 5, ["1e-6", "0.001", "1", "1000", "1M"]),
        ((0.0, 0.5), Scale("log"), 3, ["1", "2", "3"]),
        ((-3.1, 3.1), Scale("symlog"), 9, ["-1000", "-100", "-10", "-1", "0", "1", "10", "100", "1000"]),
        ((2.5, 4.5), Scale("symlog"), 9, ["1000", "10k"]),
        ((-3, 3), Scale("symlog"), 2, ["0"]),
        ((-0.5, 0.9), Scale("log"), 8, ["0.5", "1", "2", "5"]),
        ((-2.2, -0.3), Scale("log"), 5, ["0.01", "0.03", "0.1", "0.3"]),
        ((0, 2.4), Scale("log"), 8, ["1", "2", "5", "10", "20", "50", "100", "200"]),
        ((0.1, 0.25), Scale("log"), 5, ["1.3", "1.4", "1.5", "1.6", "1.7"]),
    ],
)
def test_which_ticks(ends, scale, most, labels):
    assert [label for _, label in ticks(*ends, scale, most)] == labels


@pytest.mark.parametrize("ends", [(0, 0), (1, 0), (math.nan, 1), (-math.inf, math.inf), (-1e308, 1e308), (0, 5e-324)])
@pytest.mark.parametrize("kind", KINDS)
def test_ends_without_ticks(ends, kind):
    assert all(math.isfinite(place) for place, _ in ticks(*ends, Scale(kind), 8)) or ends[1] == math.inf


def test_limits_hold_the_data_and_rarely_move():
    data = np.cumsum(RNG.normal(size=5000))
    before, moves = None, 0
    for n in range(1, len(data) + 1):
        now = limits(data[:n].min(), data[:n].max(), before)
        assert now[0] <= data[:n].min() <= data[:n].max() <= now[1]
        moves += now != before
        before = now
    assert moves < 100


def test_limits_do_not_stay_far_too_wide():
    wide = limits(0.0, 100.0, None)
    assert limits(10.0, 60.0, wide) == wide
    low, high = limits(10.0, 20.0, wide)
    assert high - low < 12
    assert limits(low + 0.1, high - 0.1, (low, high)) == (low, high)


@pytest.mark.parametrize("value", [0.0, 1e-300, -3.0, 7e5, 1e300])
def test_limits_of_a_constant_are_around_it_and_stay(value):
    low, high = limits(value, value, None)
    assert low < value < high
    assert math.isfinite(high - low)
    assert limits(value, value, (low, high)) == (low, high)


def test_limits_without_data_or_beyond_floats():
    assert limits(math.nan, math.nan, None) == (0.0, 1.0)
    assert limits(math.inf, -math.inf, (2.0, 3.0)) == (2.0, 3.0)
    low, high = limits(-1.7e308, 1.7e308, None)
    assert math.isfinite(high - low)


def test_a_growing_axis_moves_by_halves():
    end, ends = None, set()
    for last in range(1, 100_000):
        end = grown(float(last), end, None)
        assert last <= end <= max(2 * last, 2)
        ends.add(end)
    assert len(ends) <= math.log(100_000) / math.log(1.5) + 2


def test_a_growing_axis_stops_where_it_is_known_to_and_goes_on_only_after_the_data():
    assert grown(500.0, None, 600.0) == 600.0
    assert grown(500.0, 750.0, 600.0) == 600.0
    assert grown(599.0, 600.0, 600.0) == 600.0
    end, moves = 600.0, 0
    for last in range(601, 900):  # trained on: the known end is too near
        moves += end != (end := grown(float(last), end, 600.0))
        assert last <= end
    assert moves == 1
    assert grown(3.0, 1e6, None) == 4.5
    assert grown(0.0, None, None) == 0.0
