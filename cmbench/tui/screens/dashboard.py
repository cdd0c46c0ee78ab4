"""The dashboard of one run: header, charts, waterfall, system, journal."""

import re
import time
from collections.abc import Sequence

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Grid, Horizontal
from textual.widgets import Footer, Input
from textual.worker import get_current_worker

from cmbench.recipe import Recipe
from cmbench.rundir.layout import RunDir
from cmbench.tui import report
from cmbench.tui.report import CHARTS
from cmbench.tui.scales import Scale, duration, number
from cmbench.tui.screens._run import RunScreen
from cmbench.tui.system import Load, System
from cmbench.tui.view import AXES, RunView
from cmbench.tui.widgets.chart import Chart
from cmbench.tui.widgets.line import Lines
from cmbench.tui.widgets.waterfall import Waterfall

_SYSTEM_EVERY = 2.0  # seconds
_WATERFALLS = ("tangent_norm", "weight", "loss", "true_error")


class DashboardScreen(RunScreen):
    """What a run does, live."""

    BINDINGS = [
        Binding("p", "profile", "Time profile", id="dashboard.profile"),
        Binding("i", "snapshots", "Snapshots", id="dashboard.snapshots"),
        Binding("b", "runs", "Runs", id="dashboard.runs"),
        Binding("v", "recipe", "Recipe", id="dashboard.recipe", show=False),
        Binding("left_square_bracket", "page(-1)", "Charts before", id="dashboard.page_before", show=False),
        Binding("right_square_bracket", "page(1)", "More charts", id="dashboard.page_after"),
        *(
            Binding(str(i), f"focus_chart({i - 1})", f"Chart {i}", id=f"dashboard.chart_{i}", show=False)
            for i in range(1, CHARTS + 1)
        ),
        Binding("enter", "enlarge", "Enlarge", id="dashboard.enlarge", show=False),
        Binding("x", "axis", "x axis", id="dashboard.axis"),
        Binding("slash", "filter", "Filter", id="dashboard.filter", show=False),
        Binding("w", "waterfall", "Waterfall of", id="dashboard.waterfall", show=False),
        Binding("l", "console", "Journal / console", id="dashboard.console", show=False),
        Binding("z", "freeze", "Freeze", id="dashboard.freeze", show=False),
    ]

    def __init__(self, run: RunDir) -> None:
        super().__init__(run)
        self.view = RunView(run)
        self.system = System()
        self.loads: list[Load] = []
        self.axis, self.page, self.pattern = AXES[0], 0, ""
        self.waterfall_of = 0
        self.shows_console, self.is_frozen = False, False
        self._rate, self._next_system = 0.0, 0.0

    @property
    def recipe(self) -> Recipe | None:
        """The run's recipe."""
        return self.view.recipe

    def compose(self) -> ComposeResult:
        """Lay out the parts; the style sheet says where each goes at which size."""
        yield Lines(id="header")
        with Grid(id="charts"):
            for i in range(CHARTS):
                yield Chart("", id=f"chart-{i}")
        yield Lines(id="sparks")
        with Horizontal(id="below"):
            yield Waterfall("", id="waterfall")
            yield Lines("system", id="system")
            yield Lines("journal", id="journal")
        yield Input(placeholder="regular expression for names of metrics; empty: the usual six", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to read."""
        self.query_one("#filter").display = False
        self.query_one("#chart-0").focus()
        self.poll()
        self.set_interval(self.bench.poll_seconds, self.poll)

    @work(thread=True, exclusive=True, group="read")
    def read_on(self) -> None:
        """Read what is new, piece by piece, and let the screen show it."""
        worker = get_current_worker()
        while not worker.is_cancelled:
            changed = self.view.read()
            if time.monotonic() >= self._next_system and not self.view.is_still:
                self._next_system = time.monotonic() + _SYSTEM_EVERY
                loads = self.system.look()
                changed |= {"system"} if loads != self.loads else set()
                self.loads = loads
            if changed and not worker.is_cancelled:
                self.app.call_from_thread(self.show, changed)
            if not self.view.series.behind:
                return

    def poll(self) -> None:
        """Look at the files, unless the last look still goes on or nobody sees this screen."""
        if self.is_active and not self.is_frozen and not any(w.is_running for w in self.workers if w.group == "read"):
            self.read_on()

    def show(self, changed: set[str]) -> None:
        """Draw what changed; what did not costs nothing."""
        if not self.is_mounted or not self.is_active:
            return
        if "rows" in changed or "recipe" in changed:
            self._show_charts()
            self._show_waterfall()
        self._show_header()
        if changed & {"rows", "console"}:
            self._show_journal()
        if "system" in changed or "status" in changed:
            self.query_one("#system", Lines).show(report.system(self.loads, self.bench.ascii))

    def on_screen_resume(self) -> None:
        """Draw everything when the screen is seen again."""
        self.call_after_refresh(self.show, {"rows", "status", "system", "console"})

    def names(self) -> list[list[str]]:
        """Return the metrics of each chart: the usual ones, or those that the filter finds."""
        if not self.pattern:
            return report.charts_of(self.view.keys)
        return [[key] for key in self.view.keys if re.search(self.pattern, key)]

    def _show_charts(self) -> None:
        names = self.names()
        pages = max(1, -(-len(names) // CHARTS))
        self.page %= pages
        marks = self.view.marks(self.axis)
        end = self.view.x_end(self.axis)
        for i, chart in enumerate(self.query(Chart)):
            keys = names[self.page * CHARTS + i] if self.page * CHARTS + i < len(names) else []
            lines = [self.view.line(key, self.axis, colour) for colour, key in enumerate(keys)]
            title = report.title_of(keys)
            if chart.title != title:
                chart.begin(title, Scale(report.scale_of(lines[0]) if lines else "linear"))
            chart.x_end, chart.x_label = end, duration if self.axis == "time" else number
            chart.note = report.note_of(self.view, keys)
            chart.show(lines, marks)
        self.query_one("#sparks", Lines).show(report.sparks(self.view, names, self.bench.ascii))

    def _show_waterfall(self) -> None:
        waterfall, profiles = self.query_one(Waterfall), self.view.series.profiles
        known = [key for key in _WATERFALLS if key in profiles.rows]
        if not known:
            return
        key = known[self.waterfall_of % len(known)]
        waterfall.title, waterfall.t_label = f"{report.NAMES.get(key, key)} over t, steps down", self.t_label
        waterfall.show(profiles.rows[key])

    def t_label(self, edge: int) -> str:
        """Return the time at an edge between bins."""
        edges = self.view.edges
        return number(edges[edge]) if edge < len(edges) else str(edge)

    def _show_header(self) -> None:
        self._rate = 0.7 * self._rate + 0.3 * self.bench.traffic.rate()
        self.query_one("#header", Lines).show(report.header(self.view, self._rate, self.is_frozen, self.bench.ascii))

    def _show_journal(self) -> None:
        journal = self.query_one("#journal", Lines)
        rows = max(1, journal.inner_height)
        if self.shows_console:
            lines: Sequence[report.Row] = [[(line, "")] for line in self.view.console()[-rows:]]
        else:
            lines = report.journal(list(self.view.series.journal.rows)[-rows:])
        journal.frame_title = "console" if self.shows_console else "journal"
        journal.show(lines)

    def action_page(self, step: int) -> None:
        """Show other metrics; where there is room for one chart alone, the next one."""
        if self.has_class("-narrow") or self.has_class("enlarged"):
            charts = [chart for chart in self.query(Chart) if chart.title]
            focused = next((i for i, chart in enumerate(charts) if chart.has_focus), 0)
            if 0 <= focused + step < len(charts):
                self._focus(charts[focused + step])
                return
        self.page += step
        self._show_charts()
        charts = list(self.query(Chart))
        self._focus(charts[0 if step > 0 else -1])

    def action_focus_chart(self, index: int) -> None:
        """Go to a chart by its number."""
        self._focus(self.query(Chart)[index])

    def _focus(self, chart: Chart) -> None:
        chart.focus()
        for each in self.query(Chart):
            each.set_class(each is chart, "chosen")
        self.call_after_refresh(chart.repaint)

    def on_descendant_focus(self) -> None:
        """Where one chart is shown, it is the focused one."""
        if isinstance(self.focused, Chart):
            for chart in self.query(Chart):
                chart.set_class(chart is self.focused, "chosen")

    def action_enlarge(self) -> None:
        """Give the focused chart the whole room, or give it back."""
        self.toggle_class("enlarged")

    def action_axis(self) -> None:
        """Go on to the next horizontal axis: steps, images, wall time."""
        self.axis = AXES[(AXES.index(self.axis) + 1) % len(AXES)]
        for chart in self.query(Chart):
            chart.forget_x()
        self._show_charts()
        self.notify(f"x axis: {self.axis}", timeout=2)

    def on_chart_cursor_moved(self, event: Chart.CursorMoved) -> None:
        """Let all charts have one cursor."""
        for chart in self.query(Chart):
            if chart is not event.chart:
                chart.set_cursor(event.x, tell=False)

    def action_filter(self) -> None:
        """Ask for names of metrics."""
        entry = self.query_one("#filter", Input)
        entry.display = True
        entry.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Show the metrics that the expression finds, or say what is wrong with it."""
        try:
            re.compile(event.value)
        except re.error as error:
            self.notify(f"{event.value}: {error}", severity="error", markup=False)
            return
        self.pattern, self.page = event.value, 0
        event.input.display = False
        self.query_one("#chart-0").focus()
        self._show_charts()

    def action_waterfall(self) -> None:
        """Show the next quantity over time."""
        self.waterfall_of += 1
        self._show_waterfall()

    def action_console(self) -> None:
        """Show what the trainer printed in place of the journal, or the journal again."""
        self.shows_console = not self.shows_console
        self._show_journal()

    def action_freeze(self) -> None:
        """Stop reading, or go on. The run does not care."""
        self.is_frozen = not self.is_frozen
        self._show_header()

    def action_profile(self) -> None:
        """Open the time profile."""
        from cmbench.tui.screens.profile import ProfileScreen

        self.app.push_screen(ProfileScreen(self.view))

    def action_snapshots(self) -> None:
        """Open the pictures."""
        from cmbench.tui.screens.snapshots import SnapshotsScreen

        self.app.push_screen(SnapshotsScreen(self.run))

    def action_recipe(self) -> None:
        """Open the recipe."""
        from cmbench.tui.screens.recipe import RecipeScreen

        self.app.push_screen(RecipeScreen(self.run))

    def action_runs(self) -> None:
        """Go back to all runs."""
        self.app.pop_screen()
