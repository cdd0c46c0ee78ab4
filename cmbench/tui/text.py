"""Text that others wrote, as widgets take it: names, notes and console lines obey nothing in them."""

from rich.text import Text
from textual.content import Content

from cmbench.text import plain


def content(text: object, style: str = "") -> Content:
    """Return such a text for a widget, brackets in it included: they are no markup."""
    return Content.styled(plain(text), style)


def cell(text: object, style: str = "") -> Text:
    """Return such a text for a cell of a DataTable, which takes Rich's."""
    return Text(plain(text), style=style, no_wrap=True, end="")
