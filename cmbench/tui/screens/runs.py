"""The browser: find, mark, open, compare and manage the runs of a folder."""

import asyncio
import time
from pathlib import Path
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import DataTable, Static

from cmbench.comparison.filter import parse
from cmbench.errors import UsageError, did_you_mean
from cmbench.rundir import losses
from cmbench.rundir.overview import Glance, Overview, figure_names
from cmbench.text import plain
from cmbench.tui.kept import Runs
from cmbench.tui.screens._run_actions import ACTIONS, say
from cmbench.tui.screens.base import ReadingScreen, unless_gone
from cmbench.tui.screens.confirm import ask_until
from cmbench.tui.screens.recipe import RecipeScreen
from cmbench.tui.text import content
from cmbench.tui.widgets.key_bar import KeyBar
from cmbench.tui.widgets.run_cells import SPARK, WIDE, Look, columns_at, in_order, sort_by
from cmbench.tui.widgets.run_filter import FilterBar
from cmbench.tui.widgets.run_preview import SETTLE, RunPreview
from cmbench.tui.widgets.run_table import RunTable
from cmbench.words.times import age

_AT_FIRST = 100  # rows that an empty table gets before it is painted
_AGES_EVERY = 10.0  # seconds between looks at the clock while nothing changes


class RunsScreen(ReadingScreen):
    """All runs of a folder in a table, with a preview if there is room. Filter and order are kept between sessions."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
    DEFAULT_CSS = """
    RunsScreen #title { height: 1; padding: 0 1; background: $panel; }
    RunsScreen.-wide RunPreview { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "Mark", id="runs.mark"),
        Binding("C", "compare", "Compare", id="runs.compare"),
        Binding("slash,f", "filter", "Filter", id="runs.filter"),
        Binding("ctrl+f", "clear_filter", "No filter", id="runs.clear_filter", priority=True, show=False),
        Binding("o", "sort", "Sort", id="runs.sort"),
        Binding("M", "metric", "Sort by a figure", id="runs.metric", show=False),
        Binding("R", "reverse", "Reverse", id="runs.reverse"),
        Binding("r", "do('resume')", "Resume", id="runs.resume"),
        Binding("S", "do('stop')", "Stop", id="runs.stop"),
        Binding("N", "do('note')", "Note", id="runs.note"),
        Binding("t", "do('tags')", "Tags", id="runs.tags"),
        Binding("D", "do('delete')", "Delete", id="runs.delete"),
        Binding("v", "recipe", "Recipe", id="runs.recipe"),
    ]

    def __init__(self, runs_dir: Path) -> None:
        """Take the folder of the runs."""
        super().__init__()
        self.runs_dir = runs_dir
        self._overview = Overview(runs_dir)
        self._taken: list[Glance] = []
        self._glances: dict[str, Glance] = {}  # of all runs, oldest first
        self._courses: dict[str, tuple[int, tuple[float | None, ...]]] = {}  # name -> step, losses up to it
        self._marked: set[str] = set()
        self._filter = parse("")
        self._next_ages = 0.0

    def compose(self) -> ComposeResult:
        """Lay out a status line, the table beside the preview, and the keys."""
        yield Static(content("reading runs …"), id="title")
        with Horizontal():
            yield RunTable(self.bench.ascii)
            yield RunPreview(self.bench.ascii)
        yield FilterBar()
        yield KeyBar("select_cursor", "mark", "compare", show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to read."""
        self._filter = parse(self._order.filter)
        self.query_one(FilterBar).begin(self._order.filter)
        self.table.focus()
        self.watch(self.table, "scroll_y", self._scrolled, init=False)
        self.follow()

    def on_resize(self, event: events.Resize) -> None:
        """Choose the columns for the width, once the table has its own."""
        self.call_after_refresh(self._show)

    @property
    def table(self) -> RunTable:
        """The table of runs."""
        return self.query_one(RunTable)

    @property
    def current(self) -> Glance | None:
        """The run under the cursor."""
        return self._glances.get(self.table.current or "")

    @property
    def _order(self) -> Runs:
        """The kept filter and order."""
        return self.bench.kept.runs

    # What is shown

    async def look(self, anew: bool) -> None:
        """Read the folder."""
        self._take(await self.read(self._overview.read, anew))

    def _take(self, glances: list[Glance]) -> None:
        if glances is not self._taken:
            self._taken, self._glances = glances, {glance.name: glance for glance in glances}
            self._marked &= self._glances.keys()
            self._show()
        elif time.monotonic() >= self._next_ages:
            self._show()

    def _show(self, follow: bool = False) -> None:
        """Update the table; `follow`: the user reordered the rows, so scroll to the cursor's run."""
        now, start, order = time.time(), time.monotonic(), self._order
        kept = [glance for glance in self._glances.values() if self._filter(glance)]
        self.table.lay_out(columns_at(self.size.width, order.metric), order.sorted_by, order.is_reversed)
        looks = [self._look(glance, now) for glance in in_order(kept, order.sorted_by, order.is_reversed, now)]
        if not self.table.row_count and len(looks) > _AT_FIRST:  # the rest follows below what is in sight
            looks = looks[:_AT_FIRST]
            self.call_after_refresh(self._show, follow)
        self.table.show(looks, follow)
        self._next_ages = start + max(_AGES_EVERY, 100 * (time.monotonic() - start))  # less often for many runs
        self._say_state(len(kept))
        self._read_courses()
        self._preview()

    def _look(self, glance: Glance, now: float) -> Look:
        course = self._courses.get(glance.name, (0, ()))[1]
        return Look(glance, age(now - glance.heartbeat), glance.name in self._marked, course)

    def _say_state(self, shown: int) -> None:
        total, order = len(self._glances), self._order
        runs = f"{total} run{'s' * (total != 1)}"
        parts = [f"{shown} of {runs}" if shown != total else runs]
        parts += [f"{len(self._marked)} marked"] if self._marked else []
        parts += [f"by {order.sorted_by}{', reversed' if order.is_reversed else ''}"]
        parts += [f"filter: {order.filter}"] if order.filter else []
        line = " · ".join(parts) if total else f"no runs in {self.runs_dir}: cmbench run recipes/ct_edm.toml"
        title = self.query_one("#title", Static)
        if str(title.content) != plain(line):
            title.update(content(line))

    def _scrolled(self) -> None:
        self._read_courses()

    @work(exclusive=True, group="courses")
    async def _read_courses(self) -> None:
        """Read the losses of the runs in sight that have new steps."""
        await asyncio.sleep(SETTLE)
        with unless_gone:
            there = [self._glances[name] for name in self.table.in_sight() if name in self._glances]
            if wanted := [g for g in there if self._courses.get(g.name, (-1, ()))[0] != g.step]:
                await asyncio.to_thread(self._read_courses_of, wanted)
                self._show()

    def _read_courses_of(self, glances: list[Glance]) -> None:
        for glance in glances:
            self._courses[glance.name] = (glance.step, tuple(losses.course(glance.run, SPARK)))

    @on(DataTable.RowHighlighted)
    def _preview(self) -> None:
        """Show the run under the cursor in the preview."""
        self.query_one(RunPreview).show(self.current)

    # Filter, order, marks

    def action_filter(self) -> None:
        """Open the filter line."""
        self.query_one(FilterBar).open()

    def step_back(self) -> bool:
        """Close the filter line, or clear the filter. Return whether there was either."""
        bar = self.query_one(FilterBar)
        if bar.has_class("-open"):
            bar.action_leave()
        elif self._order.filter:
            bar.clear()
        else:
            return False
        return True

    def action_clear_filter(self) -> None:
        """Show all runs again."""
        self.query_one(FilterBar).clear()

    @on(FilterBar.Changed)
    def _take_filter(self, event: FilterBar.Changed) -> None:
        bar = self.query_one(FilterBar)
        try:
            self._filter = parse(event.text)
        except UsageError as error:
            bar.say(str(error))
            return
        bar.say()
        self.bench.kept.keep_runs(filter=event.text.strip())
        self._show(follow=True)

    @on(FilterBar.Left)
    def _to_table(self) -> None:
        self.table.focus()

    def action_sort(self) -> None:
        """Sort by the next column."""
        keys = [column.key for column in columns_at(self.size.width, self._order.metric) if column.sort]
        place = keys.index(self._order.sorted_by) if self._order.sorted_by in keys else -1
        self._sort_by(keys[(place + 1) % len(keys)], False)

    def action_reverse(self) -> None:
        """Reverse the order."""
        self._sort_by(self._order.sorted_by, not self._order.is_reversed)

    @on(DataTable.HeaderSelected)
    def _header(self, event: DataTable.HeaderSelected) -> None:
        key = str(event.column_key.value)
        if sort_by(key):
            self._sort_by(key, key == self._order.sorted_by and not self._order.is_reversed)

    @work
    async def action_metric(self) -> None:
        """Ask for a metric, give it a column and sort by it. An empty answer removes the column."""
        names = figure_names(list(self._glances.values()))

        def take(text: str) -> str:
            if (text := text.strip()) and text not in names:
                raise UsageError(f"found {text!r}, allowed: a figure that a run has{did_you_mean(text, names)}")
            return text

        question = f"Sort by: {', '.join(names) or 'no run has a figure yet'}"
        metric = await ask_until(self.app, question, self._order.metric, take)
        if metric is not None:
            self.bench.kept.keep_runs(metric=metric)
            self._sort_by(metric or "age", False)

    def _sort_by(self, key: str, is_reversed: bool) -> None:
        self.bench.kept.keep_runs(sorted_by=key, is_reversed=is_reversed)
        self._show(follow=True)

    def action_mark(self) -> None:
        """Mark or unmark the run, and go to the next."""
        if (name := self.table.current) is not None:
            self._marked ^= {name}
            self._show()
            self.table.action_cursor_down()

    # Actions on runs
    @on(DataTable.RowSelected)
    def _open(self) -> None:
        """Open the run."""
        if (glance := self.current) is not None:
            self.bench.open_run(glance.run)

    def action_recipe(self) -> None:
        """Show the run's recipe."""
        if (glance := self.current) is not None:
            self.app.push_screen(RecipeScreen(glance.run))

    def action_compare(self) -> None:
        """Compare the marked runs in the order of the table; runs hidden by the filter come last."""
        order = [*self.table.order, *self._glances]
        marked = [self._glances[name].run for name in dict.fromkeys(order) if name in self._marked]
        if len(marked) < 2:
            say(self, f"{len(marked)} marked, at least 2 needed: space marks a run", "warning")
        else:
            self.bench.compare_runs(marked)

    @work
    async def action_do(self, what: str) -> None:
        """Act on the run after a question (resume, stop, note, tags or delete), then read its new state."""
        if (glance := self.current) is not None:
            await ACTIONS[what](self, glance)
            self.wake()
