import math

import pytest

from cmbench.lab import Chart, Finding, Measure, _fit

CHART = Chart("", "x", "y", ())


@pytest.mark.parametrize(
    ("relation", "measured", "holds"),
    [("=", 1.1, True), ("=", 0.9, True), ("=", 1.2, False), ("<=", 0.1, True), ("<=", 1.1, True), ("<=", 1.2, False)]
    + [(">=", 9.0, True), (">=", 0.9, True), (">=", 0.8, False)]
    + [(relation, math.nan, False) for relation in ("=", "<=", ">=")],
)
def test_a_number_against_what_is_expected(relation, measured, holds):
    assert Measure("", measured, 1.0, 0.11, relation).holds == holds


def test_verdicts():
    good, bad = Measure("", 1, 1), Measure("", 2, 1)
    assert Finding([good], CHART).verdict == "holds"
    assert Finding([good], CHART, "so far", in_part=True).verdict == "holds in part"
    assert Finding([good, bad], CHART, "so far", in_part=True).verdict == "fails"


def test_orders_and_limits():
    steps = (0.4, 0.2, 0.1)
    assert _fit.order(steps, [3 * h**2 for h in steps]) == pytest.approx(2)
    assert _fit.limit((0.8, *steps), [9, *(7 + 2 * h - h**2 for h in steps)]) == pytest.approx(7)
    assert _fit.guide("", steps, (1, 1, 5), 1).y == pytest.approx([20, 10, 5])
