"""The journal and the console in full, at both sizes."""

import pytest
from bench import HARMLESS, HOSTILE, settle, use
from live_runs import add, event, live_run, write_status
from test_dashboard import drawings
from tui_host import SIZES, shown, until

from cmbench.tui.screens.dashboard import DashboardScreen
from cmbench.tui.screens.journal import JournalScreen
from cmbench.tui.widgets.line import LogLines

at_both_sizes = pytest.mark.parametrize("size", SIZES)
WORDS = " ".join(f"word{i}" for i in range(60))


@pytest.fixture
def run(tmp_path):
    return live_run(tmp_path)


def show(run, steps, size=SIZES[0], keys=("L",)) -> None:
    async def opened(app, pilot):
        await pilot.press(*keys)
        await until(
            pilot, lambda: isinstance(app.screen, JournalScreen) and any(log.rows for log in app.screen.query(LogLines))
        )
        await settle(app, pilot)
        await steps(app, pilot)

    use([run], opened, size)


@at_both_sizes
def test_long_lines_are_seen_whole(run, size):
    async def steps(app, pilot):
        text = shown(app)
        for i in range(60):
            assert f"word{i} " in text.replace("│", " ")
        assert "⚠ 2" in text.split("\n")[0]
        await pilot.resize_terminal(60, 30)
        await pilot.pause()
        assert all(f"word{i} " in shown(app).replace("│", " ") for i in range(60))

    add(run.events, event(40, "warning", text=WORDS))
    show(run, steps, size)


def below_header(app) -> str:
    """Return the lines of the journal alone: the header names the last warning."""
    return shown(app).partition("\n")[2]


@at_both_sizes
def test_earlier_lines_are_gone_back_to_and_stay_in_sight(run, size):
    async def steps(app, pilot):
        async def sees(*keys: str) -> str:
            await pilot.press(*keys)
            await pilot.pause()
            return below_header(app)

        assert "started" not in shown(app)
        text = await sees("home")
        assert "1 started" in text
        assert "more below" in text
        rows = [line for line in text.split("\n") if "│" in line]
        assert "1 started" not in await sees("down")
        assert "1 started" in await sees("k")
        add(run.events, event(200, "warning", text="newest"))
        await settle(app, pilot)
        assert [line for line in shown(app).split("\n") if "│" in line] == rows
        assert "newest" in await sees("end")
        assert "more below" not in shown(app)
        assert "newest" not in await sees("pageup")
        assert "newest" in await sees("pagedown")
        add(run.events, event(201, "warning", text="newer"))
        await settle(app, pilot)
        assert "newer" in shown(app)

    add(run.events, *(event(40 + i, "warning", text=f"number {i}") for i in range(100)))
    show(run, steps, size)


@at_both_sizes
def test_the_console_too(run, size):
    async def steps(app, pilot):
        assert " console " in shown(app)
        assert HARMLESS in shown(app)
        await pilot.press("l")
        assert " journal " in shown(app)
        assert "1 started" in shown(app)

    run.console.write_text(f"first line\n{HOSTILE}\n")
    show(run, steps, size, keys="lL")


@pytest.mark.parametrize("key", ["L", "escape"])
def test_it_is_left(run, key):
    async def steps(app, pilot):
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))

    show(run, steps)


def test_nothing_is_drawn_where_nothing_changed(run, monkeypatch):
    async def steps(app, pilot):
        drawn, before = drawings(monkeypatch), app.traffic.total
        write_status(run)
        for _ in range(3):
            await settle(app, pilot)
        assert (drawn, app.traffic.total) == ([], before)

    show(run, steps)
