"""Append-only JSON lines: one writer, and any number of readers that follow the file as it grows.

A resumed run opens a new segment with a line {"segment": 2, "first_step": 101}; `segments` then knows which rows count.

Logs grow without limit, so readers hold one piece at a time. To get the end, read backward (`segments`). To get a few
rows, name bytes that their lines contain (`marks`): other lines are not parsed.
"""

import errno
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from cmbench.rundir.fields import whole
from cmbench.rundir.files import from_json, name_nonfinite, open_to_append, opened, to_json, write_all

CHUNK = 1 << 19  # bytes read at once: smaller pieces fit a cache better, larger ones are drawn less often
LONGEST = 1 << 22  # bytes of a line; a longer line is skipped and never held in memory
_BACK = 1 << 16  # bytes of a look back: usually enough
_MOST_LOST = 1 << 30  # bytes of longer lines; after so many the search ends
_KEPT = 1 << 24  # bytes of rows that wait for disk space

Row = dict[str, Any]


class Log:
    """The write end. A line torn by a crash is cut off when the log is opened again.

    Rows that do not fit on the disk are kept, and written before the next row. If the log is removed, or replaced by
    another file, writing continues in a file of the same name.

    Attributes:
        path: where the log is; update it when the folder moves.
        waiting: number of kept rows.
        lost: number of kept rows that were dropped, oldest first, because there were too many.
        renewed: how often the log was found removed or replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lost, self.renewed = path, 0, 0
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._file: FileIO
        self._whole: int | None
        self._open()
        self._cut()

    @property
    def waiting(self) -> int:
        """How many rows wait for disk space."""
        return len(self._kept)

    def last_segment(self) -> int:
        """Return the number of the newest segment, or 0."""
        return last_segment(self.path)

    def open_segment(self, segment: int, first_step: int, abandons: bool = False) -> None:
        """Begin a segment, whose rows start with `first_step`.

        With `abandons`, the superseded rows will not be trained again.

        Raises:
            OSError: as `append`.
        """
        self.segment, self._first_step = segment, first_step
        self._write({"segment": segment, "first_step": first_step, **({"abandons": True} if abandons else {})})

    def append(self, row: Row) -> None:
        """Write one row. Readers see the whole row or nothing.

        Raises:
            OSError: the row cannot be written now; it is kept.
        """
        self._write({"segment": self.segment, **row})

    def flush(self) -> None:
        """Write the kept rows. Raises as `append`."""
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
        """Open the file of this name; if that fails, the file that is open stays open."""
        file = os.fdopen(open_to_append(self.path), "a+b", buffering=0)
        try:
            size = file.seek(0, os.SEEK_END)
            whole_until = _whole_until(file.fileno(), size)
            if size - whole_until > LONGEST:
                raise OSError(errno.EINVAL, f"{self.path.name} ends in a line too long for a log")
        except BaseException:
            file.close()
            raise
        self._file, self._whole = file, whole_until

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
            with suppress(OSError):  # if this fails, the line is cut before the next row
                self._cut()
            raise

    def _cut(self) -> None:
        """Cut off the rest of a torn line, if there is one."""
        if self._whole is not None and self._whole < self._file.seek(0, os.SEEK_END):
            self._file.truncate(self._whole)
        self._whole = None

    def _find_again(self) -> None:
        """Open the file again if its name now belongs to another file, or to none."""
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
    """The read end: each look returns the rows added since the last. A half-written line does not count yet.

    Args:
        path: of the log; a missing or unreadable log has no rows.
        marks: if given, lines that contain none of these are skipped.

    If the file was replaced, or is shorter than before, it is read from the beginning. A row that opens a segment at
    step 0 then comes first, so that a reader who drops superseded rows drops all of the old file.
    """

    def __init__(self, path: Path, marks: Sequence[bytes] = ()) -> None:
        self.path, self._marks = path, marks
        self._offset, self._size = 0, 0
        self._file: tuple[int, int] | None = (
            None  # device and inode: tell the file that was read from others of its name
        )
        self._lost, self._is_inside = 0, False  # bytes of too long lines; whether the offset is inside one

    @property
    def behind(self) -> int:
        """Bytes that the file had at the last look and that are not read yet."""
        return max(0, self._size - self._offset)

    def read(self) -> list[Row]:
        """Return all new rows, including those that open a segment."""
        return [row for rows in self.pieces() for row in rows]

    def pieces(self) -> Iterator[list[Row]]:
        """Yield all new rows, one piece at a time."""
        while True:
            rows = self.read_piece()
            if rows:
                yield rows
            if not self.behind:
                return

    def read_piece(self) -> list[Row]:
        """Return the rows of the next piece of whole lines: none if nothing is new, or if the piece has no row."""
        replaced: list[Row] = []
        try:
            found = self.path.stat(follow_symlinks=False)
            if self._is_another(found):
                self._offset, self._lost, self._is_inside = 0, 0, False
                replaced = [{"segment": 0, "first_step": 0}]
            self._file = found.st_dev, found.st_ino
            if found.st_size <= self._offset:
                self._size = self._offset
                return replaced
            with opened(self.path) as file:
                self._size = os.fstat(file.fileno()).st_size
                file.seek(self._offset)
                data = self._whole_lines(file)
        except OSError:
            self._size = self._offset  # gone, or unreadable: do not wait
            return replaced
        return replaced + parse(_marked(data, self._marks) if self._marks else data)

    def _is_another(self, found: os.stat_result) -> bool:
        """Return whether the file is a different one, or shorter than what was read so far."""
        is_other = self._file is not None and self._file != (found.st_dev, found.st_ino)
        return self._offset > 0 and (is_other or found.st_size < self._offset)

    def skip(self) -> None:
        """Skip what is there, and read only what comes later."""
        try:
            with opened(self.path) as file:
                self._offset = _end_of_lines(file)
                found = os.fstat(file.fileno())
                self._file = found.st_dev, found.st_ino
        except OSError:
            self._offset = 0

    @property
    def place(self) -> int:
        """Bytes that were read or skipped."""
        return self._offset

    def _whole_lines(self, file: BinaryIO) -> bytes:
        data, end = file.read(CHUNK), 0
        while not self._is_inside and (end := data.rfind(b"\n") + 1) == 0:
            more = file.read(CHUNK) if len(data) <= LONGEST else b""
            if not more and len(data) <= LONGEST:  # the last line is half-written: wait for its end
                self._size = self._offset
                return b""
            self._is_inside = not more
            data += more
        if not self._is_inside:
            self._offset += end
            return data[:end]
        while data and (end := data.find(b"\n") + 1) == 0 and self._lost < _MOST_LOST:
            self._offset, self._lost = self._offset + len(data), self._lost + len(data)
            data = file.read(CHUNK)
        self._offset += end
        self._is_inside = not end
        if self._lost >= _MOST_LOST:
            self._size = self._offset
        return b""


def last_segment(path: Path) -> int:
    """Return the number of the newest segment, which every row contains, or 0."""
    found = (whole(row.get("segment")) for data in lines_backward(path) for row in reversed(parse(data)))
    return next((segment for segment in found if segment is not None), 0)


def parse(data: bytes) -> list[Row]:
    """Return the rows of whole lines, without torn ones: all at once, or one by one if a line is torn."""
    try:
        rows = from_json(b"".join((b"[", data.replace(b"\n", b","), b"0]")))[:-1]  # copies take much of the time
    except ValueError:
        rows = []
    if len(rows) != data.count(b"\n") or len(data) > LONGEST:
        rows = [row for line in data.split(b"\n") if len(line) <= LONGEST for row in _parsed(line)]
    return rows if set(map(type, rows)) <= {dict} else [row for row in rows if isinstance(row, dict)]


def _parsed(line: bytes) -> Iterator[Any]:
    try:
        yield from_json(line)
    except ValueError:  # torn by a crash in the middle of a write, or not written by us
        return


def _marked(data: bytes, marks: Sequence[bytes]) -> bytes:
    """Return the lines that contain one of the marks."""
    lines: dict[int, bytes] = {}
    for mark in marks:
        place = data.find(mark)
        while place >= 0:
            start, end = data.rfind(b"\n", 0, place) + 1, data.find(b"\n", place) + 1
            lines[start] = data[start:end]
            place = data.find(mark, end)
    return b"".join(lines[start] for start in sorted(lines))


def lines_backward(path: Path, end: int | None = None) -> Iterator[bytes]:
    """Yield whole lines in pieces, from the end of a log or from byte `end` backward, without too long lines."""
    try:
        with opened(path) as file:
            place, size, rest, lost, is_inside = _end_of_lines(file) if end is None else end, _BACK, b"", 0, False
            while place and lost < _MOST_LOST:
                size = min(size, place)
                place -= size
                file.seek(place)
                data = file.read(size)
                if is_inside:
                    last = data.rfind(b"\n") + 1
                    lost, is_inside, data = lost + size - last, not last, data[:last]
                data += rest
                start = data.find(b"\n", 0, len(data) - 1) + 1 if place else 0
                if place and not start and len(data) > LONGEST + 1:
                    lost, is_inside, data = lost + len(data), True, b""
                if start or not place:
                    yield data[start:]
                rest, size = (data[:start], _BACK) if start or not place else (data, CHUNK)
    except OSError:
        return


def _end_of_lines(file: BinaryIO) -> int:
    """Return where the last whole line ends, or 0 if there is none."""
    place = end = file.seek(0, os.SEEK_END)
    while place and end - place < _MOST_LOST:
        size = min(max(_BACK, end - place), CHUNK, place)
        place -= size
        file.seek(place)
        if found := file.read(size).rfind(b"\n") + 1:
            return place + found
    return 0


def _whole_until(descriptor: int, end: int) -> int:
    """Return where the last whole line before `end` ends."""
    while end > 0:
        start = max(0, end - _BACK)
        if (found := os.pread(descriptor, end - start, start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
