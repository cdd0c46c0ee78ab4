"""The lock of a run: its only writer holds it, and the system frees it however that process ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock

from cmbench.errors import ConflictError, refusing_write_errors
from cmbench.rundir.files import refuse_unusual
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address

_PATIENCE, _POLL = 10.0, 0.01  # seconds


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Let one process at a time do something short in a folder.

    Where the file system has no locks of folders, or a process holds one for long, all go on at once.
    """
    with ExitStack() as undo:
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            handle = None
        if handle is not None:
            undo.callback(os.close, handle)
            end = time.monotonic() + _PATIENCE
            while not _locked(handle) and time.monotonic() < end:
                time.sleep(_POLL)
        yield


def _locked(handle: int) -> bool:
    """Take the lock of an open folder; return False if another process holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # not here
        return True
    return True


def hold(run: RunDir) -> filelock.BaseFileLock:
    """Take the lock of a run.

    Raises:
        ConflictError: another process holds the lock.
        UsageError: the lock cannot be taken, for example because the run does not exist.
    """
    lock = filelock.FileLock(run.lock)
    with refusing_write_errors(run.lock):
        run.path.stat()  # filelock would create a missing folder
        refuse_unusual(run.lock)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ConflictError(f"{run.name}: a trainer works on this run (cmbench watch {address(run)})") from None
    return lock
