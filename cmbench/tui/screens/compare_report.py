"""Every metric of several runs side by side: the scrollable tables of `cmbench compare --plain`."""

from collections.abc import Sequence
from typing import ClassVar

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


class CompareReportScreen(BenchScreen):
    """The full report of several runs, as of the moment when the screen was opened."""

    DEFAULT_CSS = """
    CompareReportScreen #title { height: 1; padding: 0 1; background: $panel; }
    CompareReportScreen #sections { overflow-x: auto; }
    CompareReportScreen .section { width: auto; padding: 0 1; margin-bottom: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left_square_bracket", "section(-1)", "Table before", id="compare_report.section_before", show=False),
        Binding("right_square_bracket", "section(1)", "Next table", id="compare_report.section_after"),
        Binding("escape,L", "leave", "Back", id="compare_report.back"),
        Binding("j,down", "scroll(1)", "Down", show=False, id="compare_report.down"),
        Binding("k,up", "scroll(-1)", "Up", show=False, id="compare_report.up"),
    ]

    def __init__(self, runs: Sequence[RunDir]) -> None:
        super().__init__()
        self.runs = runs

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
            self.query_one(VerticalScroll).mount_all(Static(drawn(s), classes="section") for s in sections)

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

    def action_leave(self) -> None:
        """Return to the curves."""
        if not close_help(self):
            self.dismiss()
