"""The columns of a .csv file: with or without a line of names, each of numbers or of text."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cmbench import regular
from cmbench.arrays.stored import Stored
from cmbench.text import shown


def columns(path: Path) -> dict[str, Stored]:
    """Return the columns, (M,) each, by the names of the first line, or by "1", "2", ... if it has only numbers.

    Raises:
        ValueError: a line has another number of columns, or something else in a column of numbers.
        OSError: the file cannot be read.
    """
    with _text(path) as file:
        lines = csv.reader(file)
        try:
            first, second = next(lines, []), next(lines, None)
        except csv.Error as error:  # up to Python 3.10 of a zero byte, too
            raise ValueError(str(error)) from None
    if not first:
        raise ValueError("it is empty")
    has_names = not any(map(_is_number, first)) and len(set(first)) == len(first) and second is not None
    names = [name.strip() for name in first] if has_names else [str(i + 1) for i in range(len(first))]
    example = (second if has_names else first) or []
    if len(example) != len(names):
        raise ValueError(f"its first line has {len(names)} columns, and its second {len(example)}")
    of_text = [i for i, cell in enumerate(example) if not _is_number(cell)]
    of_numbers = [i for i in range(len(names)) if i not in of_text]
    found: dict[int, np.ndarray] = {}
    if of_numbers:
        numbers = _loaded(path, has_names, of_numbers, float)
        found |= {i: numbers[:, k] for k, i in enumerate(of_numbers)}
    for i in of_text:
        found[i] = _loaded(path, has_names, [i], str)[:, 0]
    return {name: Stored(found[i], f"{path.name}: {shown(name)}") for i, name in enumerate(names)}


def _loaded(path: Path, has_names: bool, columns: list[int], dtype: type) -> np.ndarray:
    with _text(path) as file:
        return np.loadtxt(
            file, dtype, comments=None, delimiter=",", skiprows=int(has_names), usecols=columns, ndmin=2, quotechar='"'
        )


@contextmanager
def _text(path: Path) -> Iterator[io.TextIOWrapper]:
    with regular.opened(path, links=True) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        yield text


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
