"""Text from outside (names, notes, console lines) in the form that widgets take. Nothing in it is interpreted."""

from rich.text import Text
from textual.content import Content

from cmbench.text import plain


def content(text: object, style: str = "") -> Content:
    """Return such a text for a widget. Brackets in it are not markup."""
    return Content.styled(plain(text), style)


def cell(text: object, style: str = "") -> Text:
    """Return such a text for a cell of a DataTable, which takes Rich texts."""
    return Text(plain(text), style=style, no_wrap=True, end="")
