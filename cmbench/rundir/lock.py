"""The lock of a run: held by its one writer, and freed by the system however the process ends."""

import filelock

from cmbench.errors import ConflictError, writing
from cmbench.rundir.files import refuse_unusual
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address


def hold(run: RunDir) -> filelock.BaseFileLock:
    """Take the lock of a run.

    Raises:
        ConflictError: another process has it.
        UsageError: it cannot be taken, for the run is not there, say.
    """
    lock = filelock.FileLock(run.lock)
    with writing(run.lock):
        run.path.stat()  # filelock would make the folder anew
        refuse_unusual(run.lock)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ConflictError(f"{run.name}: a trainer works on this run (cmbench watch {address(run)})") from None
    return lock
