"""A CSV of labels: the name of a picture's file, and its label as a number or as a name. Imports no torch."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from cmbench import regular
from cmbench.errors import did_you_mean
from cmbench.text import shown

_LARGEST = 2**28  # bytes of a CSV
_NAMED = 3  # files that a message names


class UnfitError(Exception):
    """Labels, or folders, that cannot be used; the message begins with where."""


def read(path: Path, names: Sequence[str], kinds: tuple[str, ...]) -> tuple[list[int], list[str]]:
    """Return the label of each picture and the names of the classes, which is empty if labels are numbers.

    Args:
        path: of the CSV: two columns, with or without a header.
        names: of the pictures, as the CSV has them.
        kinds: endings of pictures' names; a first line whose name has none of them is a header.

    Raises:
        UnfitError: the file cannot be read; a picture has no label or two; numbers leave gaps.
    """
    rows = _rows(path, kinds)
    known, found = set(names), dict[str, str]()
    lines: dict[str, int] = {}
    for line, name, label in rows:
        where = f"{path.name}, line {line}"
        if name not in known:
            raise UnfitError(f"{where}: found {shown(name)}, which is no picture here{did_you_mean(name, known)}")
        if name in found:
            raise UnfitError(f"{where}: {shown(name)} has a label already, in line {lines[name]}")
        if not label:
            raise UnfitError(f"{where}: {shown(name)} has no label")
        found[name], lines[name] = label, line
    if missing := [name for name in names if name not in found]:
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        listed = ", ".join(shown(name) for name in missing[:_NAMED])
        raise UnfitError(f"{path.name}: no label for {listed}{more}")
    return _numbered([found[name] for name in names], path)


def _rows(path: Path, kinds: tuple[str, ...]) -> list[tuple[int, str, str]]:
    """Return line, name and label of each row that is not empty or a header."""
    try:
        text = regular.read(path, _LARGEST, links=True).decode("utf-8-sig")
    except OSError as error:
        raise UnfitError(f"{path.name}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UnfitError(f"{path.name}: not in UTF-8") from None
    rows: list[tuple[int, str, str]] = []
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells) or (not rows and not cells[0].lower().endswith(kinds) and reader.line_num == 1):
                continue
            if len(cells) != 2:
                found = f"found {len(cells)} columns, allowed: file name, label"
                raise UnfitError(f"{path.name}, line {reader.line_num}: {found}")
            rows.append((reader.line_num, cells[0], cells[1]))
    except csv.Error as error:
        raise UnfitError(f"{path.name}, line {reader.line_num}: {error}") from None
    return rows


def _numbered(given: list[str], path: Path) -> tuple[list[int], list[str]]:
    from cmbench.pictures.listing import natural

    if all(label.isascii() and label.isdigit() and len(label) < 10 for label in given):
        labels = [int(label) for label in given]
        if len(there := set(labels)) <= max(there, default=-1):
            gap = next(n for n in range(len(there) + 1) if n not in there)
            found = f"no picture has label {gap}, and the highest is {max(there)}"
            raise UnfitError(f"{path.name}: {found}; allowed: every number from 0 on, or names")
        return labels, []
    names = sorted(set(given), key=natural)
    number = {name: i for i, name in enumerate(names)}
    return [number[label] for label in given], names
