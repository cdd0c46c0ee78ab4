"""A table of runs that repaints only changed cells and keeps its cursor on the same run."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.geometry import Region
from textual.widgets import DataTable
from textual.widgets.data_table import RowKey

from cmbench.tui.text import cell
from cmbench.tui.widgets.run_cells import Column, Look, row

if TYPE_CHECKING:
    from typing_extensions import Self

_FEW = 16  # up to this many rows are removed one by one; for more, the table is refilled


class RunTable(DataTable[Text]):
    """A table with one row per run, keyed by the run's name."""

    DEFAULT_CSS = "RunTable { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Open", id="runs.open"),
        Binding("j", "cursor_down", "Down", show=False, id="runs.down"),
        Binding("k", "cursor_up", "Up", show=False, id="runs.up"),
        Binding("g,home", "scroll_top", "First", show=False, id="runs.first"),
        Binding("G,end", "scroll_bottom", "Last", show=False, id="runs.last"),
    ]

    _is_quiet = False

    def __init__(self, ascii: bool = False, id: str | None = None) -> None:
        """Take whether to use ASCII only."""
        super().__init__(cursor_type="row", id=id)
        self._ascii = ascii
        self._layout: tuple[Column, ...] = ()
        self._looks: dict[str, Look] = {}
        self._order: list[str] = []
        self._lost: str | None = None  # the run that the cursor was on, if it is hidden now

    @property
    def order(self) -> Sequence[str]:
        """The names of the runs from top to bottom."""
        return self._order

    @property
    def current(self) -> str | None:
        """The name of the run under the cursor."""
        return self._order[self.cursor_row] if 0 <= self.cursor_row < len(self._order) else None

    def in_sight(self) -> list[str]:
        """Return the names of the runs on the screen."""
        top = round(self.scroll_y)
        return self._order[top : top + self.size.height]

    def lay_out(self, columns: Sequence[Column], sorted_by: str, is_reversed: bool) -> None:
        """Set the columns for the table's width, and show the sort order in the header."""
        fixed = sum(column.width for column in columns) + 2 * self.cell_padding * len(columns)
        room = max(8, self.size.width - fixed - self.styles.scrollbar_size_vertical)
        layout = tuple(column if column.width else replace(column, width=room) for column in columns)
        if layout != self._layout:
            with self._cursor_kept():
                self.clear(columns=True)
                self._layout = layout
                for column in layout:
                    self.add_column("", width=column.width, key=column.key)
                self._fill([self._looks[name] for name in self._order])
        self._label(sorted_by, is_reversed)

    def show(self, looks: Sequence[Look], follow: bool = False) -> None:
        """Show these runs in this order, and change only what differs.

        Args:
            looks: the rows from top to bottom.
            follow: scroll to the new place of the cursor's run.
        """
        names = [look.glance.name for look in looks]
        gone = self._looks.keys() - set(names)
        with self._cursor_kept(follow):
            if len(gone) > _FEW:
                self.clear()
                self._fill(looks)
            else:
                self._change(looks, gone)
            if names != self._order:
                position = {id(self.get_cell(name, "run")): i for i, name in enumerate(names)}
                self.sort("run", key=lambda shown: position[id(shown)])
                self._order = names

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> "Self":
        """Repaint, except while single cells are updated, which are repainted separately."""
        if self._is_quiet:
            return self
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def _fill(self, looks: Iterable[Look]) -> None:
        self._looks, self._order = {}, []
        self._add(looks)

    def _add(self, looks: Iterable[Look]) -> None:
        for look in looks:
            name = look.glance.name
            self.add_row(*row(look, self._layout, self._ascii).values(), key=name)
            self._looks[name] = look
            self._order.append(name)

    def _change(self, looks: Sequence[Look], gone: Iterable[str]) -> None:
        for name in gone:
            self.remove_row(name)
            del self._looks[name]
            self._order.remove(name)
        for look in looks:
            before = self._looks.get(look.glance.name)
            if before is not None and look != before:
                self._update(look, before)
        self._add(look for look in looks if look.glance.name not in self._looks)

    def _update(self, look: Look, before: Look) -> None:
        """Update and repaint only the cells of a run that differ; update_cell alone would repaint the whole table."""
        name = look.glance.name
        self._looks[name] = look
        old, new = (row(each, self._layout, self._ascii) for each in (before, look))
        for key in (key for key in new if new[key] != old[key] or new[key].style != old[key].style):
            self._is_quiet = True
            try:
                self.update_cell(name, key, new[key])
            finally:
                self._is_quiet = False
            self.refresh_coordinate(Coordinate(self.get_row_index(name), self.get_column_index(key)))

    def _label(self, sorted_by: str, is_reversed: bool) -> None:
        arrow = ("v" if self._ascii else "▼") if is_reversed else ("^" if self._ascii else "▲")
        for column in self._layout:
            text = f"{column.label}{arrow}" if column.key == sorted_by and column.label else column.label
            label = cell(text.rjust(column.width) if column.right else text)
            shown = self.columns[next(key for key in self.columns if key.value == column.key)]
            if shown.label != label:
                shown.label = label
                self._update_count += 1
                self.refresh()

    @contextmanager
    def _cursor_kept(self, follow: bool = False) -> Iterator[None]:
        """Keep the cursor on its run, or on the next run that is left, and keep the same rows in sight."""
        name, below, top = self.current or self._lost, self._order[self.cursor_row :], self.scroll_y
        yield
        self._lost = None if name in self._looks else name  # while a filter is typed, no run may be left
        found = next((each for each in (name, *below) if each in self._looks), None)
        index = self.get_row_index(found) if found else max(0, min(self.cursor_row, self.row_count - 1))
        if index != self.cursor_row:
            self.move_cursor(row=index, scroll=follow)
        if not follow and top != self.scroll_y:
            self.call_after_refresh(self.scroll_to, y=top, animate=False)

    def _update_dimensions(self, new_rows: Iterable[RowKey]) -> None:
        """Skip measuring cells, which takes most of the time for a thousand rows: column widths are fixed."""
        super()._update_dimensions(())
