"""Append-only JSON lines: one writer, any number of readers that follow it as it grows.

A resumed run opens a new segment by a line {"segment": 2, "first_step": 101}. Rows of earlier segments at or past its
first step were trained again, and readers drop them. With "abandons": true they are not to come again: the run was
taken up from an earlier checkpoint by choice, and settings of those steps are not made again.
"""

import errno
import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from cmbench.rundir.files import name_nonfinite, open_to_append, to_json, write_all

Row = dict[str, Any]

_BLOCK = 1 << 16  # bytes that are looked through at once from the end of a log
_LONGEST = 1 << 24  # bytes of a line that is looked into there
_KEPT = 1 << 24  # bytes of rows that wait for room on the disk


class Log:
    """The write end. A line torn by a crash is cut off when the log is opened again.

    What the disk has no room for is kept, and written before the next row. Where a log is removed, or replaced by
    another file, it goes on under its name.

    Attributes:
        path: where it is; whoever moves the folder says so here.
        waiting: rows that are kept.
        lost: rows that were kept too long, the oldest of too many.
        renewed: how often it was found removed or replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lost, self.renewed = path, 0, 0
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._open()

    @property
    def waiting(self) -> int:
        """How many rows wait for room on the disk."""
        return len(self._kept)

    def last_segment(self) -> int:
        """Return the number of the newest segment, or 0. Only the end of the file is read, where it is as we write."""
        end = self._file.seek(0, os.SEEK_END)
        while end > 0:
            start = _whole_until(self._file.fileno(), end - 1)
            line = os.pread(self._file.fileno(), end - start, start) if end - start <= _LONGEST else b""
            for row in parse(line):
                if isinstance(segment := row.get("segment"), int) and 0 < segment < _LONGEST:
                    return segment
            end = start
        return 0

    def open_segment(self, segment: int, first_step: int, abandons: bool = False) -> None:
        """Begin a segment, whose rows start with `first_step`; `abandons` says that earlier ones come no more.

        Raises:
            OSError: as `append`.
        """
        self.segment, self._first_step = segment, first_step
        self._write({"segment": segment, "first_step": first_step, **({"abandons": True} if abandons else {})})

    def append(self, row: Row) -> None:
        """Write one row, whole or not at all as far as any reader sees.

        Raises:
            OSError: it cannot be written now; it is kept.
        """
        self._write({"segment": self.segment, **row})

    def flush(self) -> None:
        """Write the rows that are kept. Raises as `append`."""
        self._find_again()
        while self._kept:
            self._put(self._kept[0])
            self._kept_bytes -= len(self._kept.popleft())

    def fsync(self) -> None:
        """Make every row so far survive a power cut. Raises as `append`."""
        self.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> None:
        self._file = os.fdopen(open_to_append(self.path), "a+b", buffering=0)
        size = self._file.seek(0, os.SEEK_END)
        self._whole: int | None = _whole_until(self._file.fileno(), size)
        if size - self._whole > _LONGEST:
            self._file.close()
            raise OSError(errno.EINVAL, f"{self.path.name} ends in a line that is none of a log's")
        self._cut()

    def _write(self, row: Row) -> None:
        line = to_json(name_nonfinite(row)) + b"\n"
        self._kept.append(line)
        self._kept_bytes += len(line)
        while self._kept_bytes > _KEPT and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popleft())
            self.lost += 1
        self.flush()

    def _put(self, line: bytes) -> None:
        self._cut()
        start = self._file.seek(0, os.SEEK_END)
        try:
            write_all(self._file.fileno(), line)
        except BaseException:
            self._whole = start
            with suppress(OSError):  # else before the next row
                self._cut()
            raise

    def _cut(self) -> None:
        """Cut off what is left of a torn line, if there is any."""
        if self._whole is not None and self._whole < self._file.seek(0, os.SEEK_END):
            self._file.truncate(self._whole)
        self._whole = None

    def _find_again(self) -> None:
        """Open the file anew where the name is that of another file by now, or of none."""
        ours = os.fstat(self._file.fileno())
        with suppress(FileNotFoundError):
            if os.path.samestat(self.path.lstat(), ours):
                return
        old = self._file
        self._open()
        old.close()
        self.renewed += 1
        if self.last_segment() < self.segment:
            opens = to_json({"segment": self.segment, "first_step": self._first_step}) + b"\n"
            self._kept.appendleft(opens)
            self._kept_bytes += len(opens)


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


def _whole_until(descriptor: int, end: int) -> int:
    """Return where the last whole line in front of `end` is over."""
    while end > 0:
        start = max(0, end - _BLOCK)
        if (found := os.pread(descriptor, end - start, start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
