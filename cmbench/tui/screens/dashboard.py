"""The dashboard of one run: header, charts, waterfall, system, journal."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal

from cmbench import quantities
from cmbench.recipe import Recipe
from cmbench.rundir import parents
from cmbench.rundir.layout import RunDir
from cmbench.tui.screens import _forking as forking
from cmbench.tui.screens._run import RunScreen
from cmbench.tui.screens.base import ChartsScreen
from cmbench.tui.system import Load, System, load_line, load_rows
from cmbench.tui.widgets.chart import Chart
from cmbench.tui.widgets.chart_grid import ChartGrid
from cmbench.tui.widgets.key_bar import KeyBar
from cmbench.tui.widgets.line import Lines
from cmbench.tui.widgets.metric_filter import MetricFilter
from cmbench.tui.widgets.waterfall import Waterfall
from cmbench.views import report
from cmbench.views.lines import GREY, Line
from cmbench.views.report import CHARTS
from cmbench.views.run import RunView
from cmbench.words.numbers import number

_SYSTEM_EVERY = 2.0  # seconds
_LINES = 100  # of the journal or the console: more than fit on any screen


class DashboardScreen(ChartsScreen, RunScreen):
    """One run, live."""

    BINDINGS = [
        Binding("p", "profile", "Time profile", id="dashboard.profile"),
        Binding("i", "snapshots", "Snapshots", id="dashboard.snapshots"),
        Binding("b", "app.back", "Runs", id="dashboard.runs"),
        Binding("v", "recipe", "Recipe", id="dashboard.recipe", show=False),
        Binding("left_square_bracket", "page(-1)", "Charts before", id="dashboard.page_before", show=False),
        Binding("right_square_bracket", "page(1)", "More charts", id="dashboard.page_after"),
        *(
            Binding(str(i), f"focus_chart({i - 1})", f"Chart {i}", id=f"dashboard.chart_{i}", show=False)
            for i in range(1, 10)
        ),
        Binding("enter", "enlarge", "Enlarge", id="dashboard.enlarge", show=False),
        Binding("x", "axis", "x axis", id="dashboard.axis"),
        Binding("K", "fork", "Fork a child run", id="dashboard.fork", show=False),
        Binding("slash", "filter", "Filter", id="dashboard.filter", show=False),
        Binding("P", "pin", "Pin this chart", id="dashboard.pin", show=False),
        Binding("w", "waterfall", "Waterfall quantity", id="dashboard.waterfall", show=False),
        Binding("l", "console", "Journal / console", id="dashboard.console", show=False),
        Binding("L", "journal", "Read in full", id="dashboard.journal"),
        Binding("z", "freeze", "Freeze", id="dashboard.freeze", show=False),
    ]

    def __init__(self, run: RunDir) -> None:
        super().__init__(run)
        self.view = RunView(run)
        self.parent_view: RunView | None = None  # the run that this one was forked from
        self.charts = ChartGrid(CHARTS, self._lines_of, self._note_of, self.view.bands, id="charts")
        self.loads: list[Load] = []
        self.pattern, self.waterfall_of = "", 0
        self.shows_console, self.is_frozen = False, False
        self._next_system = 0.0
        self._is_over = False  # when the screen was last drawn

    @property
    def is_still(self) -> bool:
        """Whether the run is paused or over."""
        return self.view.is_still

    @property
    def recipe(self) -> Recipe | None:
        """The run's recipe."""
        return self.view.recipe

    @cached_property
    def system(self) -> System:
        """The machine; created in the reading thread, because drivers are slow to start."""
        return System()

    def compose(self) -> ComposeResult:
        """Lay out the parts; the style sheet places them for each size."""
        yield Lines(id="header", whole=True)
        yield self.charts
        yield Lines(id="sparks")
        with Horizontal(id="below"):
            yield Waterfall("", id="waterfall")
            yield Lines("system", id="system")
            yield Lines("journal", tail=True, id="journal")
        yield MetricFilter(id="filter")
        yield KeyBar("profile", "snapshots", "app.back", "pause", "request('checkpoint')", "stop", "journal")

    def on_mount(self) -> None:
        """Begin to read, with the filter as the user left it."""
        self.pattern = self.query_one(MetricFilter).pattern = self.bench.kept.charts.pattern
        self.charts.charts[0].focus()
        self.follow()

    def poll(self) -> None:
        """Read the files, unless the user has frozen the screen."""
        if not self.is_frozen:
            super().poll()

    @property
    def is_behind(self) -> bool:
        """Whether there are more rows to read."""
        return any(view.series.behind for view in (self.view, self.parent_view) if view)

    def read_piece(self) -> Callable[[], None] | None:
        """Read what is new, and the load of the machine if the trainer runs on it."""
        changed = self.view.read()
        if "recipe" in changed and self.parent_view is None and (parent := parents.of_meta(self.run, self.view.meta)):
            self.parent_view = RunView(parent.run)
        if self.parent_view is not None:
            changed |= self.parent_view.read() & {"rows"}
        before = self.loads
        if self.view.is_still or not self.view.is_here:
            self.loads = []
        elif time.monotonic() >= self._next_system:
            self._next_system = time.monotonic() + _SYSTEM_EVERY
            self.loads = self.system.look(self.view.status.get("gpu_ids"))
        changed |= {"system"} if self.loads != before else set()
        return partial(self.show, changed) if changed else None

    def show(self, changed: set[str]) -> None:
        """Draw what changed, if the screen is visible. Unchanged parts cost nothing."""
        if not self.is_active:
            return
        was_over, self._is_over = self._is_over, self.view.is_over
        if changed & {"rows", "recipe"} or was_over != self._is_over or self.has_class("waiting"):
            self.show_charts()
            self._show_waterfall()
            if not self._is_over:
                self.rest()
        self._show_header()
        if changed & {"rows", "console"}:
            self._show_journal()
        if changed & {"system", "status"}:
            self._show_system()

    def on_screen_resume(self) -> None:
        """Draw everything when the screen is visible again."""
        self.call_after_refresh(self.show, {"rows", "status", "system", "console"})

    def names(self) -> list[list[str]]:
        """Return the metrics of each chart: the usual ones, or those that match the filter."""
        if not self.pattern:
            return report.pinned_first(quantities.charts(self.view.keys), self.bench.kept.charts.pins)
        return report.found_by(self.view.keys, self.pattern)

    def show_charts(self) -> None:
        """Draw the charts of this page."""
        waits, axis = report.first_row(self.view), self.charts.axis
        names = [] if waits else self.names()  # the machine's rows come before the first of metrics
        end, start, is_over = self.view.x_end(axis), self.view.x_start(axis), self.view.is_over
        self.set_class(bool(waits), "waiting")  # then one chart takes the whole room
        for chart in self.charts.charts:
            chart.instead = waits
        self.charts.show(names, self.view.marks(axis), end, start, is_still=is_over)
        self.query_one("#sparks", Lines).show(report.sparks(self.view, names, self.bench.ascii))

    def _lines_of(self, keys: Sequence[str]) -> list[Line]:
        axis, behind = self.charts.axis, list[Line]()
        if self.parent_view is not None:
            known = self.parent_view.keys
            behind = [self.parent_view.line(key, axis, GREY, label=f"parent {key}") for key in keys if key in known]
        return [*behind, *(self.view.line(key, axis, colour) for colour, key in enumerate(keys))]

    def _note_of(self, keys: Sequence[str]) -> str:
        """Return the last values of a chart, or a note that no metric matches the filter."""
        if self.pattern and not self.names():
            return f"no metric matches /{self.pattern}/"
        pinned = "pinned  " if set(keys) & set(self.bench.kept.charts.pins) else ""
        return pinned + report.note_of(self.view, keys, self.bench.ascii)

    def action_pin(self) -> None:
        """Pin the focused chart, so that it comes first, or unpin it."""
        titles = {quantities.title_of(keys): keys for keys in self.names()}
        keys = titles.get(getattr(self.focused, "title", ""))
        if keys is None:
            return
        pins = self.bench.kept.charts.pins
        self.bench.kept.keep_charts(pins=tuple(pin for pin in pins if pin not in keys) or ())
        if not set(keys) & set(pins):
            self.bench.kept.keep_charts(pins=(*pins, keys[0]))
        self.show_charts()

    def _show_waterfall(self) -> None:
        waterfall, rows = self.query_one(Waterfall), self.view.series.profiles.rows
        known = quantities.over_time(key for key in list(rows) if rows.get(key))
        self.set_class(not known and self.view.is_over, "no-waterfall")
        if not known:
            return
        key = known[self.waterfall_of % len(known)]
        waterfall.title, waterfall.t_label = f"{quantities.title(key)} over t, steps down", self.t_label
        waterfall.edges, waterfall.is_signed = self.view.edges, quantities.is_signed(key)
        waterfall.show(rows[key], self.view.is_over)

    def t_label(self, edge: int) -> str:
        """Return the time at an edge between bins."""
        edges = self.view.edges
        return number(edges[edge]) if edge < len(edges) else str(edge)

    def _show_header(self) -> None:
        rate = self.bench.traffic.rate()
        self.query_one("#header", Lines).show(
            lambda width: report.header(self.view, rate, self.is_frozen, self.bench.ascii, width, self.pattern)
        )

    def _show_system(self) -> None:
        """Draw the machine's load; without room, or for a trainer elsewhere, in the lower edge of the journal."""
        host = self.view.status.get("host")
        elsewhere = "" if self.view.is_here or not host else f"trains on {host}"
        is_seen = not self.view.is_still and not elsewhere
        self.set_class(not is_seen, "no-system")
        self.query_one("#system", Lines).show(load_rows(self.loads, self.bench.ascii))
        journal = self.query_one("#journal", Lines)
        journal.frame_note = "" if self.has_class("-wide") and is_seen else elsewhere or load_line(self.loads)
        journal.repaint()

    def on_resize(self) -> None:
        """Show the machine's load in the place that has room now."""
        self.call_after_refresh(self._show_system)

    def _show_journal(self) -> None:
        journal = self.query_one("#journal", Lines)
        journal.frame_title = "console" if self.shows_console else "journal"
        journal.show(report.lines_of(self.view, self.shows_console, _LINES))

    def action_focus_chart(self, index: int) -> None:
        """Go to a chart by its number."""
        if index < len(self.charts.charts):
            self.charts.choose(self.charts.charts[index])

    def action_enlarge(self) -> None:
        """Open the spike at the cursor. If there is none, enlarge the focused chart or restore it."""
        ends = self.focused.around_cursor() if isinstance(self.focused, Chart) else None
        if ends and (row := self.view.spike_at(self.charts.axis, *ends)):
            from cmbench.tui.screens.spike import SpikeScreen

            self.app.push_screen(SpikeScreen(self.view, row))
        else:
            super().action_enlarge()

    @work
    async def action_fork(self) -> None:
        """Ask for settings, and start a child from the last checkpoint up to the cursor; without one, the newest."""
        cursor = self.focused.cursor if isinstance(self.focused, Chart) else None
        step = None if cursor is None else self.view.step_at(self.charts.axis, cursor)
        if child := await forking.ask(self, self.view, step):
            self.bench.open_run(child)

    def step_back(self) -> bool:
        """Close the filter line, or restore an enlarged chart. Return whether there was either."""
        line = self.query_one(MetricFilter)
        if line.display:
            line.action_leave()
        elif self.has_class("enlarged"):
            self.remove_class("enlarged")
        else:
            return False
        return True

    def action_filter(self) -> None:
        """Open the filter line for metrics."""
        self.query_one(MetricFilter).open()

    def on_metric_filter_chosen(self, event: MetricFilter.Chosen) -> None:
        """Show the metrics that match the expression."""
        self.charts.turn_to(1)
        if event.pattern is not None:
            self.pattern, self.charts.page = event.pattern, 0
            self.bench.kept.keep_charts(pattern=event.pattern)
            self.show_charts()
            self._show_header()

    def action_waterfall(self) -> None:
        """Show the next quantity over time."""
        self.waterfall_of += 1
        self.query_one(Waterfall).forget_limits()
        self._show_waterfall()

    def action_console(self) -> None:
        """Switch between the journal and the trainer's output."""
        self.shows_console = not self.shows_console
        self._show_journal()

    def action_freeze(self) -> None:
        """Stop reading, or continue. The run itself is not affected."""
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

    def action_journal(self) -> None:
        """Open the journal or the trainer's output over the whole screen."""
        from cmbench.tui.screens.journal import JournalScreen

        self.app.push_screen(JournalScreen(self.view, self.shows_console))

    def action_recipe(self) -> None:
        """Open the recipe."""
        from cmbench.tui.screens.recipe import RecipeScreen

        self.app.push_screen(RecipeScreen(self.run))
