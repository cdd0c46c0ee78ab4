"""The filter line under the table of runs."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, Static

from cmbench.tui.screens.confirm import NO_CONTROLS
from cmbench.tui.text import content


class FilterBar(Vertical):
    """An input, and a line below it for examples or for what is wrong with the filter."""

    DEFAULT_CSS = """
    FilterBar { height: auto; display: none; }
    FilterBar.-open { display: block; }
    FilterBar Input { height: 1; border: none; padding: 0 1; }
    FilterBar Static { height: 1; padding: 0 1; color: $text-muted; }
    FilterBar Static.-wrong { color: $text-error; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,down", "leave", "Back to the table", show=False, id="runs.filter_done"),
    ]
    HELP = "ring  state:running  tag:lr  loss<0.1  optimizer.lr>1e-4 OR seed:3 NOT state:crashed  best.sw_1step<0.05"

    class Changed(Message):
        """The filter changed."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Left(Message):
        """The user is done."""

    def compose(self) -> ComposeResult:
        """Lay out the input above its line."""
        yield Input(placeholder="filter", restrict=NO_CONTROLS, select_on_focus=False, compact=True)
        yield Static(content(self.HELP))

    def begin(self, text: str) -> None:
        """Start with a filter that is already in force."""
        with self.prevent(Input.Changed):
            self.query_one(Input).value = text

    def open(self) -> None:
        """Show the input and focus it."""
        self.add_class("-open")
        self.query_one(Input).focus()

    def clear(self) -> None:
        """Empty the input."""
        self.query_one(Input).value = ""

    def say(self, wrong: str = "") -> None:
        """Show what is wrong with the filter, or the examples."""
        line = self.query_one(Static)
        line.set_class(bool(wrong), "-wrong")
        line.update(content(wrong or self.HELP))

    def action_leave(self) -> None:
        """Close."""
        self.remove_class("-open")
        self.post_message(self.Left())

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Changed(event.value))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_leave()
