"""Files of a run: read by one function, written to a temporary name, fsynced, renamed; and JSON that knows no NaN."""

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

_NO_SURPRISE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # no link is followed, and no pipe waited for
_KINDS = ((stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISDIR, "a folder"))

LARGEST = 1 << 24  # bytes of a file that is read as a whole
DEEPEST = 128  # lists and objects in each other that are read: what is read may be written again, a few levels deeper
_MANY = 1 << 14  # bytes in which it takes longer to count brackets than to add our own
_MOST_READ = 1024  # levels that orjson reads; of those it writes a quarter


def opened(path: str | Path) -> BinaryIO:
    """Open a file of a run.

    A link is not followed, for what a run holds lies in its folder; the folder itself, and those in it, may be links.

    Raises:
        OSError: as `regular.opened`.
    """
    return regular.opened(path)


def read(path: str | Path, most: int = LARGEST) -> bytes:
    """Return what stands in a file of a run, which is no link.

    Raises:
        OSError: as `regular.read`.
    """
    return regular.read(path, most)


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Replace a file so that every reader, and every crash, sees the old content or the new.

    What is not `durable`, such as a heartbeat, may be the old content again after a power cut. A link is replaced, and
    what it points to stays as it is.

    Raises:
        OSError: the place cannot be written, a folder among them.
    """
    with _replacing(path, durable) as descriptor:
        write_all(descriptor, content)


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte, or raise what the system says."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def overwrite(path: Path, content: bytes) -> None:
    """Write over a small file where the disk has no room for a second one. No crash may come in between.

    Raises:
        OSError: it is not there, or the content wants more of the disk than the file has.
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
    """Refuse what stands in the place of a file that is to be written on, and is none.

    Raises:
        OSError: it is a link, a pipe, a device or a folder.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(mode := path.lstat().st_mode):
            kind = next((kind for test, kind in _KINDS if test(mode)), "a device")
            raise OSError(errno.EINVAL, f"{path.name} is {kind}, allowed: a regular file")


def open_to_append(path: Path) -> int:
    """Open a log to be written on, and made where there is none; return its descriptor, which can be read as well.

    Of a file with several names, as copies by `cp -al` have them, a copy is made: the other names keep what they hold.

    Raises:
        OSError: it cannot be written, or is no regular file.
    """
    refuse_unusual(path)
    if path.exists() and path.stat().st_nlink > 1:
        with path.open("rb") as shared, _replacing(path) as copy:
            for block in iter(lambda: shared.read(1 << 20), b""):
                write_all(copy, block)
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _NO_SURPRISE, 0o666)


def make_folder(folder: Path) -> None:
    """Make a folder where it is missing, but never the one that holds it. A link to a folder is one.

    Raises:
        OSError: it cannot be made, or something else has its name.
    """
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise OSError(errno.ENOTDIR, f"{folder.name} is no folder, nor a link to one") from None


def temporaries(names: str) -> str:
    """Return the pattern of what `write_atomically` calls the temporaries of files, given the pattern of theirs."""
    return rf"\.(?:{names})\.(?P<pid>[0-9]{{1,7}})\.tmp"


def remove_temporaries(folder: Path, names: str, shared: bool = False) -> None:
    """Remove what killed writers left in a folder of files whose names match a pattern, and nothing else.

    Args:
        folder: that may hold anything else as well.
        names: the pattern. Only the one writer of these files may call this, unless they are
        shared: by writers that may be at work. Only what those left that are no more is removed.
    """
    pattern = re.compile(temporaries(names))
    for path in _entries(folder):
        match = pattern.fullmatch(path.name)
        if match and not (shared and lives(int(match["pid"]))) and stat.S_ISREG(path.lstat().st_mode):
            path.unlink(missing_ok=True)


def lives(pid: int) -> bool:
    """Return whether another process of this machine has this number."""
    return pid != os.getpid() and psutil.pid_exists(pid)


def fsync_folder(folder: Path) -> None:
    """Make renames within a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _replacing(path: Path, durable: bool = True) -> Iterator[int]:
    """Give a descriptor of what is to replace a file at the end of the block, or is removed where that fails."""
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
    """Return the bytes of the disk that a file has already."""
    return found.st_blocks * 512


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def to_json(value: Any, indent: bool = False, in_order: bool = False) -> bytes:
    """Encode, with numpy scalars and arrays; non-finite numbers become null, names that are not UTF-8 are escaped.

    Keys stand `in_order` of their letters where the bytes tell one value from another.
    """
    option = orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indent else 0)
    option |= orjson.OPT_SORT_KEYS if in_order else 0
    try:
        return orjson.dumps(value, option=option)
    except TypeError:
        return orjson.dumps(_in_utf8(value), option=option)


def _in_utf8(value: Any) -> Any:
    """Return a value in which the bytes of file names that are not UTF-8 stand as \\udcff."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_in_utf8(key): _in_utf8(own) for key, own in value.items()}
    return list(map(_in_utf8, value)) if isinstance(value, list | tuple) else value


def from_json(content: bytes) -> Any:
    """Decode JSON that `to_json` could encode.

    Raises:
        ValueError: it is broken, or nested deeper than DEEPEST.
    """
    if len(content) < _MANY and content.count(b"[") + content.count(b"{") <= DEEPEST:
        return orjson.loads(content)
    around = _MOST_READ - DEEPEST  # our own lists take up what is not allowed
    value = orjson.loads(b"".join((b"[" * around, content, b"]" * around)))
    for _ in range(around):
        (value,) = value
    return value


def read_json(path: str | Path) -> dict[str, Any] | None:
    """Return the object in a file, or None where it is missing or broken."""
    try:
        value = from_json(read(path))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def name_nonfinite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Name each non-finite number, which JSON writes as null, under "nonfinite".

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
