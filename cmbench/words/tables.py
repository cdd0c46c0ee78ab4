"""Tables of text, for terminal, screen, picture and page; cells are shown as text, never interpreted."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

_GAP = 2  # spaces between columns


@dataclass(frozen=True)
class Section:
    """A table with a title; without rows, `otherwise` is shown instead.

    `spare` of the last columns may be left out if there is no room for all.
    """

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    otherwise: str = ""
    spare: int = 0


def drawn(section: Section) -> Group:
    """Return a table under its title, which may be wider than the table."""
    headers = section.headers if section.rows else [section.otherwise]
    table = laid_out(headers, section.rows, header_style="dim")
    return Group(Text(section.title, style="bold", no_wrap=True), table)


def laid_out(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    header_style: str = "bold",
    width: int | None = None,
) -> Table:
    """Return a Rich table; columns whose cells look like numbers are aligned to the right.

    Args:
        headers: of the columns; none is shown if all are empty.
        rows: of cells.
        header_style: a Rich style.
        width: available characters, beyond which cells are folded, except the first column's; None folds none.
    """
    table = Table(box=None, pad_edge=False, header_style=header_style, show_header=any(headers))
    for i, header in enumerate(headers):
        right = is_numeric([row[i] for row in rows])
        table.add_column(
            Text(header),
            justify="right" if right else "left",
            overflow="ellipsis" if width is None else "fold",
            no_wrap=width is None or i == 0,
        )
    if rows and (width is None or _cells_stay_whole(headers, rows, width)):
        # A column becomes one cell of many lines, which takes a fifth of the time.
        rows = [["\n".join(cells) for cells in zip(*rows, strict=True)]]
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def is_numeric(cells: Sequence[str]) -> bool:
    """Return whether all cells of a column look like numbers, or are empty."""
    return all(text in ("", "-") or text.lstrip("+-")[:1].isdigit() for text in cells)


def in_lines(rows: Sequence[Sequence[str]], widths: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    """Return rows as Rich would draw them, in a tenth of the time."""
    columns = [
        [_padded(cell, width, right) for cell in column]
        for column, width, right in zip(zip(*rows, strict=True), widths, numeric, strict=True)
    ]
    return [(" " * _GAP).join(cells) for cells in zip(*columns, strict=True)]


def _padded(cell: str, width: int, right: bool) -> str:
    cell = cell.rstrip() if right else cell
    rest = " " * (width - (len(cell) if cell.isascii() else cell_len(cell)))
    return rest + cell if right else cell + rest


def width_of(columns: Sequence[int]) -> int:
    """Return how many characters columns of these widths take."""
    return sum(columns) + _GAP * (len(columns) - 1)


def _cells_stay_whole(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """Return whether no cell is folded at this width; headers may be.

    Rich narrows the widest columns evenly, but never the first one. As long as that is enough, no column becomes
    narrower than the longest cell.
    """
    cells = [cell for row in rows for cell in row]
    longest = 1 + max(map(cell_len, cells), default=0)  # and one more if the division is not even
    widths = [max(map(cell_len, column)) for column in zip(headers, *rows, strict=True)]
    least = widths[0] + sum(min(column, longest) for column in widths[1:]) + _GAP * (len(widths) - 1)
    return least <= width
