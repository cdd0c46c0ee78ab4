"""What all screens share: keys that can be given away and do not fight, settings, signals' business, bytes."""

import importlib
import pkgutil
from itertools import chain

import pytest
from bench import settle, titles, use
from live_runs import live_run
from textual.binding import Binding
from textual.dom import DOMNode
from textual.widget import Widget
from tui_host import SIZES, until

import cmbench.tui
from cmbench import settings as preferences
from cmbench.cli import _dashboard
from cmbench.errors import UsageError
from cmbench.tui.app import CmbenchApp
from cmbench.tui.keys import actions
from cmbench.tui.screens.compare import CompareScreen
from cmbench.tui.screens.compare_report import CompareReportScreen
from cmbench.tui.screens.confirm import Ask, Confirm, TypedConfirm
from cmbench.tui.screens.dashboard import DashboardScreen
from cmbench.tui.screens.journal import JournalScreen
from cmbench.tui.screens.profile import ProfileScreen
from cmbench.tui.screens.recipe import RecipeScreen
from cmbench.tui.screens.runs import RunsScreen
from cmbench.tui.screens.snapshots import SnapshotsScreen
from cmbench.tui.screens.spike import SpikeScreen
from cmbench.tui.screens.starting import StartingScreen
from cmbench.tui.widgets.chart import Chart
from cmbench.tui.widgets.metric_filter import MetricFilter
from cmbench.tui.widgets.run_table import RunTable
from cmbench.tui.widgets.waterfall import Waterfall

# What can have the focus on each screen, and so takes a key before the screen does.
FOCUSED: dict[type[DOMNode], list[type[Widget]]] = {
    DashboardScreen: [Chart, Waterfall],
    ProfileScreen: [Chart, Waterfall],
    JournalScreen: [],
    CompareScreen: [Chart],
    CompareReportScreen: [],
    RunsScreen: [RunTable],
    SnapshotsScreen: [],
    RecipeScreen: [],
    SpikeScreen: [],
    StartingScreen: [],
}


@pytest.fixture
def run(tmp_path):
    return live_run(tmp_path)


def own_classes() -> list[type[DOMNode]]:
    """Return every screen and widget of the package."""
    found = set()
    for info in pkgutil.walk_packages(cmbench.tui.__path__, "cmbench.tui."):
        for value in vars(importlib.import_module(info.name)).values():
            if isinstance(value, type) and issubclass(value, DOMNode) and value.__module__.startswith("cmbench."):
                found.add(value)
    return sorted(found, key=lambda each: each.__name__)


def bindings(holder: type[DOMNode]) -> list[Binding]:
    """Return the bindings of a class and of its bases in the package, one a key."""
    bases = [base for base in holder.__mro__ if base.__module__.startswith("cmbench.")]
    return list(Binding.make_bindings(chain.from_iterable(vars(base).get("BINDINGS", ()) for base in bases)))


def test_every_key_has_a_name_that_can_be_given_another():
    known = set(actions())
    for holder in own_classes():
        for binding in bindings(holder):
            assert binding.id in known, (holder, binding)
            assert binding.description


def test_every_name_is_of_one_action():
    named: dict[str, set[tuple[str, str]]] = {}
    for holder in own_classes():
        for binding in bindings(holder):
            named.setdefault(binding.id, set()).add((binding.action, binding.description))
    assert {name: found for name, found in named.items() if len(found) > 1} == {}


@pytest.mark.parametrize("screen", FOCUSED)
def test_no_key_has_two_actions(screen):
    """A key of the focused widget hides the screen's, and the screen's hides the application's."""
    for focused in FOCUSED[screen] or [screen]:
        holders = dict.fromkeys([focused, screen, CmbenchApp])
        keys = [(binding.key, binding.id) for holder in holders for binding in bindings(holder)]
        twice = {key for key, _ in keys if len({name for other, name in keys if other == key}) > 1}
        twice -= {"pageup", "pagedown"}  # the application's only while its help is open
        # Some leave by the keys by which others go back or quit.
        assert twice <= {"escape"}, (focused, twice)
        assert twice == set() or screen in (RecipeScreen, SnapshotsScreen, CompareReportScreen)


def test_all_screens_are_looked_at():
    screens = {each for each in own_classes() if each.__name__.endswith("Screen")}
    screens -= {base for each in screens for base in each.__mro__[1:]}
    assert screens == set(FOCUSED)
    assert {Ask, Confirm, TypedConfirm} <= set(own_classes())


@pytest.mark.parametrize("size", SIZES)
def test_keys_are_given_away(run, size):
    async def steps(app, pilot):
        await pilot.press("p")  # is free now
        await pilot.pause()
        assert isinstance(app.screen, DashboardScreen)
        await pilot.press("f5")
        await until(pilot, lambda: isinstance(app.screen, ProfileScreen))
        await pilot.press("escape", "f6")
        await until(pilot, lambda: app.screen.query_one("#chart-0").window.scale.kind == "log")
        await pilot.press("slash", "x", "f7")
        await until(pilot, lambda: not app.screen.query_one(MetricFilter).display)
        await pilot.press("S", "f8")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and list(run.control.iterdir()))
        await pilot.press("f9")
        assert app._exit

    keys = {"dashboard.profile": "f5", "chart.scale": "f6", "dashboard.filter_done": "f7", "confirm.yes": "f8"}
    use([run], steps, size, keys={**keys, "app.quit": "ctrl+x,f9"})


def test_ctrl_c_leaves_wherever_it_is_pressed(run):
    async def steps(app, pilot):
        await pilot.press("slash", "ctrl+c")
        assert app._exit

    use([run], steps)


CONFIGS = {
    'theme = "colour-blind"\nrate = 0.5\nascii = true\n[keys]\n"app.quit" = "f9"': None,
    'theme = "blue"': ["theme", "'blue'", "colour-blind"],
    "rate = 9": ["rate", "9", "4"],
    "colour = 1": ["colour", "unknown key"],
    '[keys]\n"app.quit" = "x"': ["keys", "'x'", "app.quit", "dashboard.axis (its default)"],
    '[keys]\n"app.quit" = "f9"\n"chart.smooth" = "f8, f9"': ["keys", "'f9'", "app.quit", "chart.smooth", "one screen"],
    '[keys]\n"app.quit" = "qq"': ["keys", "app.quit", "'qq'", "'q'?"],
    '[keys]\n"app.quitt" = "x"': ["keys", "'app.quitt'", "'app.quit'?"],
    "theme = [": ["config.toml"],
    "\x00": ["config.toml"],
}


@pytest.mark.parametrize(("text", "mentions"), CONFIGS.items())
def test_settings_are_read_or_refused(tmp_path, monkeypatch, text, mentions):
    path = tmp_path / "cmbench" / "config.toml"
    path.parent.mkdir()
    path.write_text(text)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("CMBENCH_CONFIG", raising=False)
    for name in ("SSH_CONNECTION", "TEXTUAL_ANIMATIONS"):
        monkeypatch.setenv(name, "")
    if mentions is None:
        found = _dashboard.settings()
        assert (found.theme, found.poll_seconds, found.ascii, found.keys) == (
            "colour-blind",
            2,
            True,
            {"app.quit": "f9"},
        )
        return
    with pytest.raises(UsageError) as refused:
        _dashboard.settings()
    message = str(refused.value)
    assert message.startswith(str(path))
    assert all(mention in message for mention in mentions), message


def test_without_settings_the_link_says_how_often_to_look(tmp_path, monkeypatch):
    monkeypatch.setenv("CMBENCH_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    assert preferences.load().poll_seconds == 0.5
    monkeypatch.setenv("SSH_CONNECTION", "here there")
    assert preferences.load().poll_seconds == 1.0


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LANG": "C.UTF-8"}, False),
        ({"LANG": "de_DE.utf8"}, False),
        ({"LANG": "C.UTF-8", "LC_ALL": "C"}, True),
        ({"LANG": "C"}, True),
        ({}, True),
        ({"LANG": "C.UTF-8", "TERM": "linux"}, True),
    ],
)
def test_signs_are_plain_where_the_terminal_has_no_others(tmp_path, monkeypatch, environment, expected):
    for name in ("LC_ALL", "LC_CTYPE", "LANG", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert CmbenchApp(tmp_path).ascii == expected


def test_several_runs_are_compared_and_none_are_browsed(tmp_path):
    runs = [live_run(tmp_path), live_run(tmp_path, "live-20260101-000000-000b")]

    async def compared(app, pilot):
        assert isinstance(app.screen, CompareScreen)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))

    use(runs, compared)


def test_bytes_are_counted_as_they_are_sent(run):
    async def steps(app, pilot):
        before = app.traffic.total
        app._driver.write("é")
        assert app.traffic.total == before + 2
        await settle(app, pilot)
        assert titles(app)

    use([run], steps)


@pytest.mark.parametrize("is_given", [True, False])
def test_the_browser_is_of_the_folder_that_the_run_is_in(tmp_path, monkeypatch, is_given):
    seen = []
    monkeypatch.setenv("TEXTUAL_DRIVER", "of a browser")
    monkeypatch.setattr(CmbenchApp, "run", lambda app: seen.append(app.runs_dir))
    _dashboard.show(tmp_path / "runs", [live_run(tmp_path / "elsewhere")] if is_given else [])
    assert seen == [tmp_path / ("elsewhere" if is_given else "runs")]
