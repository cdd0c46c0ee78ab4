"""Runs side by side: curves and profiles over one axis, recipe keys that differ, last and best values."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import DataTable

from cmbench import quantities
from cmbench import recipe as recipes
from cmbench.comparison import groups
from cmbench.comparison.compare import letter
from cmbench.rundir import floors
from cmbench.rundir.layout import RunDir
from cmbench.tui.profile_lines import overlays
from cmbench.tui.screens.base import ChartsScreen
from cmbench.tui.text import cell
from cmbench.tui.widgets.chart_grid import ChartGrid
from cmbench.tui.widgets.key_bar import KeyBar
from cmbench.tui.widgets.line import Lines
from cmbench.views import report
from cmbench.views.lines import DASHES, LINES, Band, Line, over_seeds
from cmbench.views.run import RunView
from cmbench.words.numbers import number

_CHARTS = 4
_MARKS = {"solid": "━━━━", "dashed": "━━ ━", "dotted": "━ ━ "}  # dashes in the legend


class CompareScreen(ChartsScreen):
    """Several runs at once."""

    BINDINGS = [
        Binding("x", "axis", "x axis", id="compare.axis"),
        Binding("left_square_bracket", "page(-1)", "Charts before", id="compare.page_before", show=False),
        Binding("right_square_bracket", "page(1)", "More charts", id="compare.page_after"),
        Binding("enter", "enlarge", "Enlarge", id="compare.enlarge", show=False),
        Binding("d", "tables", "Tables", id="compare.tables"),
        Binding("L", "report", "Read in full", id="compare.report"),
        Binding("A", "seeds", "Bands over seeds", id="compare.seeds", show=False),
        Binding("i", "snapshots", "Snapshots", id="compare.snapshots"),
        Binding("b", "app.back", "Runs", id="compare.runs"),
    ]

    def __init__(self, runs: Sequence[RunDir]) -> None:
        super().__init__()
        self.views = [RunView(run) for run in runs]
        self.charts = ChartGrid(_CHARTS, self._lines_of, bands_of=self._bands_of, id="overlays")
        self._shown: dict[str, Any] = {}
        self._has_news, self._next_show = False, 0.0
        self.has_bands = False  # over seeds

    def compose(self) -> ComposeResult:
        """Lay out legend, charts and tables; the style sheet places them for each size."""
        yield Lines(id="legend")
        with Horizontal(id="compared"):
            with Vertical(id="tables"):
                yield DataTable(id="keys", cursor_type="row", zebra_stripes=True)
                yield DataTable(id="summary", cursor_type="row", zebra_stripes=True)
            yield self.charts
        yield KeyBar("tables", "report", "snapshots", "app.back")

    def on_mount(self) -> None:
        """Begin to read."""
        self.query_one("#keys").border_title = "recipe keys that differ"
        self.query_one("#summary").border_title = "last, best, step of best"
        self.query_one("#legend").styles.height = len(self.views)
        self.charts.charts[0].focus()
        self.follow()

    @property
    def is_behind(self) -> bool:
        """Whether there are more rows to read."""
        return any(view.series.behind for view in self.views)

    def read_piece(self) -> Callable[[], None] | None:
        """Read new rows of every run, and show them at most four times a second."""
        self._has_news |= bool(set().union(*(view.read() for view in self.views)))
        if not self._has_news or (self.is_behind and time.monotonic() <= self._next_show):
            return None
        self._has_news, self._next_show = False, time.monotonic() + 0.25
        return self.show

    def show(self) -> None:
        """Draw what changed."""
        self._show_legend()
        self.show_charts()
        self._show_keys()
        self._show_summary()

    def _look(self, i: int) -> tuple[int, str]:
        """Return a run's colour and dashes. Neighbours differ in both, because not every terminal has colours."""
        return i % LINES, list(DASHES)[i % len(DASHES)]

    def _show_legend(self) -> None:
        rows: list[report.Row] = []
        for i, view in enumerate(self.views):
            colour, dash = self._look(i)
            mark = _MARKS[dash].replace("━", "-" if self.bench.ascii else "━")
            header = report.header(view, None, False, self.bench.ascii)[0]
            rows.append([(f" {_letter(i)} {mark} ", f"line-{colour}"), *header])
        self.query_one("#legend", Lines).show(rows)

    def show_charts(self) -> None:
        """Draw the charts of this page, each with one line per run."""
        keys = sorted({key for view in self.views for key in view.keys})
        start = min(view.x_start(self.charts.axis) for view in self.views)
        ends = [end for view in self.views if (end := view.x_end(self.charts.axis)) is not None]
        # One chart for each quality: colours stand for runs.
        names = [[key] for group in quantities.charts(keys) for key in group]
        looks = [(*self._look(i), _letter(i)) for i in range(len(self.views))]
        over, profiles = all(view.is_over for view in self.views), overlays(self.views, looks)
        self.charts.show(names, start=start, end=max(ends, default=None), overlays=profiles, is_still=over)

    def _lines_of(self, keys: Sequence[str]) -> list[Line]:
        """Return one line per run; with bands over seeds, one line for each group of runs in place of theirs."""
        lines = self._lines_each(keys)
        if not self.has_bands or len(keys) != 1:
            return lines
        shown = dict(enumerate(lines))
        for places in self._groups():
            if band := over_seeds([lines[i] for i in places], "".join(_letter(i) for i in places)):
                shown = {i: line for i, line in shown.items() if i not in places} | {places[0]: band}
        return [shown[i] for i in sorted(shown)]

    def _groups(self) -> list[tuple[int, ...]]:
        """Return groups of indices of runs whose recipes differ only in their seed."""
        keys = [view.settings if view.recipe else None for view in self.views]
        return [places for places, _ in groups.over_seeds(keys)]

    def action_seeds(self) -> None:
        """Show runs that differ only in their seed as a mean with a band from lowest to highest, or singly again."""
        if not self._groups():
            self.notify("no two of these runs differ only in their seed", severity="warning")
            return
        self.has_bands = not self.has_bands
        self.show_charts()

    def _lines_each(self, keys: Sequence[str]) -> list[Line]:
        return [
            view.line(key, self.charts.axis, *self._look(n), _letter(n))
            for n, view in enumerate(self.views)
            for key in keys
        ]

    def _bands_of(self, keys: Sequence[str]) -> list[Band]:
        """Return the floors of all runs, equal ones once."""
        return list(dict.fromkeys(band for view in self.views for band in view.bands(keys)))

    def _show_keys(self) -> None:
        known = [view.settings for view in self.views if view.recipe]
        rows = {key: [_shown(v) for v in values] for key, values in recipes.differing(known).items()}
        letters = [_letter(i) for i, view in enumerate(self.views) if view.recipe]
        self._fill("#keys", ["key", *letters], rows)

    def _show_summary(self) -> None:
        rows: dict[str, list[str]] = {}
        lasts = [view.last for view in self.views]
        for key in sorted(set().union(*lasts)):
            pairs = list(zip(self.views, lasts, strict=True))
            rows[key] = [self._figure(view, key, last[key]) if key in last else "-" for view, last in pairs]
            bests = [(view, view.best(key)) for view in self.views]
            if any(best for _, best in bests):
                rows[f"{key} best"] = [
                    f"{self._figure(view, key, best[0])} @{number(best[1])}" if best else "-" for view, best in bests
                ]
            known = [floors.of_row(view.floors, key) for view in self.views]
            if any(known):
                rows[f"{key} floor"] = [floors.in_words(floor, number, self.bench.ascii) for floor in known]
        has_machine = [bool(view.series.machine.curves) for view in self.views]
        if any(view.is_over and not has for view, has in zip(self.views, has_machine, strict=True)):
            rows["machine history"] = ["in the charts" if has else "none in this run" for has in has_machine]
        if any(view.floors for view in self.views):
            mark = floors.PLAIN_MARK if self.bench.ascii else floors.MARK
            self.query_one("#summary").border_title = f"last, best, step of best ({mark} within the floor)"
        self._fill("#summary", ["metric", *(_letter(i) for i in range(len(self.views)))], rows)

    def _figure(self, view: RunView, key: str, value: float) -> str:
        return floors.marked(number(value), floors.is_within(view.floors, key, value), self.bench.ascii)

    def _fill(self, selector: str, columns: Sequence[str], rows: dict[str, list[str]]) -> None:
        """Refill a table only if its content differs, and keep the cursor's place.

        Column widths are set here. On a slow machine Textual measures them late, and lines painted before that stay
        too narrow.
        """
        content = (tuple(columns), tuple((key, *values) for key, values in rows.items()))
        if self._shown.get(selector) == content:
            return
        table: DataTable[Any] = self.query_one(selector, DataTable)
        place = table.cursor_coordinate
        table.clear(columns=True)
        for column, *below in zip(columns, *content[1], strict=True):
            table.add_column(column, width=max(cell(each).cell_len for each in (column, *below)))
        for row in content[1]:
            table.add_row(*map(cell, row))
        table.move_cursor(row=place.row, column=place.column)
        self._shown[selector] = content

    def action_tables(self) -> None:
        """Go to the tables, or back to the charts. If there is no room for both, they replace each other."""
        self.toggle_class("tables")
        if self.has_class("tables"):
            self.call_after_refresh(self.query_one("#keys").focus)
        else:
            self.charts.turn_to(1)

    def action_report(self) -> None:
        """Open the full report with all its tables."""
        from cmbench.tui.screens.compare_report import CompareReportScreen

        self.app.push_screen(CompareReportScreen([view.run for view in self.views]))

    def action_snapshots(self) -> None:
        """Open the pictures of the first two runs that have some; a key switches to the others."""
        from cmbench.tui.screens.snapshots import SnapshotsScreen

        letters = [_letter(i) for i in range(len(self.views))]
        self.app.push_screen(SnapshotsScreen(*(view.run for view in self.views), letters=letters))


def _letter(i: int) -> str:
    """Return a run's letter in reports, as a capital: A to Z, then A1, B1 and so on."""
    return letter(i).upper()


def _shown(value: Any) -> str:
    return "-" if value is recipes.MISSING else f"{value:g}" if isinstance(value, float) else str(value)
