import math
import time

import pytest

from cmbench.words.times import EXACT, Stamps, age, coarse, date, duration, moments


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (-5, "0s"), (59.4, "59s"), (59.6, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (90_000, "1d01h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (42.4, "42s"), (3723, "1h02m03s"), (86_400, "1d00h00m00s"), (200_000, "2d07h33m20s")],
)
def test_a_whole_duration(seconds, text):
    assert duration(seconds, EXACT) == text
    assert text.startswith(duration(seconds))
    assert text.startswith(duration(seconds, 1))


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
    assert age(seconds) == text


@pytest.mark.parametrize("seconds", [math.inf, -math.inf, math.nan, 1e308, 1e11])
def test_no_clock_shows_a_time_without_end(seconds):
    assert {duration(seconds), duration(seconds, EXACT), coarse(seconds), age(seconds), date(seconds * 1e300)} == {"?"}


def test_times_have_their_days_where_these_differ():
    noon = time.mktime((2026, 11, 28, 12, 0, 0, 0, 0, -1))
    assert moments([noon, noon + 61], now=noon + 100) == ["12:00:00", "12:01:01"]
    assert moments([noon], now=noon + 86400) == ["11-28 12:00:00"]
    assert moments([noon, noon + 86400, None], now=noon) == ["11-28 12:00:00", "11-29 12:00:00", "--/-- --:--:--"]
    assert moments([None, "x"], now=noon) == ["--:--:--", "--:--:--"]


@pytest.mark.parametrize("seconds", [0.4, 7, 31, 100, 299, 301, 1000, 5000, 40_000, 107_999, 200_000, 5e6])
def test_a_coarse_time_is_near_the_true_one(seconds):
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    said, number, total = coarse(seconds), "", 0
    for c in said:
        number, total = (number + c, total) if c.isdigit() else ("", total + int(number) * units[c])
    assert total == pytest.approx(seconds, rel=0.09, abs=1)


def test_a_log_says_a_day_once():
    noon, stamps = time.mktime((2026, 11, 28, 12, 0, 0, 0, 0, -1)), Stamps()
    lines = [stamps.of(moment, "x") for moment in (noon, noon + 1, None, noon + 86400)]
    assert lines == ["2026-11-28 12:00:00  x", "12:00:01  x", "--:--:--  x", "2026-11-29 12:00:00  x"]


@pytest.mark.parametrize("moment", [None, "x", float("nan"), 1e300, [], 10**400])
def test_what_is_no_moment(moment):
    assert date(moment) == "?"
