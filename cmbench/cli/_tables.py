"""Tables on the terminal, by rich; what runs hold is shown as text, never obeyed as markup."""

from collections.abc import Sequence
from itertools import chain

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from cmbench.cli import _screen
from cmbench.text import plain

_GAP = 2  # spaces between columns
_MANY = 100  # rows, from which on it matters what one takes


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], spare: int = 0) -> None:
    """Print rows under headers; columns whose cells look like numbers stand to the right.

    Where a terminal is too narrow, up to `spare` of the last columns are left out; beyond that, cells are folded.
    A file or another program gets every row whole, on one line.
    """
    console = _screen.console()
    headers, texts = [plain(header) for header in headers], [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(headers, *texts, strict=True)]
    if not _screen.is_terminal():
        console.width = max(console.width, _width(widths))
    while spare and _width(widths) > console.width:
        spare, widths = spare - 1, widths[:-1]
    headers, texts = headers[: len(widths)], [row[: len(widths)] for row in texts]
    built = Table(box=None, pad_edge=False, header_style="bold", show_header=any(headers))
    for i, header in enumerate(headers):
        numeric = all(_is_number(row[i]) for row in texts)
        built.add_column(header, justify="right" if numeric else "left", overflow="fold", no_wrap=i == 0)
    if len(texts) > _MANY and _width(widths) <= console.width and all(map(str.isprintable, chain(*texts))):
        right = [all(map(_is_number, column)) for column in zip(*texts, strict=True)]
        head, *lines = _lines([list(headers), *texts], widths, right)
        if any(headers):
            console.print(Text(head, style="bold", no_wrap=True))
        _screen.text("\n".join(lines))
        return
    if texts and _cells_stay_whole(headers, texts, console.width):
        # A column becomes one cell of many lines, for a fifth of the time.
        texts = [["\n".join(cells) for cells in zip(*texts, strict=True)]]
    for row in texts:
        built.add_row(*map(Text, row))
    console.print(built)


def _lines(rows: Sequence[Sequence[str]], widths: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    """Return rows as rich would draw them, for a tenth of the time."""
    columns = [
        [_padded(cell, width, right) for cell in column]
        for column, width, right in zip(zip(*rows, strict=True), widths, numeric, strict=True)
    ]
    return [(" " * _GAP).join(cells) for cells in zip(*columns, strict=True)]


def _padded(cell: str, width: int, right: bool) -> str:
    cell = cell.rstrip() if right else cell
    rest = " " * (width - (len(cell) if cell.isascii() else cell_len(cell)))
    return rest + cell if right else cell + rest


def _width(columns: Sequence[int]) -> int:
    """Return how many characters columns of such widths take."""
    return sum(columns) + _GAP * (len(columns) - 1)


def _cells_stay_whole(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """Return whether no cell is folded, though headers may be, in so many characters.

    Rich makes the widest columns narrower, evenly, and the first one never: none becomes narrower than the longest cell
    as long as that is enough.
    """
    cells = [cell for row in rows for cell in row]
    longest = 1 + max(map(cell_len, cells), default=0)  # and one where it does not come out even
    widths = [max(map(cell_len, column)) for column in zip(headers, *rows, strict=True)]
    least = widths[0] + sum(min(column, longest) for column in widths[1:]) + _GAP * (len(widths) - 1)
    return least <= width


def _is_number(text: str) -> bool:
    return text in ("", "-") or text.lstrip("+-")[:1].isdigit()
