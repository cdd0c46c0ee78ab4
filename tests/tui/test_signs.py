import math
import time

import pytest

from cmbench.tui import scales, signs


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0.0, "0"),
        (0.0231, ".0231"),
        (-0.25, "-.25"),
        (1.23456, "1.235"),
        (-3.2326, "-3.233"),
        (61.4912, "61.49"),
        (0.00068, "6.8e-4"),
        (-1.26e-9, "-1.3e-9"),
        (123456.0, "1.2e5"),
        (99999.4, "1e+05".replace("1e+05", "1e5")),
        (1e300, "1e300"),
    ],
)
def test_numbers_are_short(value, text):
    assert signs.number(value) == text
    assert len(text) <= 8


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
    assert signs.count(value) == text


def test_progress():
    assert signs.progress(184_320, 400_000) == "184k/400k"
    assert signs.progress(400_000, 400_000) == "400k"
    assert signs.progress(7, None) == "7"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "now"),
        (0, "now"),
        (59.9, "now"),
        (60, "1 m"),
        (3599, "59 m"),
        (3600, "1 h"),
        (86399, "23 h"),
        (86400 * 40, "40 d"),
        *((seconds, "?") for seconds in (math.inf, -math.inf, math.nan, 1e308)),
    ],
)
def test_ages_are_coarse(seconds, text):
    assert signs.age(seconds) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([None], ""),
        ([3.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([0.0, 0.5, 1.0], "▁▅█"),
        ([1.0, None, -1.0], "█ ▁"),
        ([1000.0, 100.0, 10.0, 1.0], "█▆▃▁"),  # by the logarithm
        ([10.0, 5.0, 1.0], "█▄▁"),
        ([1e308, 0.0, -1e308], "█▅▁"),
        ([math.inf, 1.0, 0.0, math.nan], " █▁ "),
    ],
)
def test_a_sparkline_goes_from_low_to_high(values, text):
    assert signs.sparkline(values) == text


def test_plain_terminals_get_plain_characters():
    assert signs.sparkline([0.0, 1.0], ascii=True).isascii()
    for state in (
        "starting",
        "running",
        "paused",
        "finished",
        "stopped",
        "diverged",
        "failed",
        "crashed",
        "lost",
        "odd",
    ):
        assert signs.sign(state, ascii=True)[0].isascii()
        assert len(signs.sign(state)[0]) == len(signs.sign(state, ascii=True)[0]) == 1


@pytest.mark.parametrize("seconds", [math.inf, -math.inf, math.nan, 1e308, 1e11])
def test_no_clock_shows_a_time_without_end(seconds):
    assert (signs.clock(seconds), scales.duration(seconds)) == ("?", "?")


def test_times_have_their_days_where_these_differ():
    noon = time.mktime((2026, 11, 28, 12, 0, 0, 0, 0, -1))
    assert signs.moments([noon, noon + 61], now=noon + 100) == ["12:00:00", "12:01:01"]
    assert signs.moments([noon], now=noon + 86400) == ["11-28 12:00:00"]
    assert signs.moments([noon, noon + 86400, None], now=noon) == ["11-28 12:00:00", "11-29 12:00:00", "--/-- --:--:--"]
    assert signs.moments([None, "x"], now=noon) == ["--:--:--", "--:--:--"]
