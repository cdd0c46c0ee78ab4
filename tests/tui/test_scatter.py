import numpy as np
import pytest

from cmbench.tui.widgets.scatter import EXTENT, braille, characters, extent_for, outside


@pytest.mark.parametrize(
    ("point", "row", "column", "dot"),
    [
        ((-1.5, 1.5), 0, 0, 0x01),
        ((1.5, 1.5), 0, 7, 0x08),
        ((-1.5, -1.5), 3, 0, 0x40),
        ((1.5, -1.5), 3, 7, 0x80),
        ((0.01, 0.01), 1, 4, 0x40),
        ((-0.01, -0.01), 2, 3, 0x08),
    ],
)
def test_a_point_falls_into_its_cell_and_dot(point, row, column, dot):
    lines = braille(np.array([point]), EXTENT, 20, 4)
    expected = [[" "] * 8 for _ in range(4)]
    expected[row][column] = chr(0x2800 + dot)
    assert lines == ["".join(line) for line in expected]


@pytest.mark.parametrize(("width", "height"), [(20, 4), (8, 30), (9, 30), (1, 5), (5, 0)])
def test_the_square_is_the_largest_that_fits(width, height):
    lines = braille(np.zeros((1, 2)), EXTENT, width, height)
    assert len(lines) == min(height, width // 2)
    assert all(len(line) == 2 * len(lines) for line in lines)


def test_characters_count():
    xy = np.array([[-1.4, 1.4]] + [[1.4, -1.4]] * 5)
    assert characters(xy, EXTENT, 4, 2) == [".   ", "   +"]
    assert characters(np.zeros((0, 2)), EXTENT, 4, 2) == ["    "] * 2


def test_what_lies_outside_is_not_drawn_but_counted():
    xy = np.array([[2.0, 0.0], [0.0, -9.0], [0.0, 0.0]])
    assert outside(xy, EXTENT) == 2
    assert sum(c != " " for line in braille(xy, EXTENT, 8, 4) for c in line) == 1


def test_limits_grow_for_the_many_and_never_shrink():
    cloud = np.random.default_rng(0).normal(size=(500, 2)) * 0.5
    assert extent_for(cloud) == EXTENT
    assert extent_for(np.vstack([cloud, [[80.0, 0.0]]])) == EXTENT
    assert extent_for(4 * cloud) == 4 * EXTENT
    assert extent_for(cloud, extent=4 * EXTENT) == 4 * EXTENT
    assert extent_for(1e9 * cloud) == 8 * EXTENT
    assert extent_for(np.zeros((0, 2))) == EXTENT
