"""The filter line for names of metrics."""

import re
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from cmbench.text import plain
from cmbench.tui.screens.confirm import NO_CONTROLS


class MetricFilter(Input):
    """An input for a regular expression, visible only while the user types."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back to the charts", show=False, id="dashboard.filter_done"),
    ]

    class Chosen(Message):
        """The user is done: an expression, or None to change nothing."""

        def __init__(self, pattern: str | None) -> None:
            super().__init__()
            self.pattern = pattern

    def __init__(self, id: str | None = None) -> None:
        hint = "regular expression for names and titles of metrics; empty: the usual six"
        super().__init__(placeholder=hint, restrict=NO_CONTROLS, id=id)
        self.display, self.pattern = False, ""

    def open(self) -> None:
        """Show the input and focus it."""
        self.display, self.value = True, self.pattern
        self.focus()

    def action_leave(self) -> None:
        """Close, and leave the charts as they are."""
        self._close(None)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        try:
            re.compile(event.value)
        except re.error as error:
            self.notify(plain(f"{event.value}: {error}"), severity="error", markup=False)
        else:
            self.pattern = event.value
            self._close(event.value)

    def _close(self, pattern: str | None) -> None:
        self.display = False
        self.post_message(self.Chosen(pattern))
