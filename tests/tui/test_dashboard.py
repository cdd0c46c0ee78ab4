"""The dashboard: each key at both sizes, requests, hostile text, damaged files, and nothing drawn without a reason."""

import shutil
import time

import pytest
from bench import HARMLESS, HOSTILE, on_screen, requests, settle, titles, use
from live_runs import CREATED, add, event, live_run, metrics, profile, write_status
from textual.widgets import Footer
from tui_host import SIZES, shown, until

from cmbench.quantities import charts, title_of
from cmbench.rundir.files import to_json
from cmbench.tui.colours import themes
from cmbench.tui.screens.compare import CompareScreen
from cmbench.tui.screens.confirm import Ask, Confirm
from cmbench.tui.screens.dashboard import DashboardScreen
from cmbench.tui.screens.journal import JournalScreen
from cmbench.tui.screens.profile import ProfileScreen
from cmbench.tui.screens.recipe import RecipeScreen
from cmbench.tui.screens.runs import RunsScreen
from cmbench.tui.screens.snapshots import SnapshotsScreen
from cmbench.tui.system import Load, System
from cmbench.tui.widgets.chart import Chart
from cmbench.tui.widgets.grid import GridWidget
from cmbench.tui.widgets.line import Lines
from cmbench.tui.widgets.metric_filter import MetricFilter
from cmbench.tui.widgets.waterfall import Waterfall

at_both_sizes = pytest.mark.parametrize("size", SIZES)
FIRST = ["loss", "tangent norm", "gradient norm", "weight", "sliced W2 1 2-step", "images/s"]


@pytest.fixture
def run(tmp_path):
    return live_run(tmp_path)


def chosen(app) -> str:
    """Return the title of the chart that has the focus, which must be seen."""
    chart = app.focused
    assert isinstance(chart, Chart)
    assert chart.has_class("chosen")
    assert chart.display
    assert chart.region
    return chart.title


@at_both_sizes
def test_what_is_seen_first(run, size):
    async def steps(app, pilot):
        assert titles(app) == FIRST
        assert chosen(app) == "loss"
        text = shown(app)
        steps = "step 40/1,000 4%" if size[0] == 160 else "  40/1k  "
        for words in ("live·000a", "running", "⚠ 1", steps, "eta 35s", "ckpt 20", "900 images/s", "kB/s"):
            assert words in text.split("\n")[0]
        assert "20 checkpoint 20 (best)" in text
        assert ("system" in text) == (size[0] == 160)
        assert ("over t, steps down" in text) == (size[0] == 160)
        seen = [chart.title for chart in app.screen.query(Chart) if chart.region]
        assert seen == (FIRST if size[0] == 160 else FIRST[:1])

    use([run], steps, size)


@at_both_sizes
def test_rows_that_come_are_drawn(run, size):
    async def steps(app, pilot):
        add(run.metrics, metrics(41, loss=0.0625, own=3.0))
        add(run.events, event(41, "warning", text="too hot"))
        await settle(app, pilot)
        assert "0.0625" in shown(app)
        assert "41 warning: too hot" in shown(app)
        assert "⚠ 2" in shown(app)

    use([run], steps, size)


@at_both_sizes
def test_charts_are_gone_to_by_their_numbers(run, size):
    async def steps(app, pilot):
        for i, title in enumerate(FIRST, start=1):
            await pilot.press(str(i))
            await pilot.pause()
            assert chosen(app) == title
            assert f" {title}" in shown(app)

    use([run], steps, size)


@at_both_sizes
def test_pages(run, size):
    async def steps(app, pilot):
        narrow = size[0] == 80
        seen = []
        for _ in range(8 if narrow else 2):
            await pilot.press("right_square_bracket")
            await pilot.pause()
            seen.append((titles(app)[0], chosen(app)))
        if narrow:
            expected = [("loss", title) for title in FIRST[1:]] + [("r", "r"), ("r", "learning rate"), ("loss", "loss")]
        else:
            expected = [("r", "r"), ("loss", "loss")]
        assert seen == expected
        await pilot.press("left_square_bracket")
        await pilot.pause()
        assert titles(app) == ["r", "learning rate", "", "", "", ""]
        assert chosen(app) == "learning rate"  # of its page the last

    use([run], steps, size)


@at_both_sizes
def test_one_chart_is_enlarged(run, size):
    async def steps(app, pilot):
        await pilot.press("2", "enter")
        await pilot.pause()
        assert app.focused.size.width > 0.9 * size[0]
        assert app.focused.size.height > 0.9 * (size[1] - 8)
        await pilot.press("3")
        await pilot.pause()
        assert (chosen(app), app.focused.size.width > 0.9 * size[0]) == ("gradient norm", True)
        await pilot.press("enter")
        await pilot.pause()
        assert chosen(app) == "gradient norm"
        assert app.screen.query_one("#journal").region

    use([run], steps, size)


@at_both_sizes
def test_metrics_are_looked_for(run, size):
    async def steps(app, pilot):
        entry = app.screen.query_one(MetricFilter)
        await pilot.press("slash", *"norm$")
        assert app.focused is entry
        await pilot.press("enter")
        await pilot.pause()
        assert titles(app) == ["gradient norm", "tangent norm", "", "", "", ""]
        assert (chosen(app), entry.display) == ("gradient norm", False)
        assert "  /norm$/  " in shown(app).split("\n")[0]
        await pilot.press("slash", "end", "(", "enter")
        await pilot.pause()
        assert len(app.said) == 1
        assert "norm$(" in app.said[0]
        assert entry.display
        await pilot.press("escape")  # back to the charts, and not to the runs
        await pilot.pause()
        assert isinstance(app.screen, DashboardScreen)
        assert (chosen(app), entry.display) == ("gradient norm", False)
        await pilot.press("slash", "end", *["backspace"] * 5, "enter")
        await pilot.pause()
        assert titles(app) == FIRST
        assert "/norm$/" not in shown(app)

    use([run], steps, size)


@at_both_sizes
def test_a_filter_that_finds_nothing_says_so(run, size):
    async def steps(app, pilot):
        await pilot.press("slash", *"zzz", "enter")
        await pilot.pause()
        assert titles(app) == [""] * 6
        assert "  /zzz/  " in shown(app).split("\n")[0]
        assert "no metric matches /zzz/" in shown(app)
        add(run.metrics, metrics(41, zzzz=1.0))
        await settle(app, pilot)
        assert titles(app)[0] == "zzzz"
        assert "no metric matches" not in shown(app)

    use([run], steps, size)


@at_both_sizes
def test_the_keys_of_a_chart(run, size):
    async def steps(app, pilot):
        chart = app.focused
        kinds = []
        for _ in range(3):
            await pilot.press("y")
            kinds.append(chart.window.scale.kind)
        assert kinds == ["symlog", "linear", "log"] or kinds == ["log", "symlog", "linear"]
        lengths = []
        for _ in range(4):
            await pilot.press("s")
            lengths.append(chart.window.strength)
        assert lengths == [0.08, 0.0, 0.005, 0.02]
        await pilot.press("left")
        x = chart.cursor
        await pilot.press("shift+left")
        assert chart.cursor < x
        await pilot.pause()
        assert {each.cursor for each in app.screen.query(Chart)} == {chart.cursor}
        whole = chart.window.x_ends()
        await pilot.press("plus")
        assert chart.window.x_ends()[1] - chart.window.x_ends()[0] < whole[1] - whole[0]
        zoomed = chart.window.x_ends()
        await pilot.press("less_than_sign")
        assert chart.window.x_ends()[0] < zoomed[0] or zoomed[0] == whole[0]
        await pilot.press("up")
        assert chart.window.y_zoom is not None
        await pilot.press("0")
        await pilot.pause()
        assert (chart.cursor, chart.window.x_ends(), chart.window.y_zoom) == (None, whole, None)
        ends = []
        for _ in range(5):
            await pilot.press("x")
            await pilot.pause()
            ends.append((app.said[-1], float(chart.lines[0].x[-1])))
        assert ends == [
            ("x axis: images", 1280.0),
            ("x axis: training time", 40.0),
            ("x axis: wall time", CREATED + 40.0),
            ("x axis: forwards", 1280.0),
            ("x axis: steps", 40.0),
        ]

    use([run], steps, size)


def test_one_average_for_all_charts_and_one_for_a_chart_alone(run):
    add(run.metrics, *(metrics(k) for k in range(41, 141)))

    async def steps(app, pilot):
        charts = list(app.screen.query(Chart))
        await pilot.press("a")
        await pilot.press("2", "s", "s")
        await settle(app, pilot)
        assert app.focused is charts[1]
        assert [chart.window.strength for chart in charts] == [0.08, *[0.0] * (len(charts) - 1)]
        assert list(charts[0].window.smoothing.alone) == [charts[0].title]
        await pilot.press("1", "a")
        await settle(app, pilot)
        assert {chart.window.strength for chart in charts} == {0.0}
        assert not charts[0].window.smoothing.alone

    use([run], steps)


def test_the_waterfall(run):
    async def steps(app, pilot):
        waterfall = app.screen.query_one(Waterfall)
        assert waterfall.title == "tangent norm over t, steps down"
        await pilot.press("w")
        assert waterfall.title == "loss over t, steps down"
        waterfall.focus()
        await pilot.press("up", "left")
        await pilot.pause()
        assert waterfall.cursor == (35, 2)
        assert "step 35  t 2 to 3" in shown(app)
        await pilot.press("0")
        assert waterfall.cursor is None

    use([run], steps)


@at_both_sizes
def test_journal_and_console(run, size):
    async def steps(app, pilot):
        assert "last line" not in shown(app)
        await pilot.press("l")
        assert "last line" in shown(app)
        with run.console.open("a") as console:
            console.write(f"{HOSTILE} newest\n")
        await settle(app, pilot)
        assert f"{HARMLESS} newest" in shown(app)
        await pilot.press("l")
        assert "newest" not in shown(app)

    use([run], steps, size)


@at_both_sizes
def test_an_answer_is_seen_before_what_was_asked_for(run, size):
    async def steps(app, pilot):
        settings = {"optimizer.lr": 0.0001, "ema.lengths": [0.25, 0.75], "log.every": 50, "checkpoint.every": 1000}
        add(run.events, event(40, "request", action="set", settings=settings, result="refused: too late"))
        await settle(app, pilot)
        assert "40 set: refused: too late (opti" in shown(app)
        assert ("L Read in full" in shown(app)) == (size[0] == 160)
        assert "checkpoint.every=1000" not in shown(app)
        await pilot.press("L")
        await until(pilot, lambda: isinstance(app.screen, JournalScreen))
        await settle(app, pilot)
        assert "checkpoint.every=1000" in shown(app)

    use([run], steps, size)


@at_both_sizes
def test_it_is_frozen(run, size):
    async def steps(app, pilot):
        await pilot.press("z")
        assert "frozen" in shown(app)[:160]
        add(run.metrics, metrics(41, loss=0.0625))
        await settle(app, pilot)
        assert "0.0625" not in shown(app)
        await pilot.press("z")
        await settle(app, pilot)
        assert "0.0625" in shown(app)

    use([run], steps, size)


@at_both_sizes
def test_screens_are_opened_and_left(run, size):
    async def steps(app, pilot):
        for key, screen, back in (
            ("p", ProfileScreen, "p"),
            ("p", ProfileScreen, "escape"),
            ("i", SnapshotsScreen, "escape"),
            ("v", RecipeScreen, "escape"),
        ):
            await pilot.press(key)
            await until(pilot, lambda screen=screen: isinstance(app.screen, screen))
            await pilot.press(back)
            await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        await pilot.press("question_mark")
        await until(pilot, lambda: app.screen.query("HelpPanel KeyPanel"))
        keys = app.screen.query_one("HelpPanel KeyPanel")
        await until(pilot, lambda: keys.max_scroll_y)  # there is more than one page
        for key, reached in (
            ("pagedown", lambda: keys.scroll_y),
            ("pageup", lambda: not keys.scroll_y),
        ):
            await pilot.press(key)
            await until(pilot, reached)
        await pilot.press("question_mark")
        await until(pilot, lambda: not app.screen.query("HelpPanel"))
        await pilot.press("b")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        await pilot.press("escape")  # there is nothing before it
        assert isinstance(app.screen, RunsScreen)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        await pilot.press("q")
        assert app._exit

    use([run], steps, size)


@at_both_sizes
def test_requests_land_in_the_control_folder(run, size):
    async def steps(app, pilot):
        await pilot.press("c", "n", "space")
        assert requests(run) == [{"action": "checkpoint"}, {"action": "snapshot"}, {"action": "pause"}]
        assert len(app.said) == 3
        write_status(run, state="paused")
        await pilot.press("space")
        assert requests(run)[3:] == [{"action": "continue"}]
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        assert len(requests(run)) == 4
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: len(requests(run)) == 5)
        assert requests(run)[4:] == [{"action": "stop"}]

    use([run], steps, size)


async def give(app, pilot, settings: str) -> None:
    await pilot.press("e")
    await until(pilot, lambda: isinstance(app.screen, Ask))
    app.screen.query_one("Input").value = settings
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
    await pilot.pause()


@at_both_sizes
def test_settings_are_asked_for(run, size):
    async def steps(app, pilot):
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        assert app.screen.query_one("Input").value == "optimizer.lr=0.0002"
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        await give(app, pilot, "")
        assert requests(run) == []
        await give(app, pilot, " optimizer.lr=1e-4   ema.lengths=[0.25, 0.75] ")
        await until(pilot, lambda: requests(run))
        assert requests(run) == [{"action": "set", "settings": {"optimizer.lr": 1e-4, "ema.lengths": [0.25, 0.75]}}]

    use([run], steps, size)


@at_both_sizes
def test_the_learning_rate_that_is_in_force_is_offered(run, size):
    def given(step: int, lr: float, **more: object) -> dict:
        settings = {"optimizer.lr": lr, "log.every": 5}
        return event(step, "request", action="set", id=f"{step}", settings=settings, result="done", **more)

    async def offered(app, pilot) -> str:
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        value = app.screen.query_one("Input").value
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        return value

    async def steps(app, pilot):
        add(run.events, given(40, 1.2345678e-5), {**given(41, 1.0), "result": "refused: so"})
        assert await offered(app, pilot) == "optimizer.lr=1.2345678e-05"  # in full: enter alone changes nothing
        add(run.events, given(60, 3e-4), {"segment": 2, "first_step": 51})
        assert await offered(app, pilot) == "optimizer.lr=1.2345678e-05"  # superseded, and not made again yet
        add(run.events, given(60, 3e-4, replayed=True))
        assert await offered(app, pilot) == "optimizer.lr=0.0003"

    use([run], steps, size)


def test_settings_that_cannot_be_say_so_once_and_leave_nothing(run):
    wrong = [
        "optimizer.lr=-1",
        "optimizer.lr=nan",
        "lr=1",
        "train.steps=5",
        "x",
        "=",
        "optimizer.lr",
        "ema.lengths=[0.5]",
    ]

    async def steps(app, pilot):
        await pilot.press("e")
        for settings in wrong:
            await until(pilot, lambda: isinstance(app.screen, Ask))
            asked = app.screen
            asked.query_one("Input").value = settings
            await pilot.press("enter")
            await until(pilot, lambda asked=asked: isinstance(app.screen, Ask) and app.screen is not asked)
            await until(pilot, lambda: app.screen.query(".hint"))
            hint = str(app.screen.query_one(".hint").render())
            assert "live·000a" in hint or settings in hint
            assert app.screen.query_one("Input").value == settings  # what was typed is kept
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        assert app.said == []
        assert requests(run) == []

    use([run], steps, (80, 24))


def test_what_is_not_live_gets_no_requests(run):
    async def steps(app, pilot):
        write_status(run, state="finished")
        await pilot.press("c", "n", "space", "e", "S")
        await pilot.pause()
        assert app.said == ["live·000a is not live: finished"] * 5
        assert isinstance(app.screen, DashboardScreen)
        write_status(run)
        shutil.rmtree(run.control)
        await pilot.press("c")
        assert "control" in app.said[-1]
        assert "cannot be written" in app.said[-1]
        run.recipe.write_text("broken")
        app.screen.view.recipe = None
        await pilot.press("e")
        assert app.said[-1] == "live·000a: recipe.toml cannot be read"

    use([run], steps, (80, 24))


def drawings(monkeypatch) -> list[str]:
    """Note which widget is drawn anew, from here on."""
    drawn: list[str] = []
    refresh = GridWidget.refresh

    def noted(self, *regions, **options):
        drawn.append(f"{self.id}")
        return refresh(self, *regions, **options)

    monkeypatch.setattr(GridWidget, "refresh", noted)
    return drawn


@at_both_sizes
def test_nothing_is_drawn_where_nothing_changed(run, size, monkeypatch):
    async def steps(app, pilot):
        app.screen._next_system = 1e12  # the machine does change
        await settle(app, pilot)
        await settle(app, pilot)
        drawn, before = drawings(monkeypatch), app.traffic.total
        write_status(run)  # a heartbeat
        for _ in range(5):
            await settle(app, pilot)
        assert drawn == []
        assert app.traffic.total == before
        add(run.metrics, metrics(41, loss=4 / 40))
        await settle(app, pilot)
        assert "chart-0" in drawn
        assert "waterfall" not in drawn

    use([run], steps, size)


@pytest.mark.parametrize("size", [*SIZES, (120, 40)])
def test_a_run_of_another_machine_has_no_load_of_this_one(tmp_path, size):
    async def steps(app, pilot):
        assert app.screen.loads == []
        assert "CPU" not in shown(app)
        assert shown(app).count("trains on elsewhere") == 1

    use([live_run(tmp_path, host="elsewhere")], steps, size)


@pytest.mark.parametrize("size", [*SIZES, (120, 40)])
def test_the_machine_is_seen_at_any_size_while_the_run_moves(run, size, monkeypatch):
    monkeypatch.setattr(System, "look", lambda self, gpu_ids=None: [Load("CPU", 0.25, 3 * 2**30, 24 * 2**30)])

    async def steps(app, pilot):
        short, long = "CPU 25% 3/24 GiB", "CPU    ━━━─────────  25%"
        assert (short in shown(app), long in shown(app)) == (size[0] < 140, size[0] >= 140)
        await pilot.resize_terminal(*((80, 24) if size[0] >= 140 else (160, 45)))
        await pilot.pause()
        await pilot.pause()
        assert (short in shown(app), long in shown(app)) == (size[0] >= 140, size[0] < 140)
        write_status(run, state="paused")
        await settle(app, pilot)
        assert "CPU" not in shown(app)
        assert not app.screen.query_one("#system").region  # the journal has its room

    use([run], steps, size)


@at_both_sizes
def test_names_and_texts_may_hold_anything(tmp_path, size):
    run = live_run(tmp_path, f"a{HOSTILE.replace('/', '')}b", state=HOSTILE)
    add(run.metrics, metrics(41, **{HOSTILE: 1.0}))
    add(run.events, event(41, HOSTILE), event(41, "warning", text=HOSTILE), event(42, "failed", error=HOSTILE))

    async def steps(app, pilot):
        text = shown(app)
        assert f"42 failed: {HARMLESS[:11]}" in text
        name = "a" + HARMLESS.replace("/", "") + "b"
        assert (name if size[0] == 160 else f"{name[:21]}…{name[-4:]}") in text
        await pilot.press("S", "slash", *"x", "enter")
        await pilot.pause()
        for line in shown(app).split("\n"):
            assert line.isprintable()
        for said in app.said:
            assert said.isprintable()

    use([run], steps, size)


@at_both_sizes
def test_files_may_vanish_or_be_damaged_while_they_are_seen(run, size):
    def damage() -> None:
        run.meta.write_bytes(b'{"profile_edges": 3}')
        run.recipe.write_bytes(b"\xff")
        add(run.metrics, {"step": "x"}, metrics(41, loss=[1]), b'{"step": 42, "ti')
        add(run.profiles, profile(50, bins=3, loss=["x"]), profile(51, bins=5, anatomy_stable=[1.0]))
        add(run.events, {"kind": 3}, event(41, "snapshot", files=3), event(42, "request", settings=1))
        run.status.write_bytes(to_json({"state": "running", "of": "x", "best": {"sw_1step": {"value": "x"}}}))

    def cut() -> None:
        run.status.write_bytes(b'{"state": 3, "best"')
        run.console.unlink()
        run.metrics.unlink()

    async def steps(app, pilot):
        for do in (damage, cut, lambda: shutil.rmtree(run.path)):
            await pilot.press("p", "m", "2")
            await until(pilot, lambda: isinstance(app.screen, ProfileScreen))
            do()
            await settle(app, pilot)
            await pilot.press("w", "3", "p")
            await settle(app, pilot)
            await pilot.press("w", "x", "l")
        for key in ("c", "space", "e", "S", "v", "escape", "i", "escape", "right_square_bracket", "1", "left"):
            await pilot.press(key)
        await pilot.pause()
        assert any(titles(app))

    use([run], steps, size)


@at_both_sizes
def test_a_run_whose_folder_vanishes_stays_as_it_was_seen(run, size):
    async def steps(app, pilot):
        shutil.rmtree(run.path)
        await settle(app, pilot)
        assert "✖ folder is gone" in shown(app).split("\n")[0]
        assert "40/1" in shown(app).split("\n")[0]
        assert "trains on" not in shown(app)
        await pilot.press("c")
        assert app.said == ["live·000a is not live: gone"]

    use([run], steps, size)


def test_every_theme_has_every_colour(run):
    async def steps(app, pilot):
        chart = app.screen.query_one("#chart-0")
        for theme in themes():
            app.theme = theme.name
            await pilot.pause()
            assert len({chart.style(f"line-{i}").color for i in range(8)}) >= 7
            assert "loss" in shown(app)

    use([run], steps, (80, 24))


def test_a_theme_is_changed_while_it_is_seen(run):
    async def steps(app, pilot):
        chart = app.screen.query_one("#chart-0")
        colours = []
        for theme in ("textual-dark", "colour-blind", "textual-light", "ansi-dark"):
            app.theme = theme
            await pilot.pause()
            colours.append((chart.style("line-0").color, chart.style("good").color))
        assert len(set(colours)) == 4
        await pilot.press("T")
        await pilot.pause()
        assert "CommandPalette" in type(app.screen).__name__

    use([run], steps)


@pytest.mark.parametrize(("term", "theme"), [("xterm-256color", "textual-dark"), ("xterm", "ansi-dark")])
@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_has_the_colours_that_it_can_show(run, monkeypatch, term, theme, no_color):
    monkeypatch.setenv("TERM", term)
    monkeypatch.delenv("COLORTERM", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")

    async def steps(app, pilot):
        assert titles(app) == FIRST
        assert app.theme == ("ansi-dark" if no_color else theme)
        styles = [segment.style for strip in app.screen._compositor.render_strips() for segment in strip]
        colours = {colour for style in styles if style for colour in (style.color, style.bgcolor)}
        assert all(colour is None or colour.is_default for colour in colours) == no_color
        if theme == "ansi-dark":
            assert all(colour is None or colour.number is None or colour.number < 16 for colour in colours)
            assert not any(colour and colour.triplet for colour in colours)
        else:
            assert len(colours) > 5 or no_color

    use([run], steps)


@pytest.mark.parametrize("size", [(160, 45), (80, 24)])
def test_plain_characters_alone(tmp_path, size):
    run = live_run(tmp_path, "run…ünï—北京·\x1b")
    run.console.write_text("北京 é\x1b\n")
    other = live_run(tmp_path)

    async def steps(app, pilot):
        async def look(*keys: str) -> None:
            await pilot.press(*keys)
            await settle(app, pilot)
            text = shown(app)
            assert text.isascii(), {c for c in text if ord(c) > 127}
            widths = {len(line) for line in text.split("\n")}
            assert widths == {size[0]}

        await look("l")
        await look("y", "left", "x")
        for keys in (["p"], ["r", "left"], ["p"], ["S"], ["n"], ["k"], ["escape"], ["slash"], ["escape"], ["i"]):
            await look(*keys)
        for keys in (["escape"], ["v"], ["tab"], ["escape"], ["question_mark"], ["question_mark"], ["T"], ["escape"]):
            await look(*keys)
        await look("b")
        await look("f", "x")
        app.compare_runs([run, other])
        await settle(app, pilot)
        await look("d")
        assert isinstance(app.screen, CompareScreen)

    use([run], steps, size, ascii=True)


def test_other_sizes_while_it_runs(run):
    async def steps(app, pilot):
        for i, (width, height) in enumerate([(300, 80), (40, 10), (80, 24), (20, 5), (1, 1), (300, 80), (160, 45)]):
            await pilot.resize_terminal(width, height)
            add(run.metrics, metrics(41 + i))
            add(run.profiles, profile(50 + i))
            await settle(app, pilot)
            lines = shown(app).split("\n")
            assert (len(lines), {len(line) for line in lines}) == (height, {width})
            if (width, height) == (40, 10):
                assert app.focused.region.height >= 7  # the chart has what there is
                assert not app.screen.query_one("#sparks").region
            for widget in on_screen(app):
                if widget._grid is not None and widget.size.area:
                    assert widget._grid.styles.shape == (widget.size.height, widget.size.width)
        assert len([chart for chart in app.screen.query(Chart) if chart.region]) == 6
        assert app.screen.query_one(Footer).region.y == 44
        assert app.screen.query_one("#header", Lines).region.width == 160

    use([run], steps)


def test_the_newest_lines_are_seen_at_any_size(run):
    add(run.events, *(event(40 + i, "request", action="pause", result="done") for i in range(60)))

    async def steps(app, pilot):
        for size in [(80, 24), (160, 60), (80, 24)]:
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert "99 pause: done" in shown(app)
            assert ("90 pause: done" in shown(app)) == (size[1] == 60)

    use([run], steps)


@pytest.mark.parametrize(("state", "looks"), [("running", 6), ("paused", 2)])
def test_a_run_that_is_still_is_looked_at_seldom(run, monkeypatch, state, looks):
    write_status(run, state=state)

    async def steps(app, pilot):
        found, now = [], time.monotonic()
        with monkeypatch.context() as clock:
            clock.setattr(app.screen, "poll", lambda: found.append(0))
            for i in range(6):  # half a second apart
                clock.setattr(time, "monotonic", lambda i=i: now + 100 + i / 2)
                app.screen.tick()
        assert len(found) == looks

    use([run], steps)


def test_the_filter_finds_titles_too_and_pins_come_first(run):
    async def steps(app, pilot):
        app.screen.pattern = "gradient"
        assert app.screen.names() == [["grad_norm"]]
        app.screen.pattern = "SLICED"
        assert app.screen.names() == [["sw_1step"], ["sw_2step"]]
        app.screen.pattern = ""
        await pilot.press("4", "P")
        await pilot.pause()
        assert titles(app)[:2] == ["weight", "loss"]
        assert app.screen.charts.charts[0].note.startswith("pinned")
        await pilot.press("1", "P")
        await pilot.pause()
        assert titles(app) == FIRST
        assert app.kept.charts.pins == ()

    use([run], steps)


def test_a_large_window_holds_more_charts_and_gives_them_back(run):
    async def steps(app, pilot):
        grid = app.screen.charts
        assert len(grid.charts) == 6
        await pilot.resize_terminal(300, 80)
        await settle(app, pilot)
        assert len(grid.charts) == 15
        shown_titles = [title_of(keys) for keys in charts(app.screen.view.keys)]
        assert titles(app) == [*shown_titles, *[""] * (15 - len(shown_titles))]
        assert all(chart.region.height >= 15 and chart.region.width >= 56 for chart in grid.charts)
        grid.choose(grid.charts[12])
        await pilot.press("enter")
        await settle(app, pilot)
        assert sum(bool(chart.region) for chart in grid.charts) == 1
        await pilot.press("enter")
        await pilot.resize_terminal(160, 45)
        await settle(app, pilot)
        assert len(grid.charts) == 6
        assert all(chart.region for chart in grid.charts)
        assert sum(chart.has_class("chosen") for chart in grid.charts) == 1
        await pilot.resize_terminal(80, 24)
        await settle(app, pilot)
        assert sum(bool(chart.region) for chart in grid.charts) == 1

    use([run], steps)


def test_all_charts_show_one_part_of_the_axis(run):
    async def steps(app, pilot):
        await pilot.press("plus", "less_than_sign")
        await pilot.pause()
        ends = {chart.window.x_ends() for chart in app.screen.charts.charts}
        assert len(ends) == 1
        assert ends != {app.focused.window.whole_x()}
        await pilot.press("0")
        await pilot.pause()
        assert {chart.window.x_ends() for chart in app.screen.charts.charts} == {app.focused.window.whole_x()}

    use([run], steps)


def test_panels_with_nothing_to_show_give_up_their_room(run):
    async def steps(app, pilot):
        journal = app.screen.query_one("#journal")
        narrow = journal.region.width
        assert app.screen.query_one("#system").region
        write_status(run, state="stopped")
        await settle(app, pilot)
        assert not app.screen.query_one("#system").region
        assert journal.region.width > narrow

    use([run], steps)


def test_a_run_without_profiles_has_no_waterfall(run):
    run.profiles.unlink()
    write_status(run, state="stopped")

    async def steps(app, pilot):
        assert not app.screen.query_one(Waterfall).region
        assert app.screen.query_one("#journal").region.width == 160

    use([run], steps)
