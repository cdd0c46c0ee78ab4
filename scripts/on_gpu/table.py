"""The table of GPUs in docs/performance.md: rows between two lines that nobody else may change."""

from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from cmbench.rundir.files import write_atomically

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- table of make gpu -->", "<!-- end of the table of make gpu -->"
EMPTY = "This table is still empty: cmbench has not been measured on a GPU yet."
COLUMNS = (
    *("GPU", "recipe", "precision", "compiled", "batch", "images a second", "to a bare pass"),
    *("share of matrix rate", "memory", "torch", "date"),
)
_KEY = 4  # columns that say what was measured: a row replaces the one that agrees in them


class PageError(Exception):
    """The page is not as `make gpu` left it, in one line."""


def row(card: str, compiled: bool, figures: dict[str, Any], torch_version: str, today: date) -> list[str]:
    """Return the cells of a row.

    Args:
        card: the name of the GPU.
        compiled: whether the step was compiled.
        figures: of a recipe, as `cmbench bench --json` has them.
        torch_version: with its build.
        today: when it was measured.
    """
    cells = [
        *(card, f"`{figures['name']}`", figures["precision"], "yes" if compiled else "no"),
        *(f"{figures['batch_size']:,}", f"{figures['images_per_s']:,.0f}", f"{figures['ratio']:.2f}"),
        *(f"{figures['share_of_product']:.0%}", size(figures["peak"])),
        *(torch_version, f"{today.day} {today:%B %Y}"),
    ]
    return [" ".join(cell.replace("|", "/").split()) for cell in cells]


def size(number: int | None) -> str:
    """Return a number of bytes in words; None is unknown."""
    return "-" if number is None else f"{number / 2**30:.1f} GiB"


def write(new: Iterable[Sequence[str]], page: Path = PAGE) -> None:
    """Put rows into the page. They replace rows of the same card and recipe; all others stay.

    Raises:
        PageError: the page cannot be read or written, or somebody has changed the table.
    """
    before, rows, after = parts(page)
    by_key = {tuple(cells[:_KEY]): list(cells) for cells in [*rows, *new]}
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS)), *map(_line, by_key.values())] if by_key else [EMPTY]
    text = "\n".join([*before, BEGIN, "", *lines, "", END, *after]) + "\n"
    try:
        write_atomically(page, text.encode())
    except OSError as error:
        raise PageError(f"{page}: cannot be written: {error.strerror or error}") from None


def parts(page: Path = PAGE) -> tuple[list[str], list[list[str]], list[str]]:
    """Return the lines of the page before the table, the cells of its rows, and the lines after it.

    Raises:
        PageError: the page cannot be read, or somebody has changed the table.
    """
    try:
        lines = page.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PageError(f"{page}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    for marker in (BEGIN, END):
        if lines.count(marker) != 1:
            raise PageError(f"{page}: found {lines.count(marker)} lines '{marker}', allowed: one, around the table")
    begin, end = lines.index(BEGIN), lines.index(END)
    if begin > end:
        raise PageError(f"{page}: found '{END}' before '{BEGIN}', allowed: after it")
    inside = [line.strip() for line in lines[begin + 1 : end] if line.strip() not in ("", EMPTY)]
    if inside and [_cells(line) for line in inside[:2]] != [[*COLUMNS], ["---"] * len(COLUMNS)]:
        raise PageError(f"{page}: found a table of GPUs that begins '{inside[0]}', allowed: '{_line(COLUMNS)}'")
    rows = [_cells(line) for line in inside[2:]]
    for line, cells in zip(inside[2:], rows, strict=True):
        if len(cells) != len(COLUMNS):
            raise PageError(f"{page}: found '{line}' in the table of GPUs, allowed: rows of {len(COLUMNS)} cells")
    return lines[:begin], rows, lines[end + 1 :]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
