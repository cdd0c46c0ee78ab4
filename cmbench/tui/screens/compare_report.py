"""Every metric of several runs side by side: the scrollable tables of `cmbench compare --plain`."""

import sys
from collections.abc import Sequence
from typing import ClassVar

from rich.console import RenderableType
from rich.measure import Measurement
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from cmbench.comparison import compare
from cmbench.errors import UsageError
from cmbench.rundir.layout import RunDir
from cmbench.tui.screens.base import BenchScreen, close_help, unless_gone
from cmbench.tui.text import content
from cmbench.tui.widgets.key_bar import KeyBar
from cmbench.words.comparison import report
from cmbench.words.signs import short
from cmbench.words.tables import Section, drawn

_SIDEWAYS = 8  # columns
_BAR = 2  # columns of the scroll bar


class CompareReportScreen(BenchScreen):
    """The full report of several runs, as of the moment when the screen was opened."""

    DEFAULT_CSS = """
    CompareReportScreen #title { height: 1; padding: 0 1; background: $panel; }
    CompareReportScreen #sections { overflow-x: auto; }
    CompareReportScreen .section { padding: 0 1; margin-bottom: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left_square_bracket", "section(-1)", "Table before", id="compare_report.section_before", show=False),
        Binding("right_square_bracket", "section(1)", "Next table", id="compare_report.section_after"),
        Binding("escape,L", "leave", "Back", id="compare_report.back"),
        Binding("j,down", "scroll(1)", "Down", show=False, id="compare_report.down"),
        Binding("k,up", "scroll(-1)", "Up", show=False, id="compare_report.up"),
        # with priority, because the container would go one column only
        Binding("left", "sideways(-1)", "Sideways", key_display="←→", id="compare_report.left", priority=True),
        Binding("right", "sideways(1)", "Right", show=False, id="compare_report.right", priority=True),
    ]

    def __init__(self, runs: Sequence[RunDir]) -> None:
        super().__init__()
        self.runs = runs
        self._widest = 0  # columns of the widest table

    def compose(self) -> ComposeResult:
        """Lay out the names of the runs above the tables."""
        yield Static(content(f"reading {len(self.runs)} runs"), id="title")
        yield VerticalScroll(id="sections")
        yield KeyBar("section", "leave")

    def on_mount(self) -> None:
        """Begin to read."""
        self.query_one(VerticalScroll).focus()
        self._read()

    @work(thread=True, exclusive=True)
    def _read(self) -> None:
        try:
            found = report(compare.compare(self.runs), self.bench.ascii)
        except UsageError as error:
            self.app.call_from_thread(self._say, str(error))
        else:
            self.app.call_from_thread(self._show, found)

    def _say(self, text: str) -> None:
        with unless_gone:
            self.query_one("#title", Static).update(content(text))

    def _show(self, sections: Sequence[Section]) -> None:
        with unless_gone:
            self._say(f"{' '.join(short(run.path) for run in self.runs)}")
            tables = [drawn(section) for section in sections]
            widths = [self._width_of(table) for table in tables]
            self._widest = max(widths)
            shown = [Static(table, classes="section") for table in tables]
            for each, width in zip(shown, widths, strict=True):
                each.styles.width = width  # Textual's `width: auto` would squeeze it into the screen
            self.query_one(VerticalScroll).mount_all(shown)
            self.refresh_bindings()

    def _width_of(self, table: RenderableType) -> int:
        """Return the columns that a table's longest row needs, with a space on either side."""
        console = self.app.console
        return Measurement.get(console, console.options.update(max_width=sys.maxsize), table).maximum + 2

    def on_resize(self) -> None:
        """Offer to scroll sideways, or no longer."""
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to scroll sideways only where a table is wider than the screen."""
        return action != "sideways" or self._widest > self.size.width - _BAR

    def action_section(self, step: int) -> None:
        """Go to the next or the previous table."""
        scroll = self.query_one(VerticalScroll)
        tops = [section.virtual_region.y for section in self.query(".section")]
        ahead = [top for top in tops if (top - scroll.scroll_offset.y) * step > 0]
        if ahead:
            scroll.scroll_to(y=min(ahead) if step > 0 else max(ahead), animate=False)

    def action_scroll(self, lines: int) -> None:
        """Scroll by a line."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_sideways(self, step: int) -> None:
        """Scroll sideways, where a table is wider than the screen."""
        self.query_one(VerticalScroll).scroll_relative(x=step * _SIDEWAYS, animate=False)

    def action_leave(self) -> None:
        """Return to the curves."""
        if not close_help(self):
            self.dismiss()
