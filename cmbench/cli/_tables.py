"""Tables on the terminal, by rich; what runs hold is shown as text, never obeyed as markup."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = 2  # spaces between columns


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under headers; columns whose cells look like numbers stand to the right."""
    built = Table(box=None, pad_edge=False, header_style="bold", show_header=any(headers))
    for i, header in enumerate(headers):
        numeric = all(_is_number(str(row[i])) for row in rows)
        built.add_column(header, justify="right" if numeric else "left", overflow="fold", no_wrap=i == 0)
    console, texts = Console(), [[str(cell) for cell in row] for row in rows]
    if _fits([headers, *texts], console.width):  # a column is one cell of many lines, for a fifth of the time
        texts = [["\n".join(cells) for cells in zip(*texts, strict=True)]]
    for row in texts:
        built.add_row(*map(Text, row))
    console.print(built)


def _fits(rows: Sequence[Sequence[str]], width: int) -> bool:
    """Return whether every cell stands on a line of its own in so many characters."""
    widths = [max(map(cell_len, cells)) for cells in zip(*rows, strict=True)]
    return sum(widths) + _GAP * (len(widths) - 1) <= width and not any("\n" in cell for row in rows for cell in row)


def _is_number(text: str) -> bool:
    return text in ("", "-") or text.lstrip("+-")[:1].isdigit()
