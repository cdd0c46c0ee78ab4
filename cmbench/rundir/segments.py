"""Decides which rows of a log count: those that no later segment trained again.

A resumed run opens a segment with a line {"segment": 2, "first_step": 101}. Rows of earlier segments at or past its
first step were trained again, and no longer count. "abandons": true means that a user resumed from an earlier
checkpoint; settings of the abandoned steps are not made again. All readers use this module.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cmbench.rundir.fields import END, whole
from cmbench.rundir.log import Row, Tail, lines_backward, parse

OPENING = b'"first_step"'  # marks the lines that open segments


class Part(NamedTuple):
    """Rows of one segment.

    Attributes:
        rows: in order; some may be damaged.
        first_step: earlier rows count only below this step; None if all count, since the segment began earlier.
        abandons: whether the settings of superseded rows are given up for good.
    """

    rows: Sequence[Row]
    first_step: int | None = None
    abandons: bool = False

    def spares(self, row: Row) -> bool:
        """Return whether a row of an earlier part, which has a step, still counts."""
        return self.first_step is None or row["step"] < self.first_step


def parts(rows: Sequence[Row]) -> Iterator[Part]:
    """Yield rows segment by segment, without the lines that open segments."""
    start, opening = 0, Part([])
    for i in [i for i, row in enumerate(rows) if "first_step" in row]:
        if (first_step := whole(rows[i]["first_step"])) is not None:
            yield opening._replace(rows=rows[start:i])
            start, opening = i + 1, Part([], first_step, rows[i].get("abandons") is True)
    yield opening._replace(rows=rows[start:])


def that_count(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that count, in order. Each has a step: damaged rows are dropped."""
    kept: list[Row] = []
    for part in parts(list(rows)):
        kept = [row for row in kept if part.spares(row)]
        kept += [row for row in part.rows if whole(row.get("step")) is not None]
    return kept


def newest(path: Path, end: int | None = None) -> Iterator[Row]:
    """Yield the rows that count, newest first; if `end` is given, only from the first `end` bytes."""
    for rows in backward(path, end):
        yield from reversed(rows)


def backward(path: Path, end: int | None = None) -> Iterator[list[Row]]:
    """Yield the rows of `newest` in pieces, the newest piece first, each in the order of its rows."""
    limit = END  # the lowest first step of later segments
    for data in lines_backward(path, end):
        kept: list[list[Row]] = []
        for part in reversed(list(parts(parse(data)))):
            kept.append(_below(part.rows, limit))
            limit = limit if part.first_step is None else min(limit, part.first_step)
        yield [row for rows in reversed(kept) for row in rows]


def first(path: Path, key: str) -> Row | None:
    """Return the first row that counts and has a key. This also scans the bytes of all later rows."""
    later = [part.first_step for part in parts(Tail(path, [OPENING]).read()) if part.first_step is not None]
    for rows in Tail(path).pieces():
        for part in parts(rows):
            if part.first_step is not None:
                del later[:1]
            found = _below([row for row in part.rows if key in row], min(later, default=END))
            if found:
                return found[0]
    return None


def _below(rows: Sequence[Row], limit: int) -> list[Row]:
    """Return the rows of steps below a limit."""
    return [row for row in rows if type(step := row.get("step")) is int and 0 <= step < limit]
