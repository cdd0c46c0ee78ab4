"""The lock of a run: its only writer holds it, and the system frees it however that process ends."""

import filelock

from cmbench.errors import ConflictError, writing
from cmbench.rundir.files import refuse_unusual
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address


def hold(run: RunDir) -> filelock.BaseFileLock:
    """Take the lock of a run.

    Raises:
        ConflictError: another process holds the lock.
        UsageError: the lock cannot be taken, for example because the run does not exist.
    """
    lock = filelock.FileLock(run.lock)
    with writing(run.lock):
        run.path.stat()  # filelock would create a missing folder
        refuse_unusual(run.lock)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ConflictError(f"{run.name}: a trainer works on this run (cmbench watch {address(run)})") from None
    return lock
