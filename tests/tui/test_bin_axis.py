from itertools import pairwise

import numpy as np
import pytest

from cmbench.tui.bin_axis import column_of, labels, places_between, ticks_of

LEVELS = np.geomspace(0.002, 80, 65)
AXES = {
    "sigma": LEVELS,
    "trigflow": np.arctan(LEVELS / 0.5),
    "linear path": LEVELS / (1 + LEVELS),
    "even": np.linspace(0, 1, 65),
    "from zero": np.linspace(0, 1, 65) ** 2,
    "negative": np.linspace(-2, 3, 6) ** 3,
}


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("most", [1, 2, 4, 7, 12])
def test_round_values_lie_where_the_bins_say_and_apart(axis, most):
    edges = AXES[axis]
    found = places_between(edges.tolist(), most)
    assert len(found) <= most
    assert len(found) >= min(most, 4) // 2
    for place, label in found:
        digits = label.lstrip("-0.").replace(".", "").rstrip("0")
        assert len(digits) <= 3
        low, high = edges[int(np.floor(place))], edges[min(int(np.ceil(place)), len(edges) - 1)]
        assert low - 1e-9 <= float(label) <= high + 1e-9
    assert all(b - a >= (len(edges) - 1) / most / 2 for (a, _), (b, _) in pairwise(found))


def test_an_axis_even_in_the_logarithm_has_powers_of_ten():
    assert [label for _, label in places_between(AXES["sigma"].tolist(), 6)] == ["0.01", "0.1", "1", "10"]


def test_a_part_of_the_axis_has_labels_of_its_own():
    between = ticks_of(AXES["trigflow"].tolist())
    assert between(0, 64, 5) == places_between(AXES["trigflow"].tolist(), 5)
    part = between(40.0, 44.0, 5)
    assert len(part) >= 3
    for place, label in part:
        assert 40 <= place <= 44
        assert np.interp(place, np.arange(65), AXES["trigflow"]) == pytest.approx(float(label), rel=1e-2)


@pytest.mark.parametrize("edges", [[], [1.0], [1.0, 1.0], [2.0, 1.0], [0.0, float("nan"), 1.0]])
def test_what_is_no_axis_has_no_labels(edges):
    assert places_between(edges, 5) == []


@pytest.mark.parametrize("bins", [1, 7, 64, 301])
@pytest.mark.parametrize("columns", [4, 64, 150])
def test_a_column_of_the_bin(bins, columns):
    firsts = np.arange(columns) * bins // columns
    before = 0
    for place in np.linspace(0, bins, 200):
        column = column_of(place, bins, columns)
        own = min(int(place), bins - 1)
        after = firsts[column + 1] if column + 1 < columns else bins
        assert firsts[column] <= own <= max(after - 1, firsts[column])
        assert column >= before
        before = column


def test_edges_are_named_by_their_number_where_no_values_are_known():
    assert labels([], str, 8, 60) == [(0, "0"), (30, "4"), (59, "8")]
