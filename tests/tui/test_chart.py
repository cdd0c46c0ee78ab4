from dataclasses import replace

import numpy as np
import pytest
from textual import events
from tui_host import alone, colours_at, painted, picture

from cmbench.tui.widgets.chart import Chart
from cmbench.tui.widgets.chart_window import Smoothing, XAxis
from cmbench.views.axes import Scale
from cmbench.views.lines import Band, Line, Mark
from cmbench.views.smoothing import SMOOTHINGS

RNG = np.random.default_rng(0)
WIDTH, HEIGHT = 60, 16
LEFT = 9  # the frame, a label, the axis
ROWS = HEIGHT - 3


def plot(chart):
    """The rows of cells in which lines are."""
    return [row[LEFT:-1] for row in picture(chart)[1:-2]]


def labels(chart):
    return [row[1:8].strip() for row in picture(chart)[1:-2] if row[1:8].strip()]


def below(chart):
    return picture(chart)[-2][LEFT:-1]


def steps_of(n):
    return np.arange(n, dtype=float)


def a_chart(**options):
    return lambda: Chart("loss", **{"smoothing": Smoothing(), **options})


def try_keys(chart):
    for factor in (0.5, 2.0):
        for _ in range(6):
            chart.action_zoom(factor)
            chart.action_zoom_y(factor)
    for share in (-0.25, 0.25, -9.0, 9.0):
        chart.action_zoom(0.5)
        chart.action_pan(share)
    for step in (-10_000, 1, 10_000, -1):
        chart.action_cursor(step)
        chart.action_zoom(0.5)
    for _ in range(4):
        chart.action_scale()
        chart.action_smooth()
    chart.action_reset()


STRANGE = {
    "nothing": ([], []),
    "one": ([5.0], [2.0]),
    "zero": ([0.0], [0.0]),
    "constant": (steps_of(300), np.full(300, 3.0)),
    "all nan": (steps_of(30), np.full(30, np.nan)),
    "infinite": (steps_of(4), [np.inf, -np.inf, 1.0, 2.0]),
    "huge": (steps_of(6), [1e300, -1e300, 1.7e308, -1.7e308, 0.0, 1.0]),
    "tiny": (steps_of(3), [5e-324, 1e-300, 0.0]),
    "negative": (steps_of(50), -RNG.random(50)),
    "equal x": ([1.0, 1.0, 1.0, 2.0], [1.0, 5.0, 2.0, 3.0]),
    "before zero": ([-3.0, -1.0], [1.0, 2.0]),
}


@pytest.mark.parametrize("kind", ["linear", "log", "symlog"])
def test_strange_data_neither_raise_nor_warn_at_any_key(kind):
    async def steps(chart, pilot):
        for x, y in STRANGE.values():
            chart.window.begin("loss", Scale(kind))
            chart.show([Line.of("a", x, y)], [Mark(1.0, "c"), Mark(np.nan, "c"), Mark(1e308, "c")])
            try_keys(chart)
            chart.show([Line.of("a", x, y), Line.of("b", steps_of(3), steps_of(3), 1, "dashed")])

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


@pytest.mark.parametrize("ascii", [False, True])
def test_any_size_while_running(ascii):
    async def steps(chart, pilot):
        lines = [Line.of("é", steps_of(200), RNG.normal(size=200)), Line.of("b", steps_of(5), [1, 2, np.nan, 4, 5], 1)]
        lines.append(Line.of("c", steps_of(9), np.zeros(9), 2, "dotted"))
        for scale in (Scale(), Scale("log")):
            chart.window.begin("größe", scale)
            chart.set_cursor(100.0)
            for size in ((1, 1), (2, 2), (4, 2), (10, 3), (12, 3), (13, 4), (20, 5), (160, 45), (WIDTH, HEIGHT)):
                await pilot.resize_terminal(*size)
                chart.show(lines, [Mark(30.0, "w")])
                await pilot.pause()
                rows = picture(chart)
                assert [len(row) for row in rows] == [size[0]] * size[1]
                assert not ascii or "".join(rows).isascii()

    alone(a_chart(), steps, ascii=ascii)


def test_points_lie_where_the_axes_say():
    async def steps(chart, pilot):
        chart.window.x = XAxis(fixed=(0.0, 10.0))
        chart.show([Line.of("a", [0, 10], [0, 100])])
        rows = plot(chart)
        assert rows[0][-1] == rows[-1][0] == "•"
        marked = {row[1:8].strip(): y for y, row in enumerate(picture(chart)[1:-2]) if row[1:8].strip()}
        assert len(marked) >= 3
        low, high = chart.window.y_ends()
        for label, y in marked.items():
            assert y == pytest.approx((high - float(label)) / (high - low) * (ROWS - 0.25) - 0.4, abs=0.51)
        for label in ("0", "10"):
            assert label in below(chart).split()

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


def test_axes_rest_while_rows_come():
    async def steps(chart, pilot):
        values, axes, whole = 5 + RNG.normal(size=2000), set(), 0
        for n in range(1000, 2000, 50):
            chart.show([Line.of("a", steps_of(n), values[:n])])
            axes.add((tuple(labels(chart)), below(chart)))
            with painted(chart) as regions:
                chart.show([Line.of("a", steps_of(n), values[:n])])
            assert regions == []
            with painted(chart) as regions:
                chart.show([Line.of("a", steps_of(n + 1), values[: n + 1])])
            whole += None in regions
            assert sum(r.area for r in regions if r) < WIDTH * HEIGHT / 4 or len(axes) > 1
        assert len(axes) <= 4
        assert whole == 0

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


def test_a_spike_is_seen_through_every_smoothing():
    async def steps(chart, pilot):
        values = np.zeros(5000)
        values[3333] = 100.0
        for _ in SMOOTHINGS:
            chart.show([Line.of("a", steps_of(5000), values)])
            assert any(ord(c) > 0x2800 for c in plot(chart)[0] + plot(chart)[1])
            chart.action_smooth()

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


def test_what_is_not_finite_breaks_the_line_and_is_marked():
    async def steps(chart, pilot):
        y = np.ones(400)
        y[100:300] = np.nan
        chart.window.x = XAxis(fixed=(0.0, 399.0))
        chart.show([Line.of("a", steps_of(400), y)])
        rows = plot(chart)
        share = [i / (len(rows[0]) - 1) for i, c in enumerate(rows[0]) if c == "✕"]
        assert share[0] == pytest.approx(0.25, abs=0.02)
        assert share[-1] == pytest.approx(0.75, abs=0.02)
        middle = len(rows[0]) // 2
        assert all(row[middle] == " " for row in rows[1:])
        assert any(row[2] != " " for row in rows)
        assert any(row[-2] != " " for row in rows)

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize("size", [(60, 16), (24, 8), (160, 16)])
def test_marks_leave_the_labels_of_the_axis_readable(size, ascii):
    """Each mark is seen, in its column; a label has at least a space at each side of it."""

    async def steps(chart, pilot):
        chart.show([Line.of("a", steps_of(1001), np.ones(1001))])
        bare, axis = below(chart), picture(chart)[-2]
        n = len(bare)
        for at in range(0, n, 3):
            mark = Mark(at / (n - 1) * chart.window.x_ends()[1], "w")
            chart.show([Line.of("a", steps_of(1001), np.ones(1001))], [mark])
            assert f" {below(chart)} ".replace(" w ", "   ").strip().split() == bare.split()
            rows = [row[LEFT:-1] for row in picture(chart)[-3:-1]]
            assert [row[at] for row in rows].count("w") == 1, (at, rows)
            assert (rows[1][at] == "w") == (not bare[max(0, at - 1) : at + 2].strip())
        assert picture(chart)[-2][: LEFT - 1] == axis[: LEFT - 1]

    alone(a_chart(), steps, size=size, ascii=ascii)


def test_marks_of_what_was_expected_are_as_quiet_as_the_axis():
    async def steps(chart, pilot):
        marks = [Mark(10.0, "c", is_quiet=True), Mark(30.0, "!"), Mark(50.0, "x", is_bad=True)]
        chart.show([Line.of("a", steps_of(61), np.ones(61))], marks)
        colours = {}
        for y in (HEIGHT - 3, HEIGHT - 2):
            for sign, (colour, _) in zip(picture(chart)[y], colours_at(chart, y), strict=True):
                colours[sign] = colour
        assert colours["c"] == colours["└"]
        assert len({colours[sign] for sign in "c!x"}) == 3

    alone(a_chart(), steps)


def test_a_quiet_mark_leaves_the_curve_above_a_label_alone():
    async def steps(chart, pilot):
        line = Line.of("a", steps_of(61), np.where(steps_of(61) < 20, 1.0, 0.0))
        chart.show([line])
        before = picture(chart)
        chart.show([line], [Mark(50.0, "c", is_quiet=True)])
        assert picture(chart) == before
        chart.show([line], [Mark(50.0, "!")])
        assert picture(chart) != before

    alone(a_chart(), steps)


def test_early_marks_of_many_are_seen_when_zoomed_to():
    async def steps(chart, pilot):
        y = np.ones(1000)
        y[10], y[400:] = np.nan, np.nan
        chart.show([Line.of("a", steps_of(1000), y)])
        chart.window.x_zoom = (0.0, 20.0)
        chart.repaint()
        assert plot(chart)[0].count("✕") == 1

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


def test_a_log_axis_says_where_values_have_no_place():
    async def steps(chart, pilot):
        y = np.full(300, 5.0)
        y[100:200] = [0.0, -1.0] * 50
        chart.window.x = XAxis(fixed=(0.0, 299.0))
        chart.show([Line.of("a", steps_of(300), y)])
        rows = plot(chart)
        middle = len(rows[0]) // 2
        assert rows[-1][middle] == "▾"
        assert all(row[middle] == " " for row in rows[:-1])
        low, high, ones = np.array([0.0, 1.0]), np.array([10.0, 10.0]), np.ones(2)
        bucket = Line("b", np.array([0.0, 200.0]), low, high, ones, ones, np.zeros(2, bool))
        chart.show([bucket])
        assert any(row[0] in "•o" for row in plot(chart)[:-1])  # the part of a bucket that has a place is shown
        chart.action_scale()
        assert "▾" not in "".join(plot(chart))

    alone(a_chart(scale=Scale("log"), smoothing=None), steps, size=(WIDTH, HEIGHT))


@pytest.fixture
def zoomed():
    """What lets `steps` use a chart of 0 to 100 that shows 25 to 75."""

    def use(steps):
        async def begin(chart, pilot):
            chart.window.x = XAxis(fixed=(0.0, 100.0))
            chart.show([Line.of("a", steps_of(101), steps_of(101))])
            chart.focus()
            await pilot.press("plus")
            assert chart.window.x_ends() == (25.0, 75.0)
            await steps(chart, pilot)

        alone(a_chart(), begin, size=(WIDTH, HEIGHT))

    return use


def test_the_keys_zoom_and_pan(zoomed):
    async def steps(chart, pilot):
        for key, ends in (
            ("greater_than_sign", (37.5, 87.5)),
            ("greater_than_sign", (50.0, 100.0)),
            ("greater_than_sign", (50.0, 100.0)),
            ("less_than_sign", (37.5, 87.5)),
            ("plus", (50.0, 75.0)),
            ("minus", (37.5, 87.5)),
            ("minus", (0.0, 100.0)),
            ("minus", (0.0, 100.0)),
        ):
            await pilot.press(key)
            assert chart.window.x_ends() == ends, key
        before = chart.window.y_ends()
        await pilot.press("up", "down")
        assert chart.window.y_zoom[1] - chart.window.y_zoom[0] == pytest.approx(before[1] - before[0])
        await pilot.press("0")
        assert chart.window.y_zoom is None

    zoomed(steps)


def test_dragging_and_the_wheel_with_shift_pan(zoomed):
    column = 50 / (WIDTH - LEFT - 2)

    async def mouse(chart, pilot, kind, x, **options):
        await pilot._post_mouse_events([kind], chart, (x, 5), **options)
        await pilot.pause()

    async def steps(chart, pilot):
        await mouse(chart, pilot, events.MouseDown, 30, button=1)
        await mouse(chart, pilot, events.MouseMove, 25, button=1)
        assert chart.window.x_ends()[0] == pytest.approx(25 + 5 * column)
        await mouse(chart, pilot, events.MouseMove, 28, button=1)
        await mouse(chart, pilot, events.MouseUp, 28, button=1)
        await mouse(chart, pilot, events.Click, 28, button=1)
        assert chart.window.x_ends()[0] == pytest.approx(25 + 2 * column)
        assert chart.cursor is None
        await mouse(chart, pilot, events.MouseMove, 40)
        assert chart.window.x_ends()[0] == pytest.approx(25 + 2 * column)
        await mouse(chart, pilot, events.MouseScrollDown, 28, shift=True)
        assert chart.window.x_ends()[0] == pytest.approx(37.5 + 2 * column)
        await mouse(chart, pilot, events.MouseScrollUp, 28, shift=True)
        await mouse(chart, pilot, events.MouseScrollLeft, 28)
        assert chart.window.x_ends()[0] == pytest.approx(12.5 + 2 * column)
        await mouse(chart, pilot, events.MouseScrollRight, 28)
        await mouse(chart, pilot, events.MouseScrollUp, 28)
        assert chart.window.x_ends()[1] - chart.window.x_ends()[0] == 25.0
        await mouse(chart, pilot, events.MouseScrollDown, 28)
        assert chart.window.x_ends()[1] - chart.window.x_ends()[0] == 50.0
        await pilot.click(chart, offset=(LEFT, 5))
        assert chart.cursor in chart.lines[0].x
        assert 0 <= chart.cursor - chart.window.x_ends()[0] < 1  # the first row in sight

    zoomed(steps)


def test_a_button_that_was_let_go_outside_the_terminal_holds_nothing(zoomed):
    async def steps(chart, pilot):
        for kind, x, button in ((events.MouseDown, 30, 1), (events.MouseMove, 20, 0), (events.MouseMove, 10, 1)):
            await pilot._post_mouse_events([kind], chart, (x, 5), button=button)
        await pilot.pause()
        assert chart.window.x_ends() == (25.0, 75.0)
        assert chart.app.mouse_captured is None

    zoomed(steps)


def test_the_cursor_begins_at_the_newest_row_and_stops_at_the_last_ones():
    async def steps(chart, pilot):
        chart.show([Line.of("a", steps_of(101), steps_of(101))])
        chart.action_cursor(0)
        assert chart.cursor == 100.0
        assert "100" in picture(chart)[-1]
        column = (WIDTH - LEFT - 1 - 1) * 100 / 150
        assert {i for row in plot(chart) for i, c in enumerate(row) if c == "┊"} == {round(column)}
        chart.action_cursor(-1000)
        assert chart.cursor == 0.0
        chart.action_cursor(1000)
        assert chart.cursor == 100.0
        chart.action_reset()
        assert chart.cursor is None
        assert "┊" not in "".join(plot(chart))

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


def test_the_last_line_lies_on_top_and_every_shadow_below_all():
    async def steps(chart, pilot):
        chart.action_smooth()  # none of the averages is the raw line
        flat = np.tile([1.0, 2.0], 300)
        chart.show([Line.of("a", steps_of(600), flat, 0), Line.of("b", steps_of(600), flat, 3)])
        seen = [c for y in range(HEIGHT) for c, _ in colours_at(chart, y)]
        top, under = (chart.style(f"line-{i}").color for i in (3, 0))
        assert top in seen
        assert under not in seen

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


def test_colours_follow_the_theme():
    async def steps(chart, pilot):
        chart.show([Line.of("a", steps_of(50), steps_of(50), 2)])
        seen = set()
        for theme in ("textual-dark", "textual-light", "ansi-dark", "nord"):
            chart.app.theme = theme
            await pilot.pause()
            colour = chart.style("line-2").color
            assert colour in {c for y in range(HEIGHT) for c, _ in colours_at(chart, y)}
            seen.add(colour)
        assert len(seen) == 3

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


def test_vertical_zoom_ends_before_it_breaks():
    async def steps(chart, pilot):
        chart.show([Line.of("a", steps_of(50), 2.0**20 + steps_of(50)[::-1] / 50)])
        for factor in (0.5, 2.0):
            for _ in range(60 if factor < 1 else 400):
                chart.action_zoom_y(factor)
            low, high = chart.window.y_ends()
            assert (high - low < 1e-3) == (factor < 1)
            assert high > low
        chart.action_reset()
        assert labels(chart)

    alone(a_chart(), steps, size=(24, 8))


def read_at(chart, x):
    """What the lower edge says with the cursor at a place."""
    chart.set_cursor(x)
    return picture(chart)[-1].strip("╰╯─ ")


def test_the_cursor_names_the_row_of_each_curve():
    def name(x):
        return f"step {x:,.0f}"

    async def steps(chart, pilot):
        chart.window.x = XAxis(name=name, fixed=(0.0, 4000.0))
        rows = Line.of("A", np.arange(50.0, 2250.0, 50.0), np.linspace(9.0, 1.0, 44))
        evaluated = Line.of("B", [1000.0, 2000.0], [0.5, 0.05])
        chart.show([evaluated])
        assert read_at(chart, 2204.0) == "step 2,000  0.05"
        assert read_at(chart, 3999.0) == "step 2,000  0.05"
        chart.window.smoothing.of_all = 0.0
        chart.show([rows, evaluated])
        assert read_at(chart, 2204.0) == "A step 2,200 1  B step 2,000 0.05"
        assert read_at(chart, 1001.0).startswith("step 1,000  A ")
        assert read_at(chart, 1001.0).endswith("  B 0.5")
        assert len({i for row in plot(chart) for i, c in enumerate(row) if c == "┊"}) == 1
        read_at(chart, 2204.0)
        columns = sorted({i for row in plot(chart) for i, c in enumerate(row) if c == "┊"})
        per_column = (WIDTH - LEFT - 2) / 4000
        assert columns == [round(2000 * per_column), round(2200 * per_column)]

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


@pytest.mark.parametrize("ascii", [False, True])
def test_a_band_is_shaded_behind_the_lines_over_the_whole_width(ascii):
    """From 0 to 10 on thirteen rows, which the axis shares evenly: the band of 2 to 4 takes about 2.4 of them."""

    async def steps(chart, pilot):
        chart.bands = [Band(2.0, 4.0)]
        chart.show([Line.of("a", steps_of(2), [0.0, 10.0])])
        await pilot.pause()
        shade = "=" if ascii else "░"
        rows = plot(chart)
        shaded = [y for y, row in enumerate(rows) if shade in row]
        assert 2 <= len(shaded) <= 4
        assert shaded == list(range(shaded[0], shaded[-1] + 1))
        middle = (shaded[0] + shaded[-1]) / 2
        assert 0.6 < middle / (ROWS - 1) < 0.8  # three of ten from below
        for y in shaded:
            assert all(cell == shade for cell in rows[y] if cell in " " + shade)  # the line alone is above it

    alone(a_chart(), steps, size=(WIDTH, HEIGHT), ascii=ascii)


BANDS = [(2.0, 2.0), (-1.0, 3.0), (0.0, 0.0), (-2.0, -1.0), (np.nan, 1.0), (1.0, 1e308), (50.0, 60.0)]


def test_bands_of_any_place_are_drawn_or_left_out():
    """On each axis over any data; at keys, one of them over each."""

    async def steps(chart, pilot):
        for kind in ("linear", "log", "symlog"):
            for i, (x, y) in enumerate(STRANGE.values()):
                chart.window.begin("sw", Scale(kind))
                for band in BANDS:
                    chart.bands = [Band(*band)]
                    chart.show([Line.of("a", x, y)])
                chart.bands = [Band(*BANDS[i % len(BANDS)])]
                try_keys(chart)
        await pilot.pause()

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


def test_every_key_and_click_puts_the_cursor_on_a_row():
    async def steps(chart, pilot):
        x = np.sort(RNG.choice(np.arange(1, 5000), 40, replace=False)).astype(float)
        chart.show([Line.of("a", x, np.sqrt(x)), Line.of("b", x[:20] + 0.5, x[:20], 1)])
        rows = {*x, *(x[:20] + 0.5)}
        at = []
        for columns in [0, *[-1] * 60, *[1] * 70, 10, -10, -500, 500]:
            chart.action_cursor(columns)
            at.append(chart.cursor)
        assert set(at) <= rows
        assert at[0] == x[-1]
        back, forth = at[: at.index(x[0]) + 1], at[61:131]
        assert back == sorted(set(back), reverse=True)  # no press is lost, until the first row is reached
        assert forth == sorted(forth)
        assert at[-2:] == [x[0], x[-1]]
        for position in (-5.0, 700.3, 1e9):
            assert chart.window.row_nearest(position) == min(rows, key=lambda row: (abs(row - position), row))

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


def test_rows_taken_together_are_named_so():
    async def steps(chart, pilot):
        x, y, bad = np.array([8.0, 16.0, 19.0]), np.array([4.0, 2.0, np.nan]), np.array([False, True, True])
        chart.window.x = XAxis(name=lambda x: f"step {x:g}")
        chart.show([Line("a", x, y - 1, y + 1, y, np.array([8.0, 7.0, 0.0]), bad)])
        assert read_at(chart, 9.0) == "to step 8  4 mean of 8"
        assert read_at(chart, 15.0) == "to step 16  2 mean of 7, not all finite"
        assert read_at(chart, 19.0) == "step 19  not finite"

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


def test_an_average_is_named_and_can_be_one_chart_s_own():
    async def steps(chart, pilot):
        chart.show([Line.of("a", steps_of(1000), steps_of(1000))])
        assert "loss gauss 2%, 20 rows ─" in picture(chart)[0]
        chart.action_smooth_alone()
        assert "loss gauss 8%, 80 rows here" in picture(chart)[0]
        chart.window.smoothing.of_all = 0.005
        chart.repaint()
        assert "gauss 8%" in picture(chart)[0]
        chart.action_smooth()
        assert "loss gauss 2%, 20 rows ─" in picture(chart)[0]
        chart.show([Line.of("a", steps_of(1000), steps_of(1000)), Line.of("b", steps_of(500), steps_of(500), 1)])
        assert "gauss 2%, 10/20 rows" in picture(chart)[0]
        chart.show([replace(Line.of("N", steps_of(1000), steps_of(1000) // 100), smooth=False)])
        assert "gauss" not in picture(chart)[0]
        assert chart.window.average(chart.lines[0]) is None

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


def test_the_axis_begins_where_it_should():
    async def steps(chart, pilot):
        chart.window.x = XAxis(start=1.7e9)
        chart.show([Line.of("a", 1.7e9 + steps_of(101), steps_of(101))])
        assert chart.window.x_ends() == (1.7e9, 1.7e9 + 150)
        chart.action_cursor(-5)
        assert chart.cursor - 1.7e9 in steps_of(101)

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


def test_a_band_is_in_sight_though_no_value_is_near_it():
    async def steps(chart, pilot):
        chart.bands = [Band(0.04, 0.05)]
        chart.show([Line.of("a", steps_of(3), [9.0, 8.0, 7.0])])
        await pilot.pause()
        assert [y for y, row in enumerate(plot(chart)) if "░" in row] == [ROWS - 1]

    alone(a_chart(), steps, size=(WIDTH, HEIGHT))


@pytest.mark.parametrize("ascii", [False, True])
def test_the_gap_between_two_lines_is_shaded_between_them_alone(ascii):
    x = np.arange(100.0)
    lines = [Line.of("1", x, 10 - 8 * x / 99), Line.of("2", x, 2 + 0 * x), Line.of("4", x, 1 + 0 * x)]

    async def steps(chart, pilot):
        sign = ":" if ascii else "·"
        chart.show(lines)
        assert sign not in "".join(picture(chart)[1:-2])
        chart.shades_gap = True
        chart.show(lines)
        rows = [row[9:-1] for row in picture(chart)[1:-2]]
        depths = [sum(row[i] == sign for row in rows) for i in range(len(rows[0]))]
        assert depths[2] > len(rows) / 2
        assert depths[-2] == 0
        middle = len(depths) // 2
        assert depths[2] > depths[middle] > 0
        lowest = max(y for y, row in enumerate(rows) if sign in row)
        assert all(sign not in row for row in rows[lowest + 1 :])
        assert lowest < len(rows) - 2

    alone(lambda: Chart("quality"), steps, ascii=ascii, size=(60, 24))


def test_without_colours_lines_are_told_apart_by_their_dashes_and_the_focus_by_a_sign():
    """Each line is drawn where the other is not: what a row of cells looks like tells which line it is of."""
    x, first = steps_of(400), slice(0, 200)
    lines = [Line.of("one", x[first], np.full(200, 1.0), 0), Line.of("two", x[200:], np.full(200, 1.0), 1)]

    async def check(chart, pilot):
        chart.window.smoothing.of_all = 0.0
        chart.focus()
        await pilot.pause()
        chart.show(lines)
        assert picture(chart)[0].startswith("+- > loss  === one  --- two -")
        chart.screen.set_focus(None)
        await pilot.pause()
        chart.show(lines)
        assert picture(chart)[0].startswith("+- loss  === one  --- two -")
        row = max(plot(chart), key=lambda row: len(row) - row.count(" "))
        drawn = row.rstrip()
        middle = len(drawn) // 2
        assert " " not in drawn[: middle - 4]
        assert " " in drawn[middle + 4 :]
        chart.window.smoothing.of_all = SMOOTHINGS[-1]
        chart.show([Line.of("one", x, np.cos(40 * x) + 3)])
        rows = [row for row in plot(chart) if row.strip()]
        whole = [row for row in rows if " " not in row[5:30]]
        assert whole  # the average; the raw values around it are dotted
        assert all(" " in row[5:30] for row in rows if row not in whole)
        assert len(rows) > 2 * len(whole)

    alone(a_chart(), check, size=(WIDTH, HEIGHT), ascii=True)
