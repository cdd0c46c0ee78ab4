"""Append-only JSON lines: one writer, any number of readers that follow it as it grows.

A resumed run opens a new segment by a line {"segment": 2, "first_step": 101}. Rows of earlier segments at or past its
first step were trained again, and readers drop them. With "abandons": true they are not to come again: the run was
taken up from an earlier checkpoint by choice, and settings of those steps are not made again.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from cmbench.rundir.files import name_nonfinite, to_json

Row = dict[str, Any]


class Log:
    """The write end. A line torn by a crash is cut off when the log is opened again."""

    def __init__(self, path: Path) -> None:
        _cut_torn_line(path)
        self._file = path.open("ab", buffering=0)
        self.path = path

    def last_segment(self) -> int:
        """Return the number of the newest segment, or 0."""
        found = (row.get("segment") for row in _rows(self.path) if "first_step" in row)
        return max((segment for segment in found if isinstance(segment, int)), default=0)

    def open_segment(self, segment: int, first_step: int, abandons: bool = False) -> None:
        """Begin a segment, whose rows start with `first_step`; `abandons` says that earlier ones come no more."""
        self.segment = segment
        self._write({"segment": segment, "first_step": first_step, **({"abandons": True} if abandons else {})})

    def append(self, row: Row) -> None:
        """Write one row, whole or not at all as far as any reader sees."""
        self._write({"segment": self.segment, **row})

    def _write(self, row: Row) -> None:
        line = to_json(name_nonfinite(row)) + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        if self._file.write(line) != len(line):  # the disk is full
            self._file.truncate(start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def fsync(self) -> None:
        """Make every row so far survive a power cut."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Tail:
    """The read end: each `read` returns the rows that came since the last. A half-written line is not there yet."""

    def __init__(self, path: Path) -> None:
        self.path, self._offset = path, 0

    def read(self) -> list[Row]:
        """Return new rows, those that open a segment included."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        return list(parse(data[:whole]))


def read_rows(path: Path) -> list[Row]:
    """Return the rows that count, in order: no row twice, none that a later segment trained again."""
    return without_superseded(_rows(path))


def without_superseded(rows: Iterable[Row]) -> list[Row]:
    """Drop the rows that a later segment trained again, the lines that open segments, and what is damaged: each row
    that is kept has a step.
    """
    kept: list[Row] = []
    for row in rows:
        if isinstance(first_step := row.get("first_step"), int):
            kept = [r for r in kept if r["step"] < first_step]
        elif isinstance(row.get("step"), int):
            kept.append(row)
    return kept


def _rows(path: Path) -> Iterator[Row]:
    return parse(path.read_bytes() if path.exists() else b"")


def parse(data: bytes) -> Iterator[Row]:
    """Yield the rows of whole lines, without what a crash tore."""
    for line in data.split(b"\n"):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue  # torn by a crash in the middle of a write
        if isinstance(row, dict):
            yield row


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    data = path.read_bytes()
    if (whole := data.rfind(b"\n") + 1) < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
