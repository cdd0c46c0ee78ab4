import numpy as np
import pytest

from cmbench.tui.widgets.scatter import DENSITIES, EXTENT, draw, extent_for, outside, own_extent, window

RNG = np.random.default_rng(0)


def text(cells):
    return ["".join(row) for row in cells.characters]


@pytest.mark.parametrize(
    ("point", "row", "column", "dot"),
    [
        ((-1.5, 1.5), 0, 6, 0x01),
        ((1.45, 1.45), 0, 13, 0x08),
        ((-1.5, -1.5), 3, 6, 0x40),
        ((1.45, -1.45), 3, 13, 0x80),
        ((0.01, 0.01), 1, 10, 0x40),
        ((-0.01, -0.01), 2, 9, 0x08),
        ((3.7, 0.01), 1, 19, 0x80),
    ],
)
def test_a_point_falls_into_its_cell_and_dot(point, row, column, dot):
    cells = draw(np.array([point]), 1.5, 20, 4)
    expected = [[" "] * 20 for _ in range(4)]
    expected[row][column] = chr(0x2800 + dot)
    assert text(cells) == ["".join(line) for line in expected]


@pytest.mark.parametrize(("width", "height"), [(20, 4), (8, 30), (9, 30), (1, 5), (5, 0), (0, 3)])
@pytest.mark.parametrize("ascii", [False, True])
def test_all_cells_are_drawn_in_to_one_scale(width, height, ascii):
    cells = draw(np.zeros((1, 2)), EXTENT, width, height, ascii)
    assert cells.characters.shape == cells.density.shape == (height, width)
    if width and height:
        ends = window(EXTENT, width, height)
        assert ends[0] / (width / 2) == pytest.approx(ends[1] / height)  # cells are twice as high as wide
        assert min(ends) == EXTENT


def test_characters_count():
    xy = np.array([[-1.4, 1.4]] + [[1.4, -1.4]] * 5)
    assert text(draw(xy, 1.5, 4, 2, ascii=True)) == [".   ", "   +"]
    assert text(draw(np.zeros((0, 2)), 1.5, 4, 2, ascii=True)) == ["    "] * 2


@pytest.mark.parametrize("ascii", [False, True])
def test_shades_tell_the_density_and_data_lie_behind(ascii):
    behind_as = "-" if ascii else ""
    dense, thin = RNG.normal([-0.5, 0.5], 0.03, (500, 2)), np.array([[0.5, -0.5], [0.8, -0.8]])
    data = np.array([[-0.5, 0.5], [0.5, 0.5]])
    cells = draw(np.vstack([dense, thin]), 1.0, 20, 10, ascii, data, behind_as)
    levels = cells.density
    assert levels[2, 4:6].max() == DENSITIES - 1
    assert levels[7, 15] < DENSITIES - 1
    assert levels[2, 15] == -1
    assert cells.characters[2, 15] != " "  # of the data alone
    assert ("-" in cells.characters) == ascii
    plain = draw(np.vstack([dense, thin]), 1.0, 20, 10, ascii)
    assert (plain.density == levels).all()
    assert (plain.characters == cells.characters)[levels >= 0].all()
    assert plain.characters[2, 15] == " "


def test_what_lies_outside_is_not_drawn_but_counted():
    xy = np.array([[2.0, 0.0], [0.0, -9.0], [0.0, 0.0]])
    assert outside(xy, window(1.5, 8, 4)) == 2
    assert outside(xy, window(1.5, 16, 4)) == 1  # the longer axis reaches further
    assert sum(c != " " for line in text(draw(xy, 1.5, 8, 4)) for c in line) == 1


def test_limits_grow_for_the_many_and_never_shrink():
    cloud = RNG.normal(size=(500, 2)) * 0.5
    ring = 0.7 * np.array([[np.cos(a), np.sin(a)] for a in np.linspace(0, 6, 500)])
    assert extent_for(ring) == extent_for(0 * ring, behind=ring) == EXTENT
    assert extent_for(ring, behind=np.zeros((0, 2))) == EXTENT
    assert extent_for(cloud) == extent_for(ring, behind=cloud) == 1.5
    assert extent_for(np.vstack([cloud, [[80.0, 0.0]]])) == 1.5
    assert extent_for(4 * cloud) == 6
    assert extent_for(cloud, extent=6) == 6
    assert extent_for(1e9 * cloud) == EXTENT  # it has axes of its own
    assert extent_for(1e9 * cloud, extent=6) == 6
    assert extent_for(np.zeros((0, 2))) == EXTENT


@pytest.mark.parametrize("size", [15.0, 3e3, 1e9, 1e30, 1e300])
def test_what_exploded_has_axes_that_hold_nearly_all_of_it(size):
    cloud = size * RNG.normal(size=(1000, 2))
    extent = own_extent(cloud, (12.0, 12.0))
    assert outside(cloud, (extent, extent)) < 30
    assert np.abs(cloud).max() > extent / 5
    assert float(f"{extent:.0e}") == pytest.approx(extent)  # a round number


def test_what_is_mostly_in_sight_keeps_the_axes_of_the_others():
    points = np.vstack([np.zeros((60, 2)), np.full((40, 2), 1e6)])
    assert own_extent(points, (12.0, 12.0)) is None
    assert own_extent(points[:0], (12.0, 12.0)) is None
