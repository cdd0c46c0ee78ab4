"""Output files that the user names. An existing thing at a path is replaced only if it is a file.

Links are followed. A pipe, /dev/null and this process's own output streams are written into, as the shell's `>` would.
Anything else is refused.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from cmbench.errors import UsageError, refusing_write_errors
from cmbench.rundir import new_folder
from cmbench.rundir.files import make_folder, write_all, write_atomically
from cmbench.text import shown

_STREAMS = (1, 2)  # stdout and stderr; reopening one would overwrite its file from the beginning


def check(path: Path, option: str, folders: bool = False) -> None:
    """Refuse what `write` would refuse, before the content takes hours to compute.

    Raises:
        UsageError: the path cannot be written; the message names `option`.
    """
    with refusing_write_errors(f"{option} {path}"):
        if _is_written_into(path):
            return
        folder = path.resolve().parent
        while folders and not os.path.lexists(folder):
            folder = folder.parent
        if folders and not folder.is_dir():
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if os.access(folder, os.W_OK | os.X_OK):
            return
    raise UsageError(f"{option} {path}: cannot be written: its folder is not writable")


def apart(**files: Path | None) -> None:
    """Refuse two options that name one file, of which one content would be lost.

    Args:
        files: by the option, without its hyphens; None where it was not given.

    Raises:
        UsageError: two name the same file.
    """
    places: dict[str, str] = {}
    for option, path in files.items():
        if path is None or str(path) == "-":
            continue
        place = str(path)
        with suppress(OSError, ValueError):  # `write` says why it is no place
            if path.exists() and not path.is_file():
                continue
            place = str(path.resolve())
        first = places.setdefault(place, option)
        if first != option:
            raise UsageError(f"--{first}, --{option}: found {shown(str(path), 200)} for both, allowed: two files")


def write(path: Path, content: bytes, option: str, folders: bool = False) -> None:
    """Write a file completely or not at all.

    Args:
        path: as the user named it.
        content: of the file.
        option: the option that names the path, for messages.
        folders: whether to make missing folders of the path; if it cannot be written, they are removed again.

    Raises:
        UsageError: the path cannot be written, or is neither a file nor a pipe.
    """
    with refusing_write_errors(f"{option} {path}"):
        if not _is_written_into(path):
            with new_folder.parents_of(path.resolve()) if folders else nullcontext():
                write_atomically(path.resolve(), content)
            return
        with _opened(path) as descriptor:
            write_all(descriptor, content)


def keep(path: Path, content: bytes, what: str) -> None:
    """Write a file into a run's folder, which may have been moved meanwhile.

    Raises:
        UsageError: it cannot be written; the message calls it `what`.
    """
    with refusing_write_errors(f"{what}: {path}"):
        make_folder(path.parent)
        write_atomically(path, content)


def _is_written_into(path: Path) -> bool:
    """Return whether a path is a pipe or a device that takes text; False for a file, or if nothing is there yet.

    Raises:
        OSError: the path is something else.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    except ValueError as error:  # a zero byte
        raise OSError(errno.EINVAL, str(error)) from None
    if _stream(found) is not None:
        return True
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISFIFO(found.st_mode) or stat.S_ISCHR(found.st_mode)):
        raise OSError(errno.EINVAL, "neither a file nor a pipe")
    return not stat.S_ISREG(found.st_mode)


def _stream(found: os.stat_result) -> int | None:
    """Return which of the process's own streams goes to a file, if one does."""
    for stream in _STREAMS:
        with suppress(OSError):  # closed by the parent process
            if os.path.samestat(found, os.fstat(stream)):
                return stream
    return None


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a pipe or a device to write into. A terminal is refused: the content was not made harmless for it.

    Raises:
        OSError: the path cannot be opened, or nobody reads the pipe.
    """
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    stream = _stream(path.stat())
    descriptor = os.open(path, flags) if stream is None else os.dup(stream)
    try:
        if os.isatty(descriptor):
            raise OSError(errno.EINVAL, "a terminal, allowed: a file, a pipe or /dev/null")
        os.set_blocking(descriptor, True)
        yield descriptor
    finally:
        os.close(descriptor)
