"""The last line of a screen: at 80 columns the keys that one cannot do without are seen, whatever has the focus."""

import pytest
from bench import settle, use
from live_runs import live_run
from textual.widgets import Footer
from textual.widgets._footer import FooterKey
from tui_host import SIZES, shown, until

from cmbench.tui.screens.profile import ProfileScreen
from cmbench.tui.screens.runs import RunsScreen
from cmbench.tui.widgets.waterfall import Waterfall


def bar(app) -> str:
    """Return the last line without the palette's key at its right."""
    return shown(app).split("\n")[-1].split("\u258f")[0].strip()


def is_first(app, *keys: str) -> bool:
    return bar(app).startswith("  ".join(("? Keys", "q Leave", *keys)))


@pytest.mark.parametrize("size", SIZES)
def test_the_most_important_keys_come_first(tmp_path, size):
    async def steps(app, pilot):
        await until(pilot, lambda: is_first(app, "p Time profile", "i Snapshots", "b Runs"))
        assert ("S Stop" in bar(app)) == (size[0] == 160)
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, ProfileScreen) and is_first(app, "m Reference"))
        app.screen.query_one(Waterfall).focus()
        await settle(app, pilot)
        assert is_first(app, "m Reference")
        await pilot.press("escape", "b")
        await until(
            pilot, lambda: isinstance(app.screen, RunsScreen) and is_first(app, "⏎ Open", "space Mark", "C Compare")
        )

    use([live_run(tmp_path)], steps, size)


def test_no_key_is_lost(tmp_path):
    async def steps(app, pilot):
        shows = {binding.action for _, binding, _, _ in app.screen.active_bindings.values() if binding.show}
        await until(pilot, lambda: app.screen.query("FooterKey"))
        assert {key.action for key in app.screen.query_one(Footer).query("FooterKey")} >= shows

    use([live_run(tmp_path)], steps)


def test_a_key_that_was_given_away_keeps_its_place(tmp_path):
    async def steps(app, pilot):
        await until(pilot, lambda: is_first(app, "f5 Time profile", "i Snapshots"))

    use([live_run(tmp_path)], steps, SIZES[1], keys={"dashboard.profile": "f5"})


def test_keys_are_made_anew_where_they_are_others_alone(tmp_path):
    async def steps(app, pilot):
        await until(pilot, lambda: app.screen.query("FooterKey"))
        before = list(app.screen.query("FooterKey"))
        assert not any(key.has_class("-compact") for key in before)
        app.screen.refresh_bindings()
        await settle(app, pilot)
        assert list(app.screen.query("FooterKey")) == before
        app.screen.query_one(Waterfall).focus()
        await until(pilot, lambda: not set(app.screen.query("FooterKey")) & set(before))

    use([live_run(tmp_path)], steps)


@pytest.mark.parametrize("width", [60, 80, 97, 160])
def test_a_key_is_shown_whole_or_not_at_all(tmp_path, width):
    async def steps(app, pilot):
        await until(pilot, lambda: is_first(app, "p Time profile"))
        await settle(app, pilot)
        keys = [f"{key.key_display} {key.description}" for key in app.screen.query(FooterKey)]
        found = bar(app).split("  ")
        assert found == keys[: len(found)]
        assert 1 < len(found) < len(keys)

    use([live_run(tmp_path)], steps, (width, 24))
