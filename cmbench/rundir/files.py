"""Files of a run: read by one function; written to a temporary name, fsynced and renamed. And JSON without NaN."""

import errno
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import psutil

from cmbench import regular

_NO_SURPRISE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # do not follow links, do not wait for pipes
_KINDS = ((stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISDIR, "a folder"))

LARGEST = 1 << 24  # bytes of a file that is read as a whole
DEEPEST = 128  # deepest nesting that is read: such a value may be written again a few levels deeper
_MANY = 1 << 14  # bytes from which counting brackets takes longer than adding our own
_MOST_READ = 1024  # levels that orjson reads; it writes only a quarter as many


def opened(path: str | Path) -> BinaryIO:
    """Open a file of a run.

    A link is not followed, since a run's files lie in its folder. The folder itself and its subfolders may be links.

    Raises:
        OSError: as `regular.opened`.
    """
    return regular.opened(path)


def read(path: str | Path, most: int = LARGEST) -> bytes:
    """Return the content of a file of a run, which must not be a link.

    Raises:
        OSError: as `regular.read`.
    """
    return regular.read(path, most)


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Replace a file so that every reader sees the old content or the new, even after a crash.

    Without `durable`, as for a heartbeat, a power cut may bring back the old content. A link is replaced; its target
    stays as it is.

    Raises:
        OSError: the place cannot be written, or is a folder.
    """
    with replacing(path, durable) as descriptor:
        write_all(descriptor, content)


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte, or raise the system's error."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def overwrite(path: Path, content: bytes) -> None:
    """Write over a small file when the disk has no room for a second one. A crash meanwhile damages the file.

    Raises:
        OSError: the file is missing, or the content needs more disk space than the file has.
    """
    descriptor = os.open(path, os.O_WRONLY | _NO_SURPRISE)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or len(content) > max(found.st_size, _room(found)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_all(descriptor, content.ljust(found.st_size))
    finally:
        os.close(descriptor)


def refuse_unusual(path: Path) -> None:
    """Refuse to append to anything but a regular file. A missing file is fine.

    Raises:
        OSError: the path is a link, a pipe, a device or a folder.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(mode := path.lstat().st_mode):
            kind = next((kind for test, kind in _KINDS if test(mode)), "a device")
            raise OSError(errno.EINVAL, f"{path.name} is {kind}, allowed: a regular file")


def open_to_append(path: Path) -> int:
    """Open a log for appending, create it if missing, and return its descriptor, which can also be read.

    A file with several names, as made by `cp -al`, is copied first: the other names keep their content.

    Raises:
        OSError: the log cannot be written, or is not a regular file.
    """
    refuse_unusual(path)
    if path.exists() and path.stat().st_nlink > 1:
        with path.open("rb") as shared, replacing(path) as copy:
            for block in iter(lambda: shared.read(1 << 20), b""):
                write_all(copy, block)
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _NO_SURPRISE, 0o666)


def make_folder(folder: Path) -> None:
    """Make a folder if it is missing, but never its parent. A link to a folder counts as a folder.

    Raises:
        OSError: the folder cannot be made, or its name is taken by something else.
    """
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise OSError(errno.ENOTDIR, f"{folder.name} is not a folder, nor a link to one") from None


def temporaries(names: str) -> str:
    """Return the pattern of the temporary names of `write_atomically`, given the pattern of the files' names."""
    return rf"\.(?:{names})\.(?P<pid>[0-9]{{1,7}})\.tmp"


def remove_temporaries(folder: Path, names: str, shared: bool = False) -> None:
    """Remove temporary files that killed writers left, for files whose names match a pattern, and nothing else.

    Args:
        folder: it may contain anything else as well.
        names: the pattern. Only the one writer of these files may call this, unless `shared`.
        shared: other writers may be at work. Only temporaries of dead processes are removed.
    """
    pattern = re.compile(temporaries(names))
    for path in _entries(folder):
        match = pattern.fullmatch(path.name)
        if match and not (shared and lives(int(match["pid"]))) and stat.S_ISREG(path.lstat().st_mode):
            path.unlink(missing_ok=True)


def lives(pid: int) -> bool:
    """Return whether another process on this machine has this number."""
    return pid != os.getpid() and psutil.pid_exists(pid)


def fsync_folder(folder: Path) -> None:
    """Make renames within a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[int]:
    """Give the descriptor of a temporary file, which replaces the file after the block, or is removed on failure.

    Raises:
        OSError: the place cannot be written, or is a folder.
    """
    if not path.name or path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # of a process that had this number before
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            yield descriptor
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)


def _room(found: os.stat_result) -> int:
    """Return the bytes that a file already takes on the disk."""
    return found.st_blocks * 512


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def to_json(value: Any, indent: bool = False, in_order: bool = False) -> bytes:
    """Encode, also numpy scalars and arrays. Non-finite numbers become null; names that are not UTF-8 are escaped.

    Integers of more than 64 bits become floats, as which they are read too.

    With `in_order`, keys are sorted, so that equal values have equal bytes.
    """
    option = orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indent else 0)
    option |= orjson.OPT_SORT_KEYS if in_order else 0
    try:
        return orjson.dumps(value, option=option)
    except TypeError:
        return orjson.dumps(_encodable(value), option=option)


def _encodable(value: Any) -> Any:
    """Return a value with bytes that are not UTF-8 written as \\udcff, and with large integers as floats."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(own) for key, own in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value) if value.bit_length() < 1024 else None
    return list(map(_encodable, value)) if isinstance(value, list | tuple) else value


def from_json(content: bytes) -> Any:
    """Decode JSON that `to_json` could encode.

    Raises:
        ValueError: the content is broken, or nested deeper than DEEPEST.
    """
    if len(content) < _MANY and content.count(b"[") + content.count(b"{") <= DEEPEST:
        return orjson.loads(content)
    around = _MOST_READ - DEEPEST  # our own lists use up the levels that are not allowed
    value = orjson.loads(b"".join((b"[" * around, content, b"]" * around)))
    for _ in range(around):
        (value,) = value
    return value


def read_json(path: str | Path) -> dict[str, Any] | None:
    """Return the object in a file, or None if the file is missing or broken."""
    try:
        value = from_json(read(path))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def name_nonfinite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with each non-finite number, which JSON writes as null, named under "nonfinite".

    {"loss": nan, "bins": [1.0, inf]} gains "nonfinite": {"loss": "nan", "bins": {"1": "inf"}}.
    """
    lost = {key: name for key, value in row.items() if (name := _nonfinite(value))}
    return {**row, "nonfinite": lost} if lost else dict(row)


def _nonfinite(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return {str(i): name for i, item in enumerate(value) if (name := _nonfinite(item))}
    return ""
