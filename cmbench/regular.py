"""Reading a file that somebody else may have put there: regular, of bounded size, or a reason why not."""

import os
import stat
from pathlib import Path


class NotRegularError(OSError):
    """There is something, and it is no regular file of the size that is allowed; `strerror` says what."""

    def __init__(self, reason: str) -> None:
        super().__init__(None, reason)


def read_regular(path: Path, largest: int) -> bytes:
    """Return the contents of a file of at most `largest` bytes.

    A device, a FIFO or a socket is not even opened, and of a file that grows no more is read than is allowed.

    Raises:
        NotRegularError: it is no regular file, or a larger one.
        OSError: it cannot be opened or read.
    """
    try:
        _check(path.stat())  # to open a device may do something
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as error:  # a zero byte in the name
        raise NotRegularError(str(error)) from None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        _check(os.fstat(descriptor))  # it may have taken the place of what was looked at
        content = file.read(largest + 1)
    if len(content) > largest:
        raise NotRegularError(f"Larger than {largest:,} bytes")
    return content


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotRegularError("Is a directory" if stat.S_ISDIR(found.st_mode) else "Is no regular file")
