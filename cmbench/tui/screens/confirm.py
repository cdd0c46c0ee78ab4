"""Small questions over a screen: yes or no, a word to type, a line of text."""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen, ScreenResultType
from textual.widgets import Button, Input, Label

from cmbench.errors import CmbenchError
from cmbench.text import plain
from cmbench.tui.text import content

T = TypeVar("T")

NO_CONTROLS = r"[^\x00-\x1f\x7f-\x9f]*"  # an input shows pasted text unchanged


class _Question(ModalScreen[ScreenResultType]):
    """A box in the middle of the screen with a question."""

    DEFAULT_CSS = """
    _Question { align: center middle; }
    _Question > Vertical {
        width: 72; max-width: 95%; height: auto; max-height: 90%;
        border: round $primary; background: $surface; padding: 0 1;
    }
    _Question Label { width: 1fr; height: auto; }
    _Question Input { margin: 1 0; background: $boost; }
    _Question .hint { color: $text-muted; }
    _Question Horizontal { height: auto; align-horizontal: right; }
    _Question Button { margin-left: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Cancel", id="confirm.leave")]

    def __init__(self, question: str | Content) -> None:
        """Take the question; a string is never read as markup."""
        super().__init__()
        self.question = question if isinstance(question, Content) else content(question)


class Confirm(_Question[bool]):
    """A yes-or-no question: y or the button means yes, anything else no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", id="confirm.yes"),
        Binding("n,q", "answer(False)", "No", id="confirm.no"),
        Binding("left,right,h,l", "app.focus_next", "Other button", show=False, id="confirm.other"),
    ]

    def __init__(self, question: str | Content, yes: str = "Yes", no: str = "No") -> None:
        super().__init__(question)
        self._yes, self._no = yes, no

    def compose(self) -> ComposeResult:
        """Put the question above two buttons; enter alone means no."""
        with Vertical():
            yield Label(self.question)
            with Horizontal():
                yield Button(content(f"{self._no} (n)"), id="no", compact=True)
                yield Button(content(f"{self._yes} (y)"), id="yes", variant="primary", compact=True)

    @on(Button.Pressed)
    def _pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """Answer."""
        self.dismiss(yes)

    def action_leave(self) -> None:
        """Answer no."""
        self.dismiss(False)


class _Line(_Question[ScreenResultType]):
    """A question that is answered in an input."""

    hint = "enter: done · escape: cancel"

    def __init__(self, question: str | Content, value: str = "", wrong: str = "") -> None:
        """Take the question, the text in the input, and what was wrong with the previous answer."""
        super().__init__(question)
        self._value, self._wrong = plain(value), wrong

    def compose(self) -> ComposeResult:
        """Put the question above the input."""
        with Vertical():
            yield Label(self.question)
            yield Input(self._value, restrict=NO_CONTROLS, select_on_focus=False, compact=True)
            yield Label(content(self._wrong or self.hint, "$text-error" if self._wrong else ""), classes="hint")


class Ask(_Line[str | None]):
    """A question for a line of text; None if cancelled."""

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)

    def action_leave(self) -> None:
        """Cancel."""
        self.dismiss(None)


class TypedConfirm(_Line[bool]):
    """A question that is confirmed by typing a word, for actions that must not happen by accident."""

    def __init__(self, question: str | Content, wanted: str) -> None:
        super().__init__(question)
        self.wanted = plain(wanted)
        self.hint = f"type {self.wanted} and enter · escape: cancel"

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        if event.value == self.wanted:
            self.dismiss(True)
        else:
            self.query_one(".hint", Label).update(content(f"that is not {self.wanted} · escape: cancel", "$text-error"))

    def action_leave(self) -> None:
        """Answer no."""
        self.dismiss(False)


async def ask_until(app: App[Any], question: str, text: str, take: Callable[[str], T]) -> T | None:
    """Ask for a text and pass it to `take` in a thread. If `take` refuses it, say why and ask again.

    The refused text stays in the input.

    Args:
        app: the application.
        question: text above the input.
        text: initial text in the input.
        take: called with the typed text; raises a CmbenchError that says what is wrong with it.

    Returns:
        The result of `take`; None if the question is cancelled.
    """
    wrong = ""
    while (typed := await app.push_screen_wait(Ask(question, text, wrong))) is not None:
        try:
            return await asyncio.to_thread(take, typed)
        except CmbenchError as error:
            text, wrong = typed, str(error)
    return None
