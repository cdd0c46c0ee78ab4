"""Runs beside each other, at both sizes."""

import shutil

import numpy as np
import pytest
from bench import HARMLESS, HOSTILE, settle, titles, use
from live_runs import BINS, CREATED, RECIPE, add, live_run, metrics, profile, write_status
from snapshot_runs import add_picture
from test_dashboard import drawings
from textual.widgets import DataTable
from tui_host import SIZES, shown, until

from cmbench.rundir.files import to_json
from cmbench.tui.screens.compare import CompareScreen, _letter
from cmbench.tui.screens.runs import RunsScreen
from cmbench.tui.screens.snapshots import SnapshotsScreen
from cmbench.tui.widgets.chart import Chart

at_both_sizes = pytest.mark.parametrize("size", SIZES)


@pytest.fixture
def runs(tmp_path):
    made = [live_run(tmp_path, f"live-20260101-000000-000{letter}") for letter in "ab"]
    made[1].recipe.write_text(RECIPE.replace("2e-4", "1e-4"))
    add(made[1].metrics, metrics(50, loss=0.03125))
    write_status(made[1], step=50, best={})
    return made


def rows(app, selector: str) -> dict[str, list[str]]:
    table = app.screen.query_one(selector, DataTable)
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in map(table.get_row_at, range(table.row_count))}


@at_both_sizes
def test_what_is_seen_first(runs, size):
    async def steps(app, pilot):
        assert isinstance(app.screen, CompareScreen)
        assert titles(app) == ["loss", "tangent norm", "gradient norm", "weight"]
        assert "A ━━━━  live·000a" in shown(app)
        assert "B ━━ ━  live·000b" in shown(app)
        assert [(line.label, line.colour, line.x[-1]) for line in app.focused.lines] == [("A", 0, 40), ("B", 1, 50)]
        assert rows(app, "#keys") == {"optimizer.lr": ["0.0002", "0.0001"]}
        summary = rows(app, "#summary")
        assert summary["loss"] == ["0.1", "0.03125"]
        assert summary["sw_1step best"] == ["0.04 @20", "-"]
        assert bool(app.screen.query_one("#tables").region) == (size[0] == 160)

    use(runs, steps, size)


def test_columns_are_as_wide_as_what_stands_in_them_before_anything_is_measured(runs):
    """Lines that are painted before Textual has measured would stay as narrow as they were."""

    async def steps(app, pilot):
        app.screen._fill("#summary", ["metric", "A"], {"loss": ["0.125"], "much longer": ["1"]})
        columns = app.screen.query_one("#summary", DataTable).ordered_columns
        assert [(column.width, column.auto_width) for column in columns] == [(11, False), (5, False)]

    use(runs, steps)


@at_both_sizes
def test_tables_in_place_of_charts(runs, size):
    async def steps(app, pilot):
        for row in (1, 2):
            await pilot.press("d")
            await pilot.pause()
            assert app.screen.query_one("#tables").region
            assert app.focused.id == "keys"
            await pilot.press("tab")
            assert app.focused.id == "summary"
            await pilot.press("down")
            assert app.focused.cursor_row == row
            await pilot.press("d")
            await pilot.pause()
            assert isinstance(app.focused, Chart)
            assert app.focused.region

    use(runs, steps, size)


@at_both_sizes
def test_the_keys(runs, size):
    async def steps(app, pilot):
        for title in ("tangent norm", "gradient norm", "weight") if size[0] == 80 else ():
            await pilot.press("right_square_bracket")
            await pilot.pause()
            assert app.focused.title == title
        await pilot.press("right_square_bracket")
        await pilot.pause()
        assert titles(app)[:2] == ["sliced W2 1-step", "sliced W2 2-step"]
        await pilot.press("left_square_bracket")
        await pilot.pause()
        if size[0] == 80:
            assert app.focused.title == "weight"
        await pilot.press("x")
        assert app.said == ["x axis: images"]
        assert app.focused.lines[1].x[-1] == 1600
        await pilot.press("enter")
        await pilot.pause()
        assert app.focused.region.height > 0.7 * size[1]
        await pilot.press("left")
        await pilot.pause()
        assert len({chart.cursor for chart in app.screen.query(Chart)}) == 1
        await pilot.press("i")
        await until(pilot, lambda: isinstance(app.screen, SnapshotsScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        await pilot.press("b")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))

    use(runs, steps, size)


@at_both_sizes
def test_profiles_have_pages_after_the_metrics(runs, size):
    for run in runs:
        levels = np.geomspace(0.01, 100, BINS + 1).tolist()
        run.meta.write_bytes(to_json({"created": CREATED, "profile_noise_levels": levels}))
    add(runs[0].profiles, profile(45, loss=[2.0] * BINS))

    async def steps(app, pilot):
        first = titles(app)
        await pilot.press("left_square_bracket")
        await pilot.pause()
        assert titles(app)[0].endswith(" over sigma")
        while titles(app)[0] != "tangent norm over sigma":
            await pilot.press("left_square_bracket")
            await pilot.pause()
        assert titles(app)[1] == "loss over sigma"
        chart = list(app.screen.query(Chart))[1]
        assert [(line.label, line.mean[0]) for line in chart.lines] == [("A", 2.0), ("B", pytest.approx(1 / 40))]
        assert chart.window.x_ends() == pytest.approx((-2, 2))
        assert chart.note == "step 45 40"
        add(runs[1].profiles, profile(50, loss=[3.0] * BINS))
        await settle(app, pilot)
        assert chart.lines[1].mean[0] == 3.0
        await pilot.press("y", "s", "x", "plus", "left", "0")
        while titles(app) != first:
            await pilot.press("right_square_bracket")
            await pilot.pause()
        assert chart.window.x_ends()[0] == 0.0
        assert chart.window.x_ends()[1] > 40

    use(runs, steps, size)


def test_the_snapshots_of_the_first_two_runs_that_have_some(tmp_path, runs):
    made = [*runs, live_run(tmp_path, "live-20260101-000000-000c")]
    for run in made[1:]:
        add_picture(run, 20, 1)

    async def steps(app, pilot):
        await pilot.press("i")
        await until(pilot, lambda: "B live·000b | C live·000c" in shown(app))

    use(made, steps)


def test_nothing_is_drawn_where_nothing_changed(runs, monkeypatch):
    async def steps(app, pilot):
        drawn, before = drawings(monkeypatch), app.traffic.total
        for run, step in zip(runs, (40, 50), strict=True):
            write_status(run, step=step, **({"best": {}} if step == 50 else {}))
        for _ in range(3):
            await settle(app, pilot)
        assert (drawn, app.traffic.total) == ([], before)
        add(runs[0].metrics, metrics(41, loss=3.5))
        await settle(app, pilot)
        assert "chart-0" in drawn
        assert rows(app, "#summary")["loss"] == ["3.5", "0.03125"]

    use(runs, steps)


@at_both_sizes
def test_it_holds_anything_and_files_may_vanish(tmp_path, runs, size):
    name = HOSTILE.replace("/", "")
    odd = live_run(tmp_path, name)
    odd.recipe.write_text(RECIPE + f"[snapshot]\nema = {HOSTILE!r}\n".replace("'", '"'))
    add(odd.metrics, metrics(41, **{HOSTILE: 1.0}))

    async def steps(app, pilot):
        assert HARMLESS.replace("/", "") in shown(app)
        for damage in (
            lambda: odd.status.write_bytes(b'{"best": {"loss": 3, "sw_1step": {"value": "x", "step": []}}}'),
            lambda: odd.recipe.write_bytes(b"\xff"),
            lambda: shutil.rmtree(odd.path),
        ):
            damage()
            add(runs[0].metrics, metrics(41))
            await settle(app, pilot)
            await pilot.press("x", "d", "d", "right_square_bracket")
            await settle(app, pilot)
        assert rows(app, "#summary")[HARMLESS][2] == "1"
        assert all(line.isprintable() for line in shown(app).split("\n"))

    use([*runs, odd], steps, size)


@pytest.mark.parametrize("ascii", [False, True])
def test_runs_differ_without_colours_too(tmp_path, runs, ascii, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    made = [*runs, live_run(tmp_path, "live-20260101-000000-000c")]

    async def steps(app, pilot):
        assert [line.dash for line in app.focused.lines] == ["solid", "dashed", "dotted"]
        legend = [line[3:7] for line in shown(app).split("\n")[:3]]
        assert legend == (["----", "-- -", "- - "] if ascii else ["━━━━", "━━ ━", "━ ━ "])
        assert len({app.screen._look(i) for i in range(24)}) == 24

    use(made, steps, ascii=ascii)


def test_many_runs_have_letters_of_their_own():
    letters = [_letter(i) for i in range(100)]
    assert letters[:3] == ["A", "B", "C"]
    assert len(set(letters)) == 100


def test_runs_that_differ_in_their_seed_alone_are_a_band(tmp_path):
    runs = [live_run(tmp_path, f"live-20260101-000000-000{letter}") for letter in "abc"]
    runs[1].recipe.write_text(RECIPE.replace("seed = 0", "seed = 1"))
    runs[2].recipe.write_text(RECIPE.replace("2e-4", "1e-4"))

    async def steps(app, pilot):
        assert [line.label for line in app.focused.lines] == ["A", "B", "C"]
        await pilot.press("A")
        await pilot.pause()
        assert [(line.label, line.is_band) for line in app.focused.lines] == [("AB", True), ("C", False)]
        await pilot.press("Y")
        assert app.clipboard.splitlines()[0].startswith("AB step 40 ")
        await pilot.press("A")
        await pilot.pause()
        assert [line.label for line in app.focused.lines] == ["A", "B", "C"]

    use(runs, steps)
