import numpy as np
import pytest

from cmbench.tui import canvas
from cmbench.tui.canvas import Columns, cells, characters, columns, dots, layered

RNG = np.random.default_rng(0)
NO_GAP = np.zeros(0, bool)


def gather(x, y, ends, width, gap=None):
    x, y = np.asarray(x, float), np.asarray(y, float)
    return columns(x, y, y, np.isnan(y) if gap is None else np.asarray(gap), ends, width)


@pytest.mark.parametrize("width", [1, 2, 7, 160])
@pytest.mark.parametrize("n", [1, 2, 50, 5000])
def test_each_point_lies_in_the_interval_of_its_column(n, width):
    x = np.sort(RNG.uniform(0, 10, n))
    y = RNG.normal(size=n)
    line = gather(x, y, (0.0, 10.0), width)
    column = np.rint(x / 10 * (width - 1)).astype(int)
    assert (line.low[column] <= y).all()
    assert (y <= line.high[column]).all()
    assert np.nanmax(line.high) == pytest.approx(y.max())
    assert np.nanmin(line.low) == pytest.approx(y.min())


def test_empty_columns_are_bridged_by_a_straight_line():
    line = gather([0, 10], [0, 10], (0.0, 10.0), 11)
    assert (line.low + line.high) / 2 == pytest.approx(np.arange(11.0), abs=0.5)
    assert (line.low[1:] <= line.high[:-1] + 1e-12).all()  # neighbours touch


def test_points_outside_draw_the_line_to_the_edge_and_no_further():
    line = gather([-5, 15], [-5, 15], (0.0, 10.0), 11)
    assert not np.isnan(line.low).any()
    assert line.low[0] == pytest.approx(0, abs=0.6)
    assert line.high[-1] == pytest.approx(10, abs=0.6)
    assert np.isnan(gather([20, 30], [1, 1], (0.0, 10.0), 11).low).all()


def test_a_value_that_is_missing_breaks_the_line_where_it_is_said_to():
    x, y = [0, 5, 10], [1.0, np.nan, 1.0]
    assert np.isnan(gather(x, y, (0.0, 10.0), 11).low[1:10]).all()
    assert not np.isnan(gather(x, y, (0.0, 10.0), 11, gap=[False] * 3).low).any()


def test_equal_x_and_nothing_at_all():
    line = gather([3, 3, 3, 7], [1, 9, 5, 5], (0.0, 10.0), 11)
    assert (line.low[3], line.high[3]) == (1, 9)
    for x, y, ends, width in (([], [], (0, 1), 5), ([1], [1], (0, 0), 5), ([1], [1], (0, 1), 0)):
        assert np.isnan(gather(x, y, ends, width).low).all()
    assert np.isnan(gather([1, 2], [np.nan, np.nan], (0.0, 3.0), 5).low).all()


@pytest.mark.parametrize("size", [1e300, 1.7e308])
def test_huge_values_lie_in_their_place(size):
    line = gather([0, 1, 2, 3], [-size, size, -size, size], (0.0, 3.0), 8)
    assert np.isfinite(line.low).all()
    assert dots(line, (-0.4 * size, 0.4 * size), 2).any()


@pytest.mark.parametrize("dash", canvas.DASHES)
@pytest.mark.parametrize("width", [2, 10, 80, 300])
def test_a_spike_of_one_row_is_seen_at_any_width_and_in_any_dash(width, dash):
    for spike in RNG.integers(0, 10_000, 20):
        y = np.zeros(10_000)
        y[spike] = 100.0
        line = gather(np.arange(10_000), y, (0.0, 9999.0), 2 * width)
        lit = dots(line, (0.0, 100.0), 5, dash)
        assert lit[0].any()
        at = spike / 9999 * (2 * width - 1)
        assert np.abs(np.flatnonzero(lit[0]) - at).min() <= 2.6


@pytest.mark.parametrize(("dash", "share"), [("solid", 1.0), ("dashed", 0.6), ("dotted", 0.5)])
def test_dashes_light_their_share_of_a_flat_line(dash, share):
    lit = dots(gather([0, 1], [0.5, 0.5], (0.0, 1.0), 100), (0.0, 1.0), 4, dash)
    assert lit.any(axis=0).mean() == share
    assert lit.sum(axis=0).max() == 1


@pytest.mark.parametrize("dash", ["dashed", "dotted"])
def test_coarse_dashes_leave_whole_cells_dark(dash):
    line = gather([0, 1], [0.5, 0.5], (0.0, 1.0), 100)
    lit = [cells(dots(line, (0.0, 1.0), 4, dash, coarse=coarse)).any(axis=0) for coarse in (False, True)]
    assert lit[1].mean() < lit[0].mean()
    assert 0.4 < lit[1].mean() < 0.7


def test_dots_count_from_the_bottom_value_to_the_top_one():
    line = Columns(np.array([0.0, 1.0, -9.0, 0.0, np.nan]), np.array([0.0, 1.0, -8.0, 9.0, np.nan]))
    lit = dots(line, (0.0, 1.0), 2)
    assert lit.shape == (8, 5)
    assert [np.flatnonzero(column).tolist() for column in lit.T] == [[7], [0], [], list(range(8)), []]


def test_cells_are_the_braille_patterns_of_unicode():
    """Dots 1 to 8 are the bits of the code point: 1 to 3 and 7 at the left, 4 to 6 and 8 at the right (Unicode 3.0)."""
    numbers = [[1, 4], [2, 5], [3, 6], [7, 8]]
    for row in range(4):
        for column in range(2):
            mask = np.zeros((4, 2), bool)
            mask[row, column] = True
            assert cells(mask)[0, 0] == 1 << (numbers[row][column] - 1)
            assert characters(cells(mask))[0, 0] == chr(0x2800 + (1 << (numbers[row][column] - 1)))
    assert characters(np.zeros((1, 1), np.uint16))[0, 0] == " "


def test_the_upper_line_has_the_cell_alone():
    below, above = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    below[3, :4] = True
    above[0, 2:4] = True
    codes, owner = layered([below, above])
    assert owner.tolist() == [[0, 1, -1]]
    assert codes[0].tolist() == [cells(below)[0, 0], cells(above)[0, 1], 0]


def test_ascii_signs_stand_for_heights():
    every = np.arange(256, dtype=np.uint16)[None]
    signs = characters(every, ascii_only=True)
    assert all(sign.isascii() for sign in signs[0])
    assert ((signs == " ") == (every == 0)).all()
    top, bottom = np.zeros((4, 2), bool), np.zeros((4, 2), bool)
    top[0], bottom[3] = True, True
    assert characters(cells(top), True)[0, 0] == "'"
    assert characters(cells(bottom), True)[0, 0] == "."
    assert characters(cells(~np.zeros((4, 2), bool)), True)[0, 0] == "|"
