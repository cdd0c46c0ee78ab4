"""The time profile: curves over t, the reference, the waterfall, at both sizes."""

import numpy as np
import pytest
from bench import settle, use
from live_runs import add, live_run, metrics, profile, write_status
from test_dashboard import drawings
from tui_host import SIZES, shown, until

from cmbench import quantities
from cmbench.quantities import Quantity
from cmbench.tui.screens.dashboard import DashboardScreen
from cmbench.tui.screens.profile import ProfileScreen
from cmbench.tui.widgets import chart_words
from cmbench.tui.widgets.chart import Chart
from cmbench.tui.widgets.stack import Stack
from cmbench.tui.widgets.waterfall import Waterfall

at_both_sizes = pytest.mark.parametrize("size", SIZES)


@pytest.fixture
def run(tmp_path):
    return live_run(tmp_path)


def is_drawn(app) -> bool:
    return isinstance(app.screen, ProfileScreen) and any(chart.note for chart in app.screen.query(Chart))


def show(run, steps, size=SIZES[0]) -> None:
    async def opened(app, pilot):
        await pilot.press("p")
        await until(pilot, lambda: is_drawn(app))
        await settle(app, pilot)
        await steps(app, pilot)

    use([run], opened, size)


def seen(app) -> list[str]:
    """Return the ids of the curves that are seen."""
    return [curve.id for curve in app.screen.query("#curves > *") if curve.region]


@at_both_sizes
def test_what_is_seen_first(run, size):
    async def steps(app, pilot):
        everything = ["curve-loss", "curve-tangent_norm", "anatomy"]  # of what the run measures
        assert seen(app) == (everything if size[0] == 160 else ["curve-tangent_norm"])
        assert app.focused.id == "curve-tangent_norm"
        assert app.screen.query_one(Waterfall).region
        text = shown(app)
        for words in ("live·000a", "tangent norm over t", "step 40", "tangent norm over t, steps down"):
            assert words in text
        assert "not measured in this run" not in text
        assert app.focused.window.x.fixed == (0.0, 8.0)
        (line,) = app.focused.lines
        assert line.mean.tolist() == pytest.approx([(i + 1) / 40 for i in range(8)])

    show(run, steps, size)


@at_both_sizes
def test_curves_one_after_the_other(run, size):
    async def steps(app, pilot):
        order = []
        for key in [*["right_square_bracket"] * 5, "left_square_bracket"]:
            await pilot.press(key)
            await pilot.pause()
            (chosen,) = app.screen.query("#curves > .chosen")
            assert chosen.region
            order.append(chosen.id.removeprefix("curve-"))
        assert order == ["anatomy", "loss", "tangent_norm", "anatomy", "loss", "anatomy"]

    show(run, steps, size)


@at_both_sizes
def test_the_reference(run, size):
    async def steps(app, pilot):
        waterfall, chart = app.screen.query_one(Waterfall), app.screen.query_one("#curve-tangent_norm", Chart)
        await pilot.press("m")
        add(run.profiles, profile(45))
        await settle(app, pilot)
        assert [line.label for line in chart.lines] == ["step 40", "now"]
        assert chart.note == "step 45, dashed: 40"
        modes = []
        for key in "231":
            await pilot.press(key)
            modes.append((waterfall.mode, waterfall.frame_title))
        title = "tangent norm over t, steps down"
        assert modes == [("ratio", f"{title} / step 40"), ("row", f"{title} / its row's largest"), ("value", title)]

    show(run, steps, size)


def test_the_reference_is_kept_when_the_screen_is_left(run):
    async def steps(app, pilot):
        await pilot.press("m", "p")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        add(run.profiles, profile(45))
        await settle(app, pilot)
        await pilot.press("p")
        await until(pilot, lambda: is_drawn(app))
        await settle(app, pilot)
        assert app.screen.query_one("#curve-tangent_norm", Chart).note == "step 45, dashed: 40"
        await pilot.press("2")
        assert "/ step 40" in shown(app)

    show(run, steps)


@at_both_sizes
def test_a_ratio_without_a_reference_is_to_the_first(run, size):
    async def steps(app, pilot):
        await pilot.press("2")
        assert app.screen.query_one(Waterfall).reference[0] == 5
        assert "/ step 5" in shown(app)

    show(run, steps, size)


@at_both_sizes
def test_the_waterfall_goes_through_the_quantities(run, size):
    async def steps(app, pilot):
        waterfall, order = app.screen.query_one(Waterfall), [app.screen.query_one(Waterfall).title.split(" over")[0]]
        for _ in range(5):
            await pilot.press("w")
            order.append(waterfall.title.split(" over")[0])
        parts = [f"tangent's {part} part" for part in ("stable", "spatial", "temporal")]
        assert order == ["tangent norm", "loss", *parts, "tangent norm"]

    show(run, steps, size)


def test_the_waterfall_offers_the_factors_of_the_temporal_part(run):
    factors = ["anatomy_dc_noise_dt", "anatomy_demb_dc", "anatomy_dF_demb"]

    async def steps(app, pilot):
        waterfall, order = app.screen.query_one(Waterfall), []
        for _ in range(8):
            await pilot.press("w")
            order.append(waterfall.title.split(" over")[0])
        assert order[4:] == [*map(quantities.title, factors), "tangent norm"]

    add(run.profiles, profile(45, **{key: [1.0 + i for i in range(8)] for key in factors}))
    show(run, steps)


def test_the_waterfall_offers_what_no_table_knows_under_its_name_after_the_others(run):
    async def steps(app, pilot):
        waterfall = app.screen.query_one(Waterfall)
        for _ in range(5):
            await pilot.press("w")
        assert waterfall.title == "curvature over t, steps down"
        assert waterfall.newest_step == 45

    add(run.profiles, profile(45, curvature=[1.0 + i for i in range(8)]))
    show(run, steps)


def test_titles_are_there_before_anything_is_read(run, monkeypatch):

    async def steps(app, pilot):
        monkeypatch.setattr(ProfileScreen, "poll", lambda self: None)
        await pilot.press("p")
        await until(pilot, lambda: is_drawn(app))
        await pilot.pause()
        text = shown(app)
        for words in ("tangent's parts", "no anatomy in this run", "weight over t", "true error over t"):
            assert words in text

    run.profiles.unlink()
    use([run], steps)


@at_both_sizes
def test_curves_and_waterfall_have_one_cursor(run, size):
    async def steps(app, pilot):
        waterfall = app.screen.query_one(Waterfall)
        await pilot.press(*["left"] * 30)
        await pilot.pause()
        assert waterfall.cursor == (40, int(app.focused.cursor))
        waterfall.focus()
        await pilot.press("left", "up")
        await pilot.pause()
        step, bin = waterfall.cursor
        assert step == 35
        assert {chart.cursor for chart in app.screen.query(Chart)} == {bin + 0.5}
        await pilot.press("0")
        await pilot.pause()
        assert {chart.cursor for chart in app.screen.query(Chart)} == {None}

    show(run, steps, size)


@at_both_sizes
def test_a_run_without_profiles(run, size):
    async def steps(app, pilot):
        await pilot.press("m", "2", "3", "1", "w", "right_square_bracket")
        await pilot.pause()
        assert "not measured in this run" in shown(app)
        await pilot.press("left", "up", "0")
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))

    run.profiles.unlink()
    run.meta.unlink()
    show(run, steps, size)


def test_other_bins_after_a_resume(run):
    async def steps(app, pilot):
        await pilot.press("m", "2", "left")
        add(run.profiles, {"segment": 2, "first_step": 39}, profile(45, bins=3))
        await settle(app, pilot)
        for key in ("3", "1", "2", "w", "left", "0"):
            await pilot.press(key)
            await settle(app, pilot)
        assert app.screen.query_one("#curve-loss", Chart).note == "step 45, dashed: 40"
        assert len(app.screen.query_one(Stack)._parts) == 3

    show(run, steps)


def test_parts_of_several_lengths(run):
    async def steps(app, pilot):
        add(run.profiles, profile(45, anatomy_stable=[1.0, 2.0]))
        await settle(app, pilot)
        assert app.screen.query_one(Stack).frame_note.startswith("largest sum")

    show(run, steps)


def test_what_the_dashboard_read_is_shown_here_too(run):
    """Both screens read on in one view: none may take what the other has not shown."""

    async def steps(app, pilot):
        add(run.profiles, profile(45))
        app.screen.view.read()  # as the dashboard's last look would
        await settle(app, pilot)
        assert app.screen.query_one("#curve-loss", Chart).note == "step 45"
        add(run.metrics, metrics(45, loss=0.0625))
        await settle(app, pilot)
        await pilot.press("escape")
        await settle(app, pilot)
        assert "0.0625" in shown(app)

    show(run, steps)


def test_nothing_is_drawn_where_nothing_changed(run, monkeypatch):
    async def steps(app, pilot):
        drawn, before = drawings(monkeypatch), app.traffic.total
        write_status(run)
        add(run.metrics, metrics(41))
        for _ in range(3):
            await settle(app, pilot)
        assert (drawn, app.traffic.total) == ([], before)
        add(run.profiles, profile(45))
        await settle(app, pilot)
        assert {"curve-loss", "profile-waterfall"} <= set(drawn)

    show(run, steps)


def test_a_bin_without_samples_is_passed_over_and_nothing_bad():
    line = ProfileScreen._line("now", np.array([1.0, np.nan, 3.0], np.float32), 0)
    assert line.x.tolist() == [0.5, 2.5]
    assert line.mean.tolist() == [1.0, 3.0]
    assert not line.bad.any()


@at_both_sizes
def test_the_cursor_names_the_bin_of_its_row(run, size):
    """Edges are 0 to 8: a bin lies between two of them, whatever half numbers round to."""
    add(run.profiles, profile(45, tangent_norm=[1.5, 2.5, None, None, 5.5, 6.5, 7.5, 8.5]))

    async def steps(app, pilot):
        chart = app.screen.query_one("#curve-tangent_norm", Chart)
        for bin, named in ((0, 0), (1, 1), (2, 1), (3, 4), (6, 6), (7, 7)):
            chart.set_cursor(bin + 0.5)
            assert chart_words.reading(chart.window) == f"t {named} to {named + 1}  {named + 1.5:g}"

    show(run, steps, size)


def everything(step, bins=8):
    return profile(
        step,
        weight=[1.0] * bins,
        true_error=[i / 10 for i in range(bins)],
        count=[4] * bins,
        F_gradient=[1.0] * (bins - 1) + [3.0],
        F_gradient_variance=[0.0] * bins,
    )


def test_a_run_that_measures_everything_shows_as_much_as_can_be_read(run):
    add(run.profiles, everything(50))

    async def steps(app, pilot):
        whole = ["weight", "loss", "tangent_norm", "true_error", "shares"]
        assert seen(app) == [*(f"curve-{key}" for key in whole), "anatomy"]
        await pilot.resize_terminal(160, 24)
        await settle(app, pilot)
        assert len(seen(app)) == 3
        assert "curve-tangent_norm" in seen(app)
        for _ in range(3):
            await pilot.press("right_square_bracket")
            await settle(app, pilot)
        assert "anatomy" in seen(app)
        assert all(curve.region.height >= 7 for curve in app.screen.query("#curves > *") if curve.region)

    show(run, steps)


def test_where_the_gradient_comes_from_and_what_adds_to_the_error(run):
    add(run.profiles, everything(50))

    async def steps(app, pilot):
        chart, waterfall = app.screen.query_one("#curve-shares", Chart), app.screen.query_one(Waterfall)
        batch, evening, gradient = (line.mean for line in chart.lines)
        assert batch == pytest.approx([1 / 8] * 8)
        assert gradient[-1] == pytest.approx(9 / 16)
        assert evening[-1] == pytest.approx(evening[0] / 9)
        shown_rows = {}
        for _ in range(20):
            await pilot.press("w")
            shown_rows[waterfall.title.removesuffix(" over t, steps down")] = (waterfall.rows, waterfall.is_signed)
        assert shown_rows["share of the gradient"][0][-1][1][-1] == pytest.approx(9 / 16)
        assert not shown_rows["share of the gradient"][1]
        rows, is_signed = shown_rows["added to the error by each bin"]
        assert rows[-1][1].tolist() == pytest.approx([0.0] + [0.1] * 7)
        assert is_signed

    show(run, steps)


def test_what_an_objective_tells_of_its_own_has_a_title_a_curve_and_a_sign(run, monkeypatch):
    monkeypatch.setitem(quantities.OF_SAMPLES, "data_cosine", Quantity("cosine of f and x_0", is_signed=True))
    cosine = [-0.5 + i / 8 for i in range(8)]
    add(run.profiles, profile(50, data_cosine=cosine, count=[4] * 8))

    async def steps(app, pilot):
        (line,) = app.screen.query_one("#curve-data_cosine", Chart).lines
        assert line.mean.tolist() == pytest.approx(cosine)
        waterfall, told = app.screen.query_one(Waterfall), {}
        for _ in quantities.OF_TIMES:
            await pilot.press("w")
            told[waterfall.title] = waterfall.is_signed
        assert told["cosine of f and x_0 over t, steps down"]
        assert sum(told.values()) == 1

    show(run, steps)


@at_both_sizes
def test_no_key_offers_an_average_that_no_curve_has(run, size):
    async def steps(app, pilot):
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, ProfileScreen))
        assert isinstance(app.focused, Chart)
        assert not {"smooth", "smooth_alone"} & {each.binding.action for each in app.screen.active_bindings.values()}
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, ProfileScreen))
        actions = {each.binding.action for each in app.screen.active_bindings.values()}
        assert isinstance(app.focused, Chart)
        assert {"smooth", "smooth_alone"} <= actions

    use([run], steps, size)
