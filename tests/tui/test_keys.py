"""Keys that are given away: one that two actions would have at once is refused, and only that."""

import pytest
from bench import use
from live_runs import live_run
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual._keyboard_protocol import FUNCTIONAL_KEYS
from textual.command import CommandPalette
from textual.widgets import Input
from tui_host import until

from cmbench.errors import UsageError
from cmbench.tui import keys
from cmbench.tui.screens.confirm import Ask, Confirm
from cmbench.tui.screens.dashboard import DashboardScreen
from cmbench.tui.screens.profile import ProfileScreen
from cmbench.tui.screens.runs import RunsScreen
from cmbench.tui.widgets.chart import Chart
from cmbench.tui.widgets.waterfall import Waterfall

REFUSED = {
    "two of a screen": ({"dashboard.axis": "f5", "dashboard.waterfall": "f5"}, "f5"),
    "a screen's and the application's": ({"app.theme": "f5", "runs.note": "f5"}, "f5"),
    "a widget's and its screen's": ({"chart.smooth": "f5", "compare.tables": "f5"}, "f5"),
    "a widget's and the application's": ({"waterfall.reset": "f5", "app.quit": "f5"}, "f5"),
    "a screen's and one that all runs have": ({"dashboard.freeze": "f5", "run.stop": "f5"}, "f5"),
    "two of a question": ({"confirm.yes": "f5", "confirm.leave": "f5"}, "f5"),
    "one of several": ({"dashboard.axis": "f4, f5", "dashboard.waterfall": "f5,f6"}, "f5"),
    "one key in two spellings": ({"dashboard.axis": "f5,/", "dashboard.waterfall": "slash"}, "slash"),
    "one that another has by default": ({"app.theme": "x"}, "x"),
    "one that nothing may take": ({"dashboard.axis": "ctrl+c"}, "ctrl+c"),
    "the palette's": ({"run.pause": "ctrl+p"}, "ctrl+p"),
}
ALLOWED = {
    "nothing": {},
    "on two screens": {"dashboard.axis": "f5", "compare.axis": "f5", "runs.sort": "f5", "recipe.other": "f5"},
    "of two widgets, one of which has the focus": {"chart.smooth": "f5", "waterfall.reset": "f5"},
    "two that changed places": {"dashboard.axis": "w", "dashboard.waterfall": "x"},
    "one that became free": {"app.quit": "x", "dashboard.axis": "f5", "compare.axis": "f5"},
    "the palette's, that has another": {"app.palette": "f5", "dashboard.axis": "ctrl+p"},
    "shared by default": {"recipe.back": "v,escape", "dashboard.recipe": "v"},
    "under a question": {"confirm.yes": "f5", "dashboard.axis": "f5"},
    "empty": {"dashboard.axis": " ", "dashboard.waterfall": ",", "app.quit": ""},
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_key_for_two_actions_at_once_is_refused(case):
    given, key = REFUSED[case]
    with pytest.raises(UsageError) as refused:
        keys.check(given, keys.listening(), "config.toml")
    message = str(refused.value)
    assert message.startswith(f"config.toml: keys: found '{key}' for ")
    assert all(name in message for name in given)
    assert "\n" not in message


@pytest.mark.parametrize("case", ALLOWED)
def test_other_keys_may_be_given(case):
    assert set(ALLOWED[case]) <= keys.actions()
    keys.check(ALLOWED[case], keys.listening(), "config.toml")


NO_KEYS = {
    "qq": "q",
    "f9, escpae": "escape",
    "pgup": "pageup",
    "F5": "f5",
    "ctl+q": "ctrl+q",
    "questionmark": "question_mark",
    "shift+q": None,  # comes as Q
    "shift+ctrl+left": "shift+left",
    "solidus": None,  # is called slash
    "latin_small_letter_a": None,
    "<any>": None,
    "ctrl": None,
    "ctrl++": None,
}


@pytest.mark.parametrize("text", NO_KEYS)
def test_a_key_that_does_not_exist_is_refused(text):
    with pytest.raises(UsageError) as refused:
        keys.check({"app.quit": text}, [], "config.toml")
    message, found = str(refused.value), text.split(", ")[-1]
    assert message.startswith(f"config.toml: keys: app.quit: found '{found}', allowed: a character")
    assert message.endswith(f"did you mean '{NO_KEYS[text]}'?" if NO_KEYS[text] else "shift+")
    assert "\n" not in message


def test_every_key_that_textual_tells_of_may_be_given():
    told = {key.value for found in ANSI_SEQUENCES_KEYS.values() if isinstance(found, tuple) for key in found}
    told = {key for key in told if not key.startswith("<")} | {*FUNCTIONAL_KEYS.values()}
    given = [*told, *"qQ?/+-±é数", "ctrl+x", "alt+shift+left", "slash", "plus", " ", " f5 "]
    keys.check({str(i): key for i, key in enumerate(given)}, [], "config.toml")
    for row in keys.listening():
        keys.check({name: ",".join(held) for name, held in row.items()}, [], "config.toml")


def test_what_listens_at_once_is_what_textual_asks(tmp_path):
    """Wherever the focus is, the actions that a key can reach are those of one row of the table."""
    rows = [set(row) for row in keys.listening()]
    seen = []

    def look(app) -> None:
        bindings = [
            b for _, found in app.screen._modal_binding_chain for bs in found.key_to_bindings.values() for b in bs
        ]
        seen.append({binding.id for binding in bindings if binding.id in keys.actions()})
        assert seen[-1] in rows, (app.screen, app.focused)

    async def steps(app, pilot):
        look(app)
        app.screen.query_one(Waterfall).focus()
        await pilot.pause()
        look(app)
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        look(app)
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, ProfileScreen) and isinstance(app.focused, Chart))
        look(app)
        await pilot.press("escape", "b")
        await pilot.pause()
        look(app)

    use([live_run(tmp_path)], steps)
    assert len({frozenset(each) for each in seen}) == 5


def test_the_key_that_was_given_works(tmp_path):
    async def steps(app, pilot):
        await pilot.press("w")
        await pilot.pause()
        assert app.said == ["x axis: images"]
        assert "tangent" in app.screen.query_one(Waterfall).title
        await pilot.press("x")
        await pilot.pause()
        assert "loss" in app.screen.query_one(Waterfall).title
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        assert isinstance(app.focused, Input)

    use([live_run(tmp_path)], steps, keys=ALLOWED["two that changed places"])


def test_the_palette_opens_by_the_key_that_it_was_given(tmp_path):
    async def steps(app, pilot):
        await pilot.press("ctrl+p")
        await pilot.pause()
        assert app.said == ["x axis: images"]
        assert isinstance(app.screen, DashboardScreen)
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))

    use([live_run(tmp_path)], steps, keys=ALLOWED["the palette's, that has another"])


ALIKE = [  # one thing on several screens: there and back, a line up or down, to read in full, to keep as reference
    {"runs.up", "recipe.up", "journal.up", "compare_report.up"},
    {"runs.down", "recipe.down", "journal.down", "compare_report.down"},
    {"dashboard.profile", "profile.back", "spike.profile"},
    {"dashboard.journal", "journal.back", "compare.report", "compare_report.back"},
    {"dashboard.console", "journal.other"},
    {"dashboard.recipe", "runs.recipe", "recipe.back"},
    {"profile.reference", "snapshots.pin"},
    {"dashboard.waterfall", "profile.quantity"},
    {"run.stop", "runs.stop"},
    {"dashboard.runs", "compare.runs", "snapshots.runs", "spike.back"},
]


def test_a_letter_means_one_thing_on_all_screens():
    """A question has keys of its own: it lets nothing through. A name means one thing under all who have it."""
    alike = {name: "/".join(sorted(group)) for group in ALIKE for name in group}
    meanings: dict[str, set[str]] = {}
    for actions in keys.listening():
        for name, its in actions.items():
            for key in its:
                if len(key) == 1 and key.isalpha() and not name.startswith("confirm."):
                    meanings.setdefault(key, set()).add(alike.get(name, name.rpartition(".")[2]))
    assert {key: found for key, found in meanings.items() if len(found) > 1} == {}


def test_escape_closes_what_lies_on_top_before_it_leaves_the_screen(tmp_path):
    async def steps(app, pilot):
        screen = app.screen
        for key, is_open in (
            ("question_mark", lambda: screen.query("HelpPanel")),
            ("enter", lambda: screen.has_class("enlarged")),
            ("slash", lambda: screen.query_one("#filter").display),
        ):
            await pilot.press(key)
            await until(pilot, is_open)
            await pilot.press("escape")
            await until(pilot, lambda is_open=is_open: not is_open())
            assert app.screen is screen
        for key in "iv":
            await pilot.press(key, "question_mark")
            await until(pilot, lambda: app.screen is not screen and app.screen.query("HelpPanel"))
            await pilot.press("escape")
            await until(pilot, lambda: not app.screen.query("HelpPanel"))
            assert app.screen is not screen
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is screen)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        await pilot.press("slash", *"none", "enter", "escape")
        await until(pilot, lambda: app.kept.runs.filter == "")

    use([live_run(tmp_path)], steps)
