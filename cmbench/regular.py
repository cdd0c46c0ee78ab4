"""Reads a file that another user may have put there: a regular file of bounded size, or a reason why not.

A device, a FIFO or a socket is not even opened: reading it might wait for ever or have no end.
"""

import errno
import mmap
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import numpy as np

_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def opened(path: str | Path, links: bool = False) -> BinaryIO:
    """Open a regular file for reading; follow links only if `links` is true.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    return os.fdopen(_descriptor(path, links)[0], "rb")


def read(path: str | Path, most: int, links: bool = False) -> bytes:
    """Return the content of such a file.

    Raises:
        OSError: there is none, it cannot be read, or it has more than `most` bytes, even if it grows meanwhile.
    """
    descriptor, size = _descriptor(path, links)
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


def _descriptor(path: str | Path, links: bool) -> tuple[int, int]:
    """Open a file as `opened` does, and return its descriptor and size."""
    try:
        _check(os.stat(path, follow_symlinks=links), path)  # noqa: PTH116 - opening a device may do something
        descriptor = os.open(path, _READING | (0 if links else os.O_NOFOLLOW))
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    found = os.fstat(descriptor)
    try:
        _check(found, path)  # it may have replaced the file that was checked
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, found.st_size


def _check(found: os.stat_result, path: str | Path) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, "a link, which is not followed", str(path))
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def expect_single_rows(values: "np.ndarray") -> None:
    """Tell the system that rows of an array that is mapped from a file will be read here and there, one by one.

    Else it reads 128 KiB for each row of 3 KiB, and throws away what a set larger than the memory needs next.
    """
    below: object = values
    while hasattr(below, "base"):
        below = below.base
    if isinstance(below, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        below.madvise(mmap.MADV_RANDOM)
