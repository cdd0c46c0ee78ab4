"""Tables on the terminal, by rich; what runs hold is shown as text, never obeyed as markup."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under headers; columns whose cells look like numbers stand to the right."""
    built = Table(box=None, pad_edge=False, header_style="bold", show_header=any(headers))
    for i, header in enumerate(headers):
        numeric = all(_is_number(str(row[i])) for row in rows)
        built.add_column(header, justify="right" if numeric else "left", overflow="fold", no_wrap=i == 0)
    for row in rows:
        built.add_row(*(Text(str(cell)) for cell in row))
    Console().print(built)


def _is_number(text: str) -> bool:
    return text in ("", "-") or text.lstrip("+-")[:1].isdigit()
