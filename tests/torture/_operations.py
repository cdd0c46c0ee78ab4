"""What a process does to files, one operation after the other: counted, and handed to whoever wants to break one.

Names (mkdir, rename, unlink, rmdir, truncate, links) are told by Python's audit events, content (open for writing,
write, fsync) by wrappers around `open` and the functions of `os`.
"""

import builtins
import io
import os
import pathlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_EVENTS = {
    "os.mkdir": ("mkdir", 0, 2),
    "os.rename": ("rename", 1, 3),
    "os.remove": ("unlink", 0, 1),
    "os.rmdir": ("rmdir", 0, 1),
    "os.symlink": ("symlink", 1, 2),
    "os.link": ("link", 1, 3),
    "os.truncate": ("truncate", 0, None),
}
_DESCRIPTORS = ("fsync", "fdatasync", "sendfile", "copy_file_range", "posix_fallocate")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Operation(NamedTuple):
    """One operation that is about to happen; counted from 1."""

    number: int
    kind: str
    path: str
    fd: int = -1
    data: bytes = b""
    source: str = ""  # of a rename


Before = Callable[[Operation], "int | None"]


class _Watch:
    def __init__(self, folder: Path, before: Before) -> None:
        self.folder, self.before, self.count, self.busy = os.path.realpath(folder), before, 0, False

    def tell(self, kind: str, path: str, fd: int = -1, data: Any = b"", source: str = "") -> "int | None":
        """Let the attacker act; return how many bytes of a write are to be written, None for all."""
        if self.busy or not (path == self.folder or path.startswith(f"{self.folder}/")):
            return None
        self.busy = True
        try:
            self.count += 1
            return self.before(Operation(self.count, kind, path, fd, bytes(data), source))
        finally:
            self.busy = False


_watch: _Watch | None = None


def watch(folder: Path, before: Before) -> None:
    """Call `before` ahead of each operation on files under a folder, from now to the end of this process.

    It may raise OSError in the place of the operation, end the process, or return how many bytes a write may write.
    """
    global _watch
    _watch = found = _Watch(folder, before)
    sys.addaudithook(_audit)
    real_open, real_os_open = io.open, os.open

    def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+") or options.get("opener"):
            return real_open(file, mode, buffering, *rest, **options)
        found.tell("open", _absolute(file))
        return _opened(file, mode, buffering, *rest, **options)

    def os_opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & _WRITING:
            found.tell("open", _absolute(path, dir_fd))
        return real_os_open(path, flags, mode, dir_fd=dir_fd)

    for owner in (io, builtins):
        owner.open = opened
    if accessor := getattr(pathlib, "_NormalAccessor", None):  # Python 3.10 keeps its own
        accessor.open = staticmethod(opened)
    os.open = os_opened
    os.write = _writing(os.write)
    os.pwrite = _writing(os.pwrite)
    for name in _DESCRIPTORS:
        if function := getattr(os, name, None):
            setattr(os, name, _telling(name, function))


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if (known := _EVENTS.get(event)) and _watch is not None and not _watch.busy:
        kind, at, dir_at = known
        dir_fd = None if dir_at is None or dir_at >= len(arguments) else arguments[dir_at]
        source = _absolute(arguments[0], arguments[2]) if kind == "rename" else ""
        _watch.tell(kind, _absolute(arguments[at], dir_fd), source=source)


def _absolute(path: Any, dir_fd: int | None = None) -> str:
    """Return a path without links in its folders; the last name may be a link itself."""
    if isinstance(path, int):
        return _of(path)
    text = os.fsdecode(path)
    if dir_fd not in (None, -1) and not text.startswith("/"):
        text = f"{_of(dir_fd)}/{text}"
    folder, name = os.path.split(text)
    return f"{os.path.realpath(folder)}/{name}"


def _of(descriptor: int | None) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _writing(function: Callable[..., int]) -> Callable[..., int]:
    def write(fd: int, data: Any, *rest: Any) -> int:
        assert _watch is not None
        limit = _watch.tell("write", _absolute(fd), fd, data)
        return function(fd, data if limit is None else bytes(data)[:limit], *rest)

    return write


def _telling(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def told(fd: int, *rest: Any) -> Any:
        assert _watch is not None
        _watch.tell("fsync" if name == "fdatasync" else "write" if name != "fsync" else name, _absolute(fd), fd)
        return function(fd, *rest)

    return told


class _Raw(io.FileIO):
    """A file that tells of its writes."""

    def write(self, data: Any, /) -> int:
        assert _watch is not None
        limit = _watch.tell("write", _absolute(self.fileno()), self.fileno(), data)
        return super().write(data if limit is None else bytes(data)[:limit]) or 0

    def truncate(self, size: int | None = None, /) -> int:
        assert _watch is not None
        _watch.tell("truncate", _absolute(self.fileno()), self.fileno())
        return super().truncate(size)


def _opened(
    file: Any,
    mode: str,
    buffering: int,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Any = None,
) -> Any:
    """Open as `io.open` does, with a file below that tells of its writes."""
    raw = _Raw(file, mode.replace("b", "").replace("t", ""))
    if buffering == 0:
        return raw
    buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    if "b" in mode:
        return buffered
    text = io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)
    text.mode = mode  # type: ignore[misc]
    return text
