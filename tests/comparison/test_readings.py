"""Figures of one metric of one run, against others' computations."""

import math

import numpy as np
import pytest
from scipy.integrate import trapezoid

from cmbench.comparison import readings
from cmbench.comparison.readings import Best, Reached
from cmbench.rundir.columns import Column


def column(step, value, images=None, seconds=None) -> Column:
    step = np.array(step, float)
    return Column(
        step,
        8 * step if images is None else np.array(images, float),
        2 * step if seconds is None else np.array(seconds, float),
        32 * step,
        np.array(value, float),
    )


def test_known_areas():
    line = column([0, 10], [0, 20])  # y = 2 x
    assert readings.area(line, 0, 10) == 100
    assert readings.area(line, 2, 5) == 21
    assert readings.area(column([0, 1, 9, 10], [5, 5, 5, 5]), 0.5, 9.5) == 45
    assert readings.area(column([1, 2, 3], [1, math.nan, 3]), 1, 3) == 4  # straight across what is not finite


def test_area_against_scipy():
    random = np.random.default_rng(1)
    step = np.sort(random.choice(1000, 60, replace=False))
    found = column(step, random.normal(size=60))
    assert readings.area(found, step[0], step[-1]) == pytest.approx(trapezoid(found.value, step), rel=1e-12)
    inner = np.linspace(step[3] + 0.25, step[-4] - 0.25, 2_000_001)
    expected = trapezoid(np.interp(inner, step, found.value), inner)
    assert readings.area(found, inner[0], inner[-1]) == pytest.approx(expected, rel=1e-6)


def test_no_area_beyond_the_rows():
    found = column([10, 20], [1, 1])
    assert readings.area(found, 5, 20) is None
    assert readings.area(found, 10, 21) is None


def test_values_at_a_place():
    found = column([10, 20, 40], [1, 2, 6], images=[100, 200, 400], seconds=[1, 5, 6])
    assert readings.at(found, "step", 30) == 4
    assert readings.at(found, "images", 150) == 1.5
    assert readings.at(found, "seconds", 5.5) == 4
    assert readings.at(found, "step", 10) == 1
    assert readings.at(found, "step", 40) == 6
    assert readings.at(found, "step", 9.9) is None
    assert readings.at(found, "step", 40.1) is None
    assert readings.at(column([1, 2], [1, 1], images=[math.nan] * 2), "images", 8) is None


def test_best_is_the_first_lowest_of_a_quality():
    found = column([1, 2, 3, 4, 5], [3, math.nan, 1, 1, -math.inf])
    assert readings.best("sw_1step", found) == Best(1.0, 3)
    assert readings.best("true_error_1step", found) == Best(1.0, 3)
    assert readings.best("loss", found) is None
    assert readings.best("sw_1step", column([1], [math.nan])) is None


def test_last_is_not_hidden_where_it_is_not_finite():
    assert column([1, 2], [3, 4]).last == 4
    assert math.isnan(column([1, 2], [3, math.nan]).last)
    assert column([], []).last is None


def test_when_a_level_was_reached():
    found = column([5, 6, 7], [0.3, 0.1, 0.2])
    assert readings.reached(found, 0.2) == Reached(6, 48, 12.0, 192.0)
    assert readings.reached(found, 0.1) == Reached(6, 48, 12.0, 192.0)
    assert readings.reached(found, 0.09) is None
    assert readings.reached(column([5], [0.1], images=[math.nan]), 1.0) == Reached(5, None, 10.0, 160.0)
    assert readings.reached(column([5], [math.nan]), 1.0) is None
