"""The browser: every run of a folder, to look for, mark, open, compare and look after."""

from typing import ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from cmbench.comparison.filter import parse
from cmbench.errors import UsageError, nearest
from cmbench.rundir.overview import figure_names
from cmbench.tui.screens._run_actions import ACTIONS, say
from cmbench.tui.screens._runs_view import RunsView
from cmbench.tui.screens.confirm import Ask
from cmbench.tui.screens.recipe import RecipeScreen
from cmbench.tui.widgets.run_cells import columns_at, sort_by
from cmbench.tui.widgets.run_filter import FilterBar


class RunsScreen(RunsView):
    """All runs of a folder as a table, with a preview where there is room."""

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

    # Filter, order, marks

    def action_filter(self) -> None:
        """Let the user type a filter."""
        self.query_one(FilterBar).open()

    def step_back(self) -> bool:
        """Close the filter's line, or take an old filter away. Return whether there was one of them."""
        bar = self.query_one(FilterBar)
        if bar.has_class("-open"):
            bar.action_leave()
        elif self._filter_text:
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
            self._filter, self._filter_text = parse(event.text), event.text.strip()
        except UsageError as error:
            bar.say(str(error))
            return
        bar.say()
        self._show(follow=True)
        self._kept.keep_runs(filter=self._filter_text)

    @on(FilterBar.Left)
    def _to_table(self) -> None:
        self.table.focus()

    def action_sort(self) -> None:
        """Sort by the next column."""
        keys = [column.key for column in columns_at(self.size.width, self._metric) if column.sort]
        place = keys.index(self._sorted_by) if self._sorted_by in keys else -1
        self._sort_by(keys[(place + 1) % len(keys)], False)

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._sort_by(self._sorted_by, not self._is_reversed)

    @on(DataTable.HeaderSelected)
    def _header(self, event: DataTable.HeaderSelected) -> None:
        key = str(event.column_key.value)
        if sort_by(key):
            self._sort_by(key, key == self._sorted_by and not self._is_reversed)

    @work
    async def action_metric(self) -> None:
        """Ask for a figure, give it a column, and sort by it; nothing typed takes the column away."""
        names = figure_names(list(self._glances.values()))
        question = f"Sort by: {', '.join(names) or 'no run has a figure yet'}"
        text = await self.app.push_screen_wait(Ask(question, self._metric))
        while text is not None and (text := text.strip()) and text not in names:
            wrong = f"found {text!r}, allowed: a figure that a run has{nearest(text, names)}"
            text = await self.app.push_screen_wait(Ask(question, text, wrong))
        if text is None:
            return
        self._metric = text
        self._kept.keep_runs(metric=text)
        self._sort_by(text or "age", False)

    def _sort_by(self, key: str, is_reversed: bool) -> None:
        self._sorted_by, self._is_reversed = key, is_reversed
        self._kept.keep_runs(sorted_by=key, is_reversed=is_reversed)
        self._show(follow=True)

    def action_mark(self) -> None:
        """Mark the run, or take its mark away, and go on to the next."""
        if (name := self.table.current) is not None:
            self._marked ^= {name}
            self._show()
            self.table.action_cursor_down()

    # What is done with runs
    @on(DataTable.RowSelected)
    def _open(self) -> None:
        """Open the run."""
        if (glance := self.current) is not None:
            self.host.open_run(glance.run)

    def action_recipe(self) -> None:
        """Show the run's recipe."""
        if (glance := self.current) is not None:
            self.app.push_screen(RecipeScreen(glance.run))

    def action_compare(self) -> None:
        """Compare the marked runs, in the order of the table; those that a filter hides come last."""
        order = [*self.table.order, *self._glances]
        marked = [self._glances[name].run for name in dict.fromkeys(order) if name in self._marked]
        if len(marked) < 2:
            say(self, f"{len(marked)} of at least 2 runs marked: space marks", "warning")
        else:
            self.host.compare_runs(marked)

    @work
    async def action_do(self, what: str) -> None:
        """Ask about the run, act on it, and look what became of it: resume, stop, note, tags or delete."""
        if (glance := self.current) is not None:
            await ACTIONS[what](self, glance)
            self._wake.set()
