"""The course of a run's loss in a few numbers, at a cost that does not grow with its log."""

from pathlib import Path
from typing import Any

import orjson

from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row, Tail
from cmbench.rundir.overview import number_of

_WHOLE = 1 << 17  # bytes of a log that is read as a whole
_BLOCK = 1 << 13  # bytes of a look into a longer one; several rows


def course(run: RunDir, n: int) -> list[float | None]:
    """Return at most n means of the loss over even parts of the run; None where none was finite.

    Of a long log only a row in each part is looked at. Rows that a later segment trained again do not count.
    """
    try:
        size = run.metrics.stat().st_size
        rows = Tail(run.metrics).read() if size <= _WHOLE else _looks(run.metrics, size, n)
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
        step = row.get("step")
        if "loss" in row and isinstance(step, int) and (not kept or step < kept[-1]["step"]):
            kept.append(row)
    return kept[::-1]


def _looks(path: Path, size: int, n: int) -> list[Row]:
    with path.open("rb") as file:
        return [row for i in range(n) if (row := _look(file, (i + 1) * size // n - _BLOCK))]


def _look(file: Any, offset: int) -> Row | None:
    """Return the last whole row with a loss of a block."""
    file.seek(max(offset, 0))
    for line in reversed(file.read(_BLOCK).split(b"\n")[1:-1]):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(row, dict) and "loss" in row:
            return row
    return None


def _mean(values: list[float | None]) -> float | None:
    finite = [value for value in values if value is not None]
    return sum(finite) / len(finite) if finite else None
