"""Files of a run: read by one function, written to a temporary name, fsynced, renamed; and JSON that knows no NaN."""

import errno
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import orjson

LARGEST = 1 << 24  # bytes of a file that is read as a whole
_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


def opened(path: str | Path) -> BinaryIO:
    """Open a file of a run: a regular one, for anything else in its place may wait for ever or have no end.

    A link is not followed, for what a run holds lies in its folder; the folder itself, and those in it, may be links.

    Raises:
        OSError: there is none, or it is none that can be read.
    """
    return os.fdopen(_descriptor(path)[0], "rb")


def read(path: str | Path, most: int = LARGEST) -> bytes:
    """Return what stands in a file of a run.

    Raises:
        OSError: there is none, it cannot be read, or it has more than `most` bytes.
    """
    descriptor, size = _descriptor(path)
    try:  # a file object would take a third of the time of `cmbench ls`
        content, last = b"", b"-"
        while last and max(size, len(content)) <= most:
            last = os.read(descriptor, min(size, most) + 1)
            content += last
    finally:
        os.close(descriptor)
    if (found := max(size, len(content))) > most:
        raise OSError(errno.EFBIG, f"{found:,} bytes, allowed: at most {most:,}", str(path))
    return content


def _descriptor(path: str | Path) -> tuple[int, int]:
    """Open a file as `opened` does, and return its descriptor and size."""
    try:
        descriptor = os.open(path, _READING)
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):  # noqa: PTH114 - as for all paths here
            raise OSError(errno.ELOOP, "a link, which is not followed", str(path)) from None
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor, found.st_size


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Replace a file so that every reader, and every crash, sees the old content or the new.

    What is not `durable`, such as a heartbeat, may be the old content again after a power cut.

    Raises:
        OSError: the place cannot be written, a folder among them.
    """
    if not path.name or path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed writer left in a folder; only its one writer may call this."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Make renames within a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_json(value: Any, indent: bool = False) -> bytes:
    """Encode, with numpy scalars and arrays; non-finite numbers become null, names that are not UTF-8 are escaped."""
    option = orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indent else 0)
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


def read_json(path: str | Path) -> dict[str, Any] | None:
    """Return the object in a file, or None where it is missing or broken."""
    try:
        value = orjson.loads(read(path))
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
