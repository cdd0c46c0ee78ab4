"""Runs beside each other: curves over one axis, the keys in which their recipes differ, last and best values."""

import time
from collections.abc import Sequence
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Grid, Horizontal, Vertical
from textual.widgets import DataTable, Footer
from textual.worker import get_current_worker

from cmbench import recipe as recipes
from cmbench.rundir.comparison import letter
from cmbench.rundir.layout import RunDir
from cmbench.tui import report
from cmbench.tui.canvas import DASHES
from cmbench.tui.scales import Scale, duration, number
from cmbench.tui.screens._base import BenchScreen
from cmbench.tui.text import cell
from cmbench.tui.view import AXES, RunView
from cmbench.tui.widgets.chart import LINES, Chart, Line
from cmbench.tui.widgets.line import Lines

_CHARTS = 4


class CompareScreen(BenchScreen):
    """Several runs at once."""

    BINDINGS = [
        Binding("x", "axis", "x axis", id="compare.axis"),
        Binding("left_square_bracket", "page(-1)", "Charts before", id="compare.page_before", show=False),
        Binding("right_square_bracket", "page(1)", "More charts", id="compare.page_after"),
        Binding("enter", "enlarge", "Enlarge", id="compare.enlarge", show=False),
        Binding("d", "tables", "Tables", id="compare.tables"),
        Binding("i", "snapshots", "Snapshots", id="compare.snapshots"),
        Binding("b", "app.back", "Runs", id="compare.runs"),
    ]

    def __init__(self, runs: Sequence[RunDir]) -> None:
        super().__init__()
        self.views = [RunView(run) for run in runs]
        self.axis, self.page = AXES[0], 0
        self._shown: dict[str, Any] = {}

    def compose(self) -> ComposeResult:
        """Legend on top, charts, tables; the style sheet says where they go at which size."""
        yield Lines(id="legend")
        with Horizontal(id="compared"):
            with Vertical(id="tables"):
                yield DataTable(id="keys", cursor_type="row", zebra_stripes=True)
                yield DataTable(id="summary", cursor_type="row", zebra_stripes=True)
            with Grid(id="overlays"):
                for i in range(_CHARTS):
                    yield Chart("", id=f"overlay-{i}")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to read."""
        self.query_one("#keys").border_title = "recipe keys that differ"
        self.query_one("#summary").border_title = "last, best, step of best"
        self.query_one("#legend").styles.height = len(self.views)
        self.query_one("#overlay-0").focus()
        self.poll()
        self.set_interval(self.bench.poll_seconds, self.poll)

    def poll(self) -> None:
        """Look at the files, if the screen is seen."""
        if self.is_active and not any(w.is_running for w in self.workers if w.group == "read"):
            self.read_on()

    @work(thread=True, exclusive=True, group="read")
    def read_on(self) -> None:
        """Read every run on, and let the screen show what came, at most four times a second."""
        worker, shown = get_current_worker(), 0.0
        while not worker.is_cancelled:
            changed = set().union(*(view.read() for view in self.views))
            behind = any(view.series.behind for view in self.views)
            if changed and (not behind or time.monotonic() - shown > 0.25):
                shown = time.monotonic()
                self.app.call_from_thread(self.show)
            if not behind:
                return

    def show(self) -> None:
        """Draw what changed."""
        if not self.is_mounted:
            return
        self._show_legend()
        self._show_charts()
        self._show_keys()
        self._show_summary()

    def _look(self, i: int) -> tuple[int, str]:
        """Return the colour and the dashes of a run: eight colours, then the same ones dashed, then dotted."""
        return i % LINES, list(DASHES)[i // LINES % len(DASHES)]

    def _show_legend(self) -> None:
        rows: list[report.Row] = []
        for i, view in enumerate(self.views):
            dash = {"solid": "━━━━", "dashed": "━━ ━", "dotted": "━ ━ "}[self._look(i)[1]]
            mark = "----" if self.bench.ascii else dash
            rows.append(
                [
                    (f" {_letter(i)} {mark} ", f"line-{i % LINES}"),
                    *report.header(view, None, False, self.bench.ascii)[0],
                ]
            )
        self.query_one("#legend", Lines).show(rows)

    def _show_charts(self) -> None:
        keys = sorted({key for view in self.views for key in view.keys})
        names = report.charts_of(keys)
        self.page %= max(1, -(-len(names) // _CHARTS))
        ends = [end for view in self.views if (end := view.x_end(self.axis)) is not None]
        for i, chart in enumerate(self.query(Chart)):
            at = self.page * _CHARTS + i
            chosen = names[at][:1] if at < len(names) else []  # one quality: runs have the colours
            lines = [line for n, view in enumerate(self.views) for line in self._lines(view, n, chosen)]
            title = report.title_of(chosen)
            if chart.title != title:
                chart.begin(title, Scale(report.scale_of(lines[0]) if lines else "linear"))
            chart.x_end, chart.x_label = max(ends, default=None), duration if self.axis == "time" else number
            chart.show(lines)

    def _lines(self, view: RunView, n: int, keys: Sequence[str]) -> list[Line]:
        colour, dash = self._look(n)
        return [view.line(key, self.axis, colour, dash, _letter(n)) for key in keys]

    def _show_keys(self) -> None:
        known = [view.recipe for view in self.views if view.recipe]
        rows = {key: [_shown(v) for v in values] for key, values in recipes.differences(known).items()}
        letters = [_letter(i) for i, view in enumerate(self.views) if view.recipe]
        self._fill("#keys", ["key", *letters], rows)

    def _show_summary(self) -> None:
        rows: dict[str, list[str]] = {}
        for key in sorted({key for view in self.views for key in view.series.metrics.last}):
            rows[key] = [number(view.series.metrics.last.get(key, float("nan"))) for view in self.views]
            bests = [(view.status.get("best") or {}).get(key) for view in self.views]
            if any(bests):
                rows[f"{key} best"] = [f"{number(b['value'])} @{number(b['step'])}" if b else "-" for b in bests]
        self._fill("#summary", ["metric", *(_letter(i) for i in range(len(self.views)))], rows)

    def _fill(self, selector: str, columns: Sequence[str], rows: dict[str, list[str]]) -> None:
        """Fill a table anew only if it differs; keep its place."""
        content = (tuple(columns), tuple((key, *values) for key, values in rows.items()))
        if self._shown.get(selector) == content:
            return
        table: DataTable[Any] = self.query_one(selector, DataTable)
        place = table.cursor_coordinate
        table.clear(columns=self._shown.get(selector, ((), ()))[0] != content[0])
        if not table.columns:
            for column in columns:
                table.add_column(column)
        for key, values in rows.items():
            table.add_row(cell(key), *(cell(value) for value in values))
        table.move_cursor(row=place.row, column=place.column)
        self._shown[selector] = content

    def action_axis(self) -> None:
        """Go on to the next horizontal axis: steps, images, wall time."""
        self.axis = AXES[(AXES.index(self.axis) + 1) % len(AXES)]
        for chart in self.query(Chart):
            chart.forget_x()
        self._show_charts()
        self.notify(f"x axis: {self.axis}", timeout=2)

    def action_page(self, step: int) -> None:
        """Show other metrics."""
        self.page += step
        self._show_charts()

    def action_enlarge(self) -> None:
        """Give the focused chart the whole room, or give it back."""
        self.toggle_class("enlarged")

    def action_tables(self) -> None:
        """Where there is no room for both: the tables in place of the charts, or the charts again."""
        self.toggle_class("tables")

    def on_descendant_focus(self) -> None:
        """Where one chart is shown, it is the focused one."""
        if isinstance(self.focused, Chart):
            for chart in self.query(Chart):
                chart.set_class(chart is self.focused, "chosen")

    def on_chart_cursor_moved(self, event: Chart.CursorMoved) -> None:
        """Let all charts have one cursor."""
        for chart in self.query(Chart):
            if chart is not event.chart:
                chart.set_cursor(event.x, tell=False)

    def action_snapshots(self) -> None:
        """Open the pictures of the first two runs."""
        from cmbench.tui.screens.snapshots import SnapshotsScreen

        self.app.push_screen(SnapshotsScreen(*(view.run for view in self.views[:2])))


def _letter(i: int) -> str:
    """Return what reports call a run, as a capital: A to Z, then A1, B1 and so on."""
    return letter(i).upper()


def _shown(value: Any) -> str:
    return "-" if value is recipes.MISSING else f"{value:g}" if isinstance(value, float) else str(value)
