import re
from itertools import chain, pairwise

import numpy as np
import pytest
from tui_host import alone, colours_at, painted, picture

from cmbench.tui.colours import LEVELS, shade_characters, shades
from cmbench.tui.widgets.waterfall import Waterfall

RNG = np.random.default_rng(0)
LEFT = 9


def rows_of(n, bins=16, value=lambda i: 10.0 ** RNG.uniform(-2, 2)):
    return [(100 * i, np.array([value(i) for _ in range(bins)], np.float32)) for i in range(n)]


def shown_levels(waterfall, y, diverging=False):
    grounds = [style.bgcolor for style in shades(waterfall.app.theme, diverging)]
    return [grounds.index(ground) if ground in grounds else -1 for _, ground in colours_at(waterfall, y + 1)[LEFT:-1]]


def compare_with(waterfall, row):
    waterfall.reference = row
    waterfall.repaint()


@pytest.mark.parametrize("is_still", [False, True])
@pytest.mark.parametrize("height", [1, 2, 13, 40])
def test_the_whole_run_is_in_sight_with_its_newest_row_at_every_length(height, is_still):
    waterfall, moves = Waterfall("w"), 0
    for n in [*range(1, 60), 90, 161, 300, 150, 40, 3, 1]:
        waterfall.show(rows_of(n, bins=1), is_still)
        before = waterfall._room
        lines, cells = waterfall._lines(height)
        moves += waterfall._room != before
        steps = [step for step, _ in lines]
        assert len(cells) <= height
        assert len(cells) == height if is_still else len(cells) >= 3 * height // 4
        assert cells == sorted(cells)
        assert set(cells) == set(range(len(lines)))
        assert steps[-1] == 100 * (n - 1)
        assert steps == sorted(set(steps))
        assert len(lines) == n or len(lines) == len(cells)
    assert is_still or moves < 25


def test_a_still_run_takes_the_whole_height_and_one_that_goes_on_leaves_a_little():
    async def steps(waterfall, pilot):
        for still, filled in ((False, 9), (True, 13), (False, 9)):
            waterfall.show(rows_of(9), still)
            levels = [shown_levels(waterfall, y)[0] for y in range(13)]
            assert levels.count(-1) <= (0 if still else 3)
            assert len(levels) - levels.count(-1) >= filled

    alone(lambda: Waterfall("w"), steps)


@pytest.mark.parametrize("bins", [8, 61, 200])
def test_a_label_stands_at_a_column_of_the_bin_that_its_value_lies_in(bins):
    edges = np.arctan(np.geomspace(0.002, 80, bins + 1) / 0.5).tolist()

    async def steps(waterfall, pilot):
        waterfall.edges = edges
        waterfall.show([(0, np.ones(bins, np.float32))])
        axis = picture(waterfall)[-2]
        found = [(m.start() - LEFT, float(m.group())) for m in re.finditer("[0-9.]+", axis)]
        columns = len(picture(waterfall)[0]) - LEFT - 1
        assert len(found) > 4
        for column, value in found:
            own = np.searchsorted(edges, value, side="right") - 1
            assert column * bins // columns <= own
            assert (column + 1) * bins / columns >= own

    alone(lambda: Waterfall("w"), steps, size=(100, 16))


def test_a_higher_value_is_a_higher_level():
    async def steps(waterfall, pilot):
        waterfall.show([(0, 10.0 ** np.linspace(-3, 3, 50, dtype=np.float32))])
        levels = shown_levels(waterfall, 0)
        assert (np.diff(levels) >= 0).all()
        assert levels[0] <= 3
        assert levels[-1] >= LEVELS - 4

    alone(lambda: Waterfall("w"), steps)


@pytest.mark.parametrize("width", [20, 24, 60, 140])
def test_one_high_bin_is_seen_at_any_width_and_the_cursor_points_at_it(width):
    async def steps(waterfall, pilot):
        for spike in range(0, 64, 9):
            bins = np.ones(64, np.float32)
            bins[spike] = 1000.0
            waterfall.show([(0, bins)])
            waterfall.set_cursor((0, spike))
            levels = shown_levels(waterfall, 0)
            assert max(levels) >= LEVELS - 4
            assert picture(waterfall)[-2][LEFT:-1].index("▴") in np.flatnonzero(np.array(levels) == max(levels))

    alone(lambda: Waterfall("w"), steps, size=(width, 8))


@pytest.mark.parametrize("mode", ["value", "ratio", "row"])
def test_any_numbers_in_any_size_and_mode(mode):
    strange = [[0, 0, 0], [np.nan] * 3, [np.inf, 1, -np.inf], [1e38, 1e-38, 0], [-1, -2, -3], [7, 7, 7], [1], []]

    async def steps(waterfall, pilot):
        for size in ((1, 1), (4, 2), (10, 3), (13, 4), (14, 5), (60, 16)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            for bins in strange:
                rows = [(i, np.array(bins, np.float32)) for i in range(9)]
                waterfall.show(rows)
                for reference in (None, rows[0]):
                    compare_with(waterfall, reference)
                    waterfall.action_mode(mode)
                    waterfall.action_move(1, -1)
                    waterfall.action_move(-5, 50)
                    assert [len(row) for row in picture(waterfall)] == [size[0]] * size[1]
                compare_with(waterfall, None)
                waterfall.action_reset()

    alone(lambda: Waterfall("w"), steps)


def test_levels_of_what_is_not_finite():
    async def steps(waterfall, pilot):
        waterfall.show([(0, np.array([np.nan, 0.0, 1.0, 10.0, np.inf], np.float32))])
        levels = shown_levels(waterfall, 0)
        share = len(levels) // 5
        assert levels[: 2 * share] == [-1] * (2 * share)
        assert levels[-1] == LEVELS - 1

    alone(lambda: Waterfall("w"), steps)


def test_ratios_are_white_at_one_and_mirror_each_other():
    async def steps(waterfall, pilot):
        compare_with(waterfall, (0, np.array([3.0, 3.0, 3.0], np.float32)))
        waterfall.action_mode("ratio")
        waterfall.show([(0, np.array([0.3, 3.0, 30.0], np.float32))])
        levels = shown_levels(waterfall, 0, diverging=True)
        low, middle, high = levels[0], levels[len(levels) // 2], levels[-1]
        assert middle in (LEVELS // 2, LEVELS // 2 - 1)
        assert abs(low + high - (LEVELS - 1)) <= 1
        assert "/ step 0" in picture(waterfall)[0]

    alone(lambda: Waterfall("w"), steps)


def test_without_a_reference_values_are_shown_and_said_to_be():
    async def steps(waterfall, pilot):
        waterfall.show(rows_of(5))
        values = [shown_levels(waterfall, y) for y in range(5)]
        waterfall.action_mode("ratio")
        assert [shown_levels(waterfall, y) for y in range(5)] == values
        assert "no reference yet" in picture(waterfall)[0]
        compare_with(waterfall, waterfall.rows[0])
        assert "no reference" not in picture(waterfall)[0]
        assert set(shown_levels(waterfall, 0, diverging=True)) <= {LEVELS // 2, LEVELS // 2 - 1}
        assert waterfall._limits[0] == -waterfall._limits[1]

    alone(lambda: Waterfall("w"), steps)


def test_row_mode_ends_at_each_rows_largest():
    async def steps(waterfall, pilot):
        waterfall.action_mode("row")
        waterfall.show([(i, 10.0**i * np.array([0.01, 0.1, 1.0], np.float32)) for i in range(3)])
        rows = [shown_levels(waterfall, y) for y in range(3)]
        assert np.abs(np.diff(rows, axis=0)).max() <= 1  # of rounding
        assert rows[0][-1] >= LEVELS - 3

    alone(lambda: Waterfall("w"), steps)


def test_limits_rest_while_rows_come_and_only_the_new_is_painted():
    async def steps(waterfall, pilot):
        rows, limits = rows_of(13, bins=64), set()
        for n in range(8, 14):
            waterfall.show(rows[:n])
            limits.add(waterfall._limits)
            with painted(waterfall) as regions:
                waterfall.show(rows[:n])
            assert regions == []
        assert len(limits) <= 2
        waterfall.show(rows[:12])
        with painted(waterfall) as regions:
            waterfall.show(rows)
        assert {r.y for r in regions} == {13}

    alone(lambda: Waterfall("w"), steps)


@pytest.mark.parametrize(("ascii", "theme"), [(False, "ansi-dark"), (True, "ansi-light")])
def test_characters_where_there_are_no_colours(ascii, theme):
    async def steps(waterfall, pilot):
        waterfall.show([(0, 10.0 ** np.linspace(-3, 3, 50, dtype=np.float32))])
        signs = shade_characters(ascii)
        heights = [signs.index(c) for c in picture(waterfall)[1][LEFT:-1]]
        assert heights == sorted(heights)
        assert set(heights) == set(range(len(signs)))
        assert not ascii or "".join(picture(waterfall)).isascii()

    alone(lambda: Waterfall("w"), steps, ascii=ascii, theme=theme)


def test_no_color_and_a_theme_while_running(monkeypatch):
    async def steps(waterfall, pilot):
        waterfall.show(rows_of(5))
        assert set(shown_levels(waterfall, 0)) != {-1}
        waterfall.app.theme = "ansi-dark"
        await pilot.pause()
        assert set("".join(picture(waterfall)[1][LEFT:-1])) <= set(shade_characters(False))
        waterfall.app.theme = "colour-blind"
        await pilot.pause()
        assert set(shown_levels(waterfall, 0)) != {-1}

    alone(lambda: Waterfall("w"), steps)
    monkeypatch.setenv("NO_COLOR", "1")

    async def colourless(waterfall, pilot):
        waterfall.show([(0, 10.0 ** np.linspace(-3, 3, 50, dtype=np.float32))])
        assert "█" in picture(waterfall)[1]

    alone(lambda: Waterfall("w"), colourless)


def test_the_cursor_stays_in_sight_when_its_row_has_gone():
    async def steps(waterfall, pilot):
        waterfall.show(rows_of(13))
        waterfall.set_cursor((600, 3))
        for n in (13, 14, 60):
            waterfall.show(rows_of(n))
            pointed = [y for y, row in enumerate(picture(waterfall)) if "▸" in row]
            lines, cells = waterfall._lines(13)
            shown = [lines[line][0] for line in cells]
            assert len(pointed) == 1
            assert abs(shown[pointed[0] - 1] - 600) == min(abs(step - 600) for step in shown)
            assert f"step {shown[pointed[0] - 1]}" in picture(waterfall)[-1]

    alone(lambda: Waterfall("w"), steps)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 12])
def test_few_rows_share_the_height(n):
    async def steps(waterfall, pilot):
        waterfall.show([(100 * (i + 1), np.full(4, 10.0 ** (i % 3), np.float32)) for i in range(n)], is_still=True)
        levels = [shown_levels(waterfall, y)[0] for y in range(12)]
        assert -1 not in levels
        assert len(set(levels)) == min(n, 3)
        labels = [line[1:LEFT].strip("│ ") for line in picture(waterfall)[1:13]]
        assert all(label == f"{100 * (y * n // 12 + 1)}" for y, label in enumerate(labels) if label)
        assert labels[0] == "100"
        assert min(np.diff([y for y, label in enumerate(labels) if label]), default=4) >= 4

    alone(lambda: Waterfall("w"), steps, size=(60, 15))


def bar_of(waterfall):
    """Return the numbers of the colour bar in the lower edge, and the cells of shades at either side of the middle."""
    edge = picture(waterfall)[-1]
    found = [*re.finditer(r"(?<=[ ▏])([0-9.e+-]+[kMGT]?)(?= )", edge)]
    cells = [range(a.end() + 1, b.start() - 1) for a, b in pairwise(found[:3])]
    return [float(m.group()) for m in found[:3]], cells


def bar_levels(waterfall, diverging=False):
    grounds = [style.bgcolor for style in shades(waterfall.app.theme, diverging)]
    edge = colours_at(waterfall, len(picture(waterfall)) - 1)
    return [[grounds.index(edge[x][1]) for x in cells] for cells in bar_of(waterfall)[1]]


@pytest.mark.parametrize("mode", ["value", "ratio", "row"])
@pytest.mark.parametrize("width", [36, 44, 60, 140])
def test_the_colour_bar_gives_each_number_the_shade_that_the_rows_give_it(mode, width):
    async def steps(waterfall, pilot):
        rows = np.array([[0.03, 0.3, 3.0], [0.03, 30.0, 300.0]], np.float32)
        compare_with(waterfall, (0, np.full(3, 3.0, np.float32)))
        waterfall.action_mode(mode)
        waterfall.show([*enumerate(rows)], is_still=True)
        (low, middle, high), levels = bar_of(waterfall)[0], bar_levels(waterfall, diverging=mode == "ratio")
        assert middle == pytest.approx(np.sqrt(low * high), rel=0.02)
        assert levels[0][0] == 0
        assert levels[1][-1] >= LEVELS - LEVELS // (2 * len(levels[1]))
        assert levels[0][-1] < LEVELS // 2 <= levels[1][0]
        assert (np.diff([*chain(*levels)]) > 0).all()
        told = {"value": rows, "ratio": rows / 3, "row": rows / rows.max(axis=1, keepdims=True)}[mode]
        by_the_bar = np.log(told / low) / np.log(high / low) * LEVELS
        shown = np.array([shown_levels(waterfall, y, diverging=mode == "ratio") for y in (0, 4)])
        third = shown.shape[1] // 6
        assert np.abs(shown[:, [third, 3 * third, 5 * third]] + 0.5 - by_the_bar.clip(0, LEVELS)).max() <= 1
        assert mode != "ratio" or middle == 1

    alone(lambda: Waterfall("w"), steps, size=(width, 8))


def test_the_colour_bar_says_that_what_is_negative_has_no_colour_and_shows_the_rest():
    async def steps(waterfall, pilot):
        waterfall.is_signed = True
        waterfall.show([(0, np.array([-5.0, 0.01, 1.0], np.float32))])
        assert " <0: blank 0.0" in picture(waterfall)[-1]
        assert bar_of(waterfall)[0][2] < 2

    alone(lambda: Waterfall("w"), steps)


@pytest.mark.parametrize(("ascii", "theme"), [(False, "ansi-dark"), (True, "ansi-light")])
def test_the_colour_bar_without_colours_has_every_sign_of_the_rows(ascii, theme):
    async def steps(waterfall, pilot):
        waterfall.show([(0, 10.0 ** np.linspace(-3, 3, 50, dtype=np.float32))])
        edge = picture(waterfall)[-1]
        signs = "".join(edge[x] for cells in bar_of(waterfall)[1] for x in cells)
        assert "".join(sorted(set(signs), key=signs.index)) == shade_characters(ascii)
        assert len(signs) == 24

    alone(lambda: Waterfall("w"), steps, ascii=ascii, theme=theme)


@pytest.mark.parametrize(("size", "is_seen"), [((20, 8), False), ((26, 8), False), ((60, 3), False), ((60, 5), True)])
def test_the_colour_bar_gives_way_where_there_is_no_room_or_nothing_to_show(size, is_seen):
    async def steps(waterfall, pilot):
        waterfall.show([(0, np.array([np.nan, 0.0], np.float32))])
        assert bar_of(waterfall)[0] == []
        waterfall.show(rows_of(3))
        assert len(bar_of(waterfall)[0]) == 3 * is_seen
        if is_seen:  # what the cursor reads goes before it
            waterfall.set_cursor((0, 3))
            assert "step 0  t 3 to 4" in picture(waterfall)[-1]
            assert len(picture(waterfall)[-1]) == size[0]

    alone(lambda: Waterfall("w"), steps, size=size)
