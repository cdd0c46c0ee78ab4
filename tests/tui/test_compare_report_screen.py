"""The tables of several runs on a screen of their own, at both sizes."""

import shutil

import pytest
from bench import HARMLESS, HOSTILE, settle, use
from compared_runs import compared_run, losses
from live_runs import RECIPE, add, event, live_run
from textual.containers import VerticalScroll
from tui_host import SIZES, shown, until

from cmbench.comparison.compare import compare
from cmbench.tui.screens.compare import CompareScreen
from cmbench.tui.screens.compare_report import CompareReportScreen
from cmbench.words import comparison

at_both_sizes = pytest.mark.parametrize("size", SIZES)


METRICS = ["loss", "grad_norm", "tangent_norm", *(f"own_{i}" for i in range(12))]  # more tables than have room


@pytest.fixture
def runs(tmp_path):
    def made(name, seed, recipe):
        return compared_run(tmp_path, f"tiny-{name}", {key: losses(seed=seed) for key in METRICS}, recipe=recipe)

    return [
        made("20260101-000000-000a", 0, {}),
        made("20260101-000000-000b", 1, {"lr = 1e-2": "lr = 5e-3"}),
    ]


async def report(app, pilot):
    await pilot.press("L")
    await until(pilot, lambda: isinstance(app.screen, CompareReportScreen) and "runs" in shown(app))
    await pilot.pause()


@at_both_sizes
def test_it_holds_every_table_of_the_plain_report(runs, size):
    sections = comparison.report(compare(runs))
    assert {"runs", "recipe keys that differ", "loss"} <= {section.title for section in sections}

    async def steps(app, pilot):
        await report(app, pilot)
        assert "tiny·000a tiny·000b" in shown(app)
        scroll = app.screen.query_one(VerticalScroll)
        assert scroll.has_focus
        seen = set()
        for _ in sections:
            seen |= {section.title for section in sections if f"\n {section.title} " in shown(app)}
            await pilot.press("right_square_bracket")
            await pilot.pause()
        assert seen == {section.title for section in sections}
        assert scroll.scroll_offset.y == scroll.max_scroll_y > 0
        for _ in sections:
            await pilot.press("left_square_bracket")
        await pilot.pause()
        assert scroll.scroll_offset.y == 0
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))

    use(runs, steps, size)


def test_a_line_up_and_down(runs):
    async def steps(app, pilot):
        await report(app, pilot)
        scroll = app.screen.query_one(VerticalScroll)
        for key, place in (("j", 1), ("down", 2), ("k", 1), ("up", 0)):
            await pilot.press(key)
            await until(pilot, lambda place=place: scroll.scroll_offset.y == place)

    use(runs, steps, (80, 24))


@pytest.mark.parametrize("size", [(80, 24), (60, 30)])
def test_tables_keep_their_width_and_scroll_sideways(runs, size):
    (widest,) = [section for section in comparison.report(compare(runs)) if section.title.startswith("apart from")]

    async def steps(app, pilot):
        await report(app, pilot)
        scroll, seen = app.screen.query_one(VerticalScroll), set()
        assert scroll.max_scroll_x > 0
        await until(pilot, lambda: "Sideways" in shown(app))
        while True:
            assert "…" not in shown(app)
            seen |= {header for header in widest.headers if header in shown(app)}
            before = scroll.scroll_offset.x
            await pilot.press("right")
            await pilot.pause()
            if scroll.scroll_offset.x == before:
                break
        assert seen == set(widest.headers)
        for _ in range(99):
            await pilot.press("left")
        await pilot.pause()
        assert scroll.scroll_offset.x == 0

    use(runs, steps, size)


def test_where_all_tables_have_room_no_key_scrolls_sideways(runs):
    async def steps(app, pilot):
        await report(app, pilot)
        assert app.screen.query_one(VerticalScroll).max_scroll_x == 0
        await until(pilot, lambda: "Sideways" not in shown(app))

    use(runs, steps, (250, 45))


@at_both_sizes
def test_what_others_wrote_is_shown_and_never_obeyed(tmp_path, runs, size):
    odd = compared_run(tmp_path, HOSTILE.replace("/", ""), {"loss": losses()})

    async def steps(app, pilot):
        await report(app, pilot)
        assert HARMLESS.replace("/", "") in shown(app)
        assert all(line.isprintable() for line in shown(app).split("\n"))

    use([odd, *runs], steps, size)


def test_a_run_may_vanish(runs):
    async def steps(app, pilot):
        shutil.rmtree(runs[1].path)
        await report(app, pilot)
        assert "tiny·000b" in shown(app)

    use(runs, steps)


def test_keys_that_were_changed_while_a_run_trained_differ(tmp_path):
    made = [live_run(tmp_path, f"live-20260101-000000-000{letter}") for letter in "ab"]
    given = {"action": "set", "result": "done", "id": "x", "settings": {"optimizer.lr": 1e-4}}
    add(made[1].events, event(30, "request", **given))

    async def steps(app, pilot):
        await settle(app, pilot)
        await until(pilot, lambda: "0.0001 from step 31" in shown(app))
        await report(app, pilot)
        await until(pilot, lambda: "0.0002, 0.0001 from step 31" in shown(app))

    assert RECIPE.count("lr = 2e-4") == 1
    use(made, steps)
