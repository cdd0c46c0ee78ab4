"""Text that others wrote, as a terminal may show it: names, notes and console lines obey nothing in them."""

from pathlib import PurePath
from typing import TYPE_CHECKING

from rich.cells import cell_len

from cmbench.text import plain

if TYPE_CHECKING:  # reports of text alone do without
    from rich.text import Text
    from textual.content import Content

_LIKE = {"-": "─━═▔▁▂▃▀▄▅▆▇—", "|": "│┃┊▏▎▍▌▋▊▉▐▕", "+": "┌┐└┘├┤┬┴┼╭╮╯╰▛▜▙▟", ".": "·•", "~": "…", "#": "█"}
_LIKE |= {"<": "←", ">": "→▶", "^": "↑▲", "v": "↓▼", "*": "★●"}
_ASCII = str.maketrans({sign: like for like, signs in _LIKE.items() for sign in signs})


def ascii_alone(text: str) -> str:
    """Return a text of as many cells in ASCII: signs by their likes, letters of other scripts as question marks."""
    if text.isascii():
        return text
    return "".join(c if c.isascii() else "?" * cell_len(c) for c in text.translate(_ASCII))


def content(text: object, style: str = "") -> "Content":
    """Return such a text for a widget, brackets in it included: they are no markup."""
    from textual.content import Content

    return Content.styled(plain(text), style)


def cell(text: object, style: str = "") -> "Text":
    """Return such a text for a cell of a DataTable, which takes Rich's."""
    from rich.text import Text

    return Text(plain(text), style=style, no_wrap=True, end="")


def short(name: str | PurePath) -> str:
    """Return a run's name without its date: ct_edm-20261122-221503-a3f9 as ct_edm·a3f9."""
    parts = plain(PurePath(name).name).rsplit("-", 3)
    return (
        f"{parts[0]}·{parts[3]}" if len(parts) == 4 and parts[1].isdigit() and parts[2].isdigit() else "-".join(parts)
    )
