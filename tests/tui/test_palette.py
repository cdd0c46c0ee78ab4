"""The command palette: every action that has a key where the focus is can be found by its name, and done."""

import pytest
from bench import settle, use
from live_runs import live_run
from textual.command import CommandPalette
from textual.system_commands import SystemCommandsProvider
from textual.widgets import OptionList
from tui_host import shown, until

from cmbench.tui import keys
from cmbench.tui.screens.dashboard import DashboardScreen
from cmbench.tui.screens.profile import ProfileScreen
from cmbench.tui.widgets.waterfall import Waterfall


async def found(app, text: str) -> list[str]:
    """Return what the palette finds for a text, by name."""
    provider = SystemCommandsProvider(app.screen)
    return [str(hit.text) async for hit in provider.search(text)]


async def look(app) -> int:
    """Find every named action that a key reaches now, and return how many there are."""
    named = {each.binding for each in app.screen.active_bindings.values() if each.binding.id in keys.actions()}
    names = {binding.description for binding in named if binding.id != "app.palette"}
    for name in names:
        assert name in await found(app, name), (app.screen, name)
    return len(names)


async def ask_for(app, pilot, text: str) -> None:
    """Open the palette, type a text and take what is found first."""
    screen = app.screen
    await pilot.press("ctrl+p", *text)
    await until(pilot, lambda: app.screen.query_one(OptionList).option_count == 1)
    await pilot.press("enter")
    await until(pilot, lambda: not isinstance(app.screen, CommandPalette) and app.screen is not screen)


def test_an_action_is_found_by_its_name_and_done(tmp_path):
    async def steps(app, pilot):
        await ask_for(app, pilot, "profile")
        assert isinstance(app.screen, ProfileScreen)
        await ask_for(app, pilot, "dashb")  # an action of the application that the screen gives a key
        assert isinstance(app.screen, DashboardScreen)

    use([live_run(tmp_path)], steps)


def test_every_named_action_is_found(tmp_path):
    runs = [live_run(tmp_path), live_run(tmp_path, "live-20260101-000000-000b")]

    async def of_one(app, pilot):
        on_a_chart = await look(app)
        app.screen.query_one(Waterfall).focus()
        await pilot.pause()
        assert await look(app) != on_a_chart
        for there, back in (("p", "escape"), ("i", "escape"), ("v", "escape"), ("S", "n"), ("b", None)):
            screen = app.screen
            await pilot.press(there)
            await until(pilot, lambda before=screen: app.screen is not before)
            await settle(app, pilot)
            assert await look(app)
            if back:
                await pilot.press(back)
                await until(pilot, lambda before=screen: app.screen is before)

    async def of_two(app, pilot):
        assert await look(app)

    use(runs[:1], of_one)
    use(runs, of_two)


def test_beside_its_name_stand_its_keys(tmp_path):
    async def steps(app, pilot):
        help_of = {command.title: command.help for command in app.get_system_commands(app.screen)}
        assert help_of["Time profile"] == "f5 ^t"
        assert help_of["Leave"].endswith("q ^q: the run goes on")
        assert help_of["Screenshot"]  # Textual's own
        assert list(help_of).count("Theme") == 1

    use([live_run(tmp_path)], steps, keys={"dashboard.profile": "f5,ctrl+t"})


@pytest.mark.parametrize(("ascii", "sign"), [(True, "enter"), (False, "⏎")])
def test_keys_are_shown_in_ascii_where_there_is_no_more(tmp_path, ascii, sign):
    async def steps(app, pilot):
        await pilot.press("b")
        await settle(app, pilot)
        await until(pilot, lambda: f" {sign} Open" in shown(app))
        await pilot.press("ctrl+p")
        await until(pilot, lambda: "Search for commands" in shown(app))
        assert "??" not in shown(app)

    use([live_run(tmp_path)], steps, ascii=ascii)
