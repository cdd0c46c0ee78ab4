"""Runs that are no longer wanted: moved aside, never deleted."""

import os
from itertools import count
from pathlib import Path

from cmbench.errors import ConflictError, writing
from cmbench.rundir import status
from cmbench.rundir.files import make_folder
from cmbench.rundir.layout import LATEST, TRASH, RunDir, point_latest
from cmbench.rundir.lock import hold
from cmbench.rundir.select import all_runs


def trash(run: RunDir) -> RunDir:
    """Move a run to .trash beside it, where no command looks, and return where it is now.

    Raises:
        ConflictError: a trainer works on it, or may.
        UsageError: it cannot be moved.
    """
    if (state := status.read(run)["state"]) in status.LIVE:
        raise ConflictError(f"{run.name}: is live ({state}): stop it first (cmbench stop)")
    folder = run.path.parent / TRASH
    with writing(run.path):
        make_folder(folder)
        lock = hold(run)  # while it moves: no trainer starts on it meanwhile
        try:
            was_latest = _is_latest(run)
            moved = RunDir(run.path.rename(_free(folder / run.name)))
            if was_latest:
                _repoint(run.path.parent)
        finally:
            lock.release()
    return moved


def _free(wanted: Path) -> Path:
    """Return a path where nothing is: the wanted one, or it with a number."""
    names = (wanted.with_name(f"{wanted.name}.{i}") if i else wanted for i in count())
    return next(path for path in names if not os.path.lexists(path))


def _is_latest(run: RunDir) -> bool:
    latest = run.path.parent / LATEST
    return latest.is_symlink() and latest.readlink().name == run.name


def _repoint(runs_dir: Path) -> None:
    """Let runs/latest name the newest of the runs that are left."""
    if left := all_runs(runs_dir):
        point_latest(left[-1])
    else:
        (runs_dir / LATEST).unlink(missing_ok=True)
