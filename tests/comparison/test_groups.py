"""Runs that differ in their seed alone: means over seeds and their difference."""

import math
import statistics

import numpy as np
import pytest
import tomli
from scipy.stats import bootstrap
from scipy.stats import t as student
from tiny import TINY

from cmbench.comparison import groups, interval
from cmbench.comparison.groups import Spread
from cmbench.recipe import Recipe, flat


def keys(seed=0, lr=0.01) -> dict:
    tables = tomli.loads(TINY)
    return dict(flat(Recipe(**tables | {"seed": seed, "optimizer": {**tables["optimizer"], "lr": lr}}).tables()))


def no_interval(x, y):
    raise AssertionError("there is one group alone")


def test_groups_are_equal_but_for_the_seed():
    runs = [keys(0), keys(1, lr=0.1), keys(1), None, keys(2, lr=0.1), keys(3, lr=0.5)]
    found = groups.of(runs, {}, lambda x, y: (x, y, x, y))
    assert [(group.places, group.seeds) for group in found] == [((0, 2), (0, 1)), ((1, 4), (1, 2))]
    assert groups.of([keys(0), keys(1, lr=0.1), None], {}, no_interval) == []
    assert groups.of([keys(5), keys(5)], {}, no_interval) == []  # one seed twice is no spread
    copied = [keys(0), keys(0), keys(1), keys(0)]
    assert [group.places for group in groups.of(copied, {}, no_interval)] == [(0, 2)]


def test_mean_and_deviation_of_a_group():
    last = {"loss": [1.0, 2.0, 6.0], "sw_1step": [0.5, None, 0.7], "x": [1.0, math.nan, 2.0], "y": [None, None, None]}
    (group,) = groups.of([keys(s) for s in range(3)], last, no_interval)
    assert group.spreads["loss"] == Spread(3, 3.0, statistics.stdev([1, 2, 6]))
    assert group.spreads["sw_1step"].n == 2
    assert math.isnan(group.spreads["x"].mean)
    assert "y" not in group.spreads
    assert group.differences == {}


def test_the_interval_is_scipys():
    x, y = [1.0, 2.0, 6.0], [4.0, 4.5, 8.0, 5.0]
    last = {"loss": [*x, *y], "lr": [1.0] * 7, "gone": [*x, *y[:3], None], "broken": [*x, *y[:3], math.nan]}
    runs = [keys(s) for s in range(3)] + [keys(s, lr=1.0) for s in range(4)]
    first, second = groups.of(runs, last, interval.of_difference)
    assert first.differences == {}
    assert sorted(second.differences) == ["loss", "lr"]
    found = second.differences["loss"]
    expected = bootstrap(
        (x, y), lambda x, y: np.mean(y) - np.mean(x), vectorized=False, method="percentile", random_state=5
    ).confidence_interval
    assert found.mean == pytest.approx(np.mean(y) - np.mean(x))
    assert found.low == pytest.approx(expected.low, abs=0.15)
    assert found.high == pytest.approx(expected.high, abs=0.15)
    variances = [np.var(values, ddof=1) / len(values) for values in (x, y)]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2 / 3)  # Welch 1947
    half = student.ppf(0.975, freedom) * sum(variances) ** 0.5
    assert (found.welch_low, found.welch_high) == pytest.approx((found.mean - half, found.mean + half))
    assert second.differences["lr"].mean == second.differences["lr"].low == second.differences["lr"].high == 0
    again = groups.of(runs, last, interval.of_difference)[1].differences
    assert again["loss"] == second.differences["loss"]
