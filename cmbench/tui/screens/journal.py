"""A run's journal or its trainer's output in full: long lines are wrapped, and one can scroll back."""

from collections.abc import Callable

from textual.app import ComposeResult
from textual.binding import Binding

from cmbench.rundir.series import JOURNAL
from cmbench.tui.screens.base import ReadingScreen
from cmbench.tui.widgets.key_bar import KeyBar
from cmbench.tui.widgets.line import Lines, LogLines
from cmbench.views import report
from cmbench.views.run import RunView


class JournalScreen(ReadingScreen):
    """Lines over the whole screen, the newest last.

    Args:
        view: the run.
        shows_console: begin with the trainer's output.
    """

    BINDINGS = [
        Binding("l", "other", "Journal / console", id="journal.other"),
        Binding("up,k", "go(-1)", "Up", id="journal.up"),
        Binding("down,j", "go(1)", "Down", id="journal.down"),
        Binding("pageup", "page(-1)", "Page up", id="journal.page_up", show=False),
        Binding("pagedown", "page(1)", "Page down", id="journal.page_down", show=False),
        Binding("home", "page(-9999)", "First", id="journal.first", show=False),
        Binding("end", "page(9999)", "Newest", id="journal.last"),
        Binding("L", "app.back", "Dashboard", id="journal.back"),
    ]

    def __init__(self, view: RunView, shows_console: bool = False) -> None:
        super().__init__()
        self.view, self.shows_console = view, shows_console
        self._is_shown = False

    @property
    def is_still(self) -> bool:
        """Whether the run is paused or over."""
        return self.view.is_still

    def compose(self) -> ComposeResult:
        """Lay out the dashboard's header and the lines."""
        yield Lines(id="header", whole=True)
        yield LogLines("journal", id="log")
        yield KeyBar("app.back", "other")

    def on_mount(self) -> None:
        """Begin to read."""
        self.follow()

    @property
    def is_behind(self) -> bool:
        """Whether there are more rows to read."""
        return self.view.series.behind > 0

    def read_piece(self) -> Callable[[], None] | None:
        """Read what is new."""
        return self.show if self.view.read() or not self._is_shown else None

    def show(self) -> None:
        """Draw the header and the lines."""
        self._is_shown = True
        self.query_one("#header", Lines).show(
            lambda width: report.header(self.view, None, False, self.bench.ascii, width)
        )
        log, rows = self.query_one(LogLines), report.lines_of(self.view, self.shows_console, JOURNAL)
        log.frame_title = "console" if self.shows_console else "journal"
        log.show(lambda width: report.wrapped(rows, width))

    def action_other(self) -> None:
        """Switch between the journal and the trainer's output."""
        self.shows_console = not self.shows_console
        self.query_one(LogLines).top = None
        self.show()

    def action_go(self, lines: int) -> None:
        """Scroll by lines."""
        self.query_one(LogLines).go(lines)

    def action_page(self, pages: int) -> None:
        """Scroll by pages."""
        log = self.query_one(LogLines)
        log.go(pages * max(1, log.inner_height - 1))
