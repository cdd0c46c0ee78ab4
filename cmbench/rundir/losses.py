"""The course of a run's loss in a few numbers, at a cost that does not grow with the log."""

import os
from typing import BinaryIO

from cmbench.rundir.fields import number_of, whole
from cmbench.rundir.files import opened
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row, Tail, parse

_WHOLE = 1 << 17  # bytes of a log that is read as a whole
_BLOCK = 1 << 13  # bytes of a look into a longer one; several rows
_LARGEST_BLOCK = 1 << 18  # if rows are long


def course(run: RunDir, n: int) -> list[float | None]:
    """Return at most n means of the loss over equal parts of the run; None where no loss was finite.

    In a long log only one row of each part is read. Rows that a later segment trained again do not count.
    """
    try:
        with opened(run.metrics) as file:
            size = file.seek(0, os.SEEK_END)
            rows = _looks(file, size, n) if size > _WHOLE else Tail(run.metrics).read()
    except OSError:
        return []
    values = [number_of(row["loss"]) for row in _in_order(rows)]
    if len(values) <= n:
        return values
    return [_mean(values[i * len(values) // n : (i + 1) * len(values) // n]) for i in range(n)]


def _in_order(rows: list[Row]) -> list[Row]:
    """Return the rows with a loss whose steps are below those of all later ones."""
    kept: list[Row] = []
    for row in reversed(rows):
        step = whole(row.get("step"))
        if "loss" in row and step is not None and (not kept or step < kept[-1]["step"]):
            kept.append(row)
    return kept[::-1]


def _looks(file: BinaryIO, size: int, n: int) -> list[Row]:
    rows, block = list[Row](), _BLOCK
    for i in range(n):
        end = (i + 1) * size // n
        while (row := _look(file, end, block)) is None and block < _LARGEST_BLOCK:
            block *= 4  # also for the next looks
        rows += [row] if row else []
    return rows


def _look(file: BinaryIO, end: int, block: int) -> Row | None:
    """Return the last whole row of a block that has a loss."""
    file.seek(max(end - block, 0))
    lines = file.read(block).split(b"\n")[1:-1]
    rows = (row for line in reversed(lines) for row in parse(line + b"\n"))
    return next((row for row in rows if "loss" in row), None)


def _mean(values: list[float | None]) -> float | None:
    finite = [value for value in values if value is not None]
    return sum(finite) / len(finite) if finite else None
