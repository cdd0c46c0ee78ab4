"""Runs that differ in their seed alone: means over seeds and their difference."""

import math
import statistics

import numpy as np
import pytest
import tomli
from scipy.stats import bootstrap
from tiny import TINY

from cmbench.cli import _interval
from cmbench.comparison import groups
from cmbench.comparison.groups import Spread
from cmbench.recipe import Recipe


def recipe(seed=0, lr=0.01) -> Recipe:
    return Recipe(**(tables := tomli.loads(TINY)) | {"seed": seed, "optimizer": {**tables["optimizer"], "lr": lr}})


def no_interval(x, y):
    raise AssertionError("there is one group alone")


def test_groups_are_equal_but_for_the_seed():
    recipes = [recipe(0), recipe(1, lr=0.1), recipe(1), None, recipe(2, lr=0.1), recipe(3, lr=0.5)]
    found = groups.of(recipes, {}, lambda x, y: (x, y))
    assert [(group.places, group.seeds) for group in found] == [((0, 2), (0, 1)), ((1, 4), (1, 2))]
    assert groups.of([recipe(0), recipe(1, lr=0.1), None], {}, no_interval) == []
    assert groups.of([recipe(5), recipe(5)], {}, no_interval) == []  # one seed twice is no spread


def test_mean_and_deviation_of_a_group():
    last = {"loss": [1.0, 2.0, 6.0], "sw_1step": [0.5, None, 0.7], "x": [1.0, math.nan, 2.0], "y": [None, None, None]}
    (group,) = groups.of([recipe(s) for s in range(3)], last, no_interval)
    assert group.spreads["loss"] == Spread(3, 3.0, statistics.stdev([1, 2, 6]))
    assert group.spreads["sw_1step"].n == 2
    assert math.isnan(group.spreads["x"].mean)
    assert "y" not in group.spreads
    assert group.differences == {}


def test_the_interval_is_scipys():
    x, y = [1.0, 2.0, 6.0], [4.0, 4.5, 8.0, 5.0]
    last = {"loss": [*x, *y], "lr": [1.0] * 7, "gone": [*x, *y[:3], None], "broken": [*x, *y[:3], math.nan]}
    recipes = [recipe(s) for s in range(3)] + [recipe(s, lr=1.0) for s in range(4)]
    first, second = groups.of(recipes, last, _interval.of_difference)
    assert first.differences == {}
    assert sorted(second.differences) == ["loss", "lr"]
    found = second.differences["loss"]
    expected = bootstrap(
        (x, y), lambda x, y: np.mean(y) - np.mean(x), vectorized=False, method="percentile", random_state=5
    ).confidence_interval
    assert found.mean == pytest.approx(np.mean(y) - np.mean(x))
    assert found.low == pytest.approx(expected.low, abs=0.15)
    assert found.high == pytest.approx(expected.high, abs=0.15)
    assert second.differences["lr"] == groups.Difference(0, 0, 0)
    again = groups.of(recipes, last, _interval.of_difference)[1].differences
    assert again == second.differences
