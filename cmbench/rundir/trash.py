"""Unwanted runs: moved aside, never deleted."""

import os
from itertools import count
from pathlib import Path

from cmbench.errors import ConflictError, refusing_write_errors
from cmbench.rundir import status
from cmbench.rundir.files import make_folder
from cmbench.rundir.layout import LATEST, TRASH, RunDir, point_latest
from cmbench.rundir.lock import hold
from cmbench.rundir.select import all_runs


def trash(run: RunDir) -> RunDir:
    """Move a run to .trash beside it, where no command looks, and return the moved run.

    Raises:
        ConflictError: a trainer works on the run, or may.
        UsageError: the run cannot be moved.
    """
    if (state := status.read(run)["state"]) in status.LIVE:
        raise ConflictError(f"{run.name}: is live ({state}): stop it first (cmbench stop)")
    folder = run.path.parent / TRASH
    with refusing_write_errors(run.path):
        make_folder(folder)
        lock = hold(run)  # no trainer may start on the run while it moves
        try:
            was_latest = _is_latest(run)
            moved = RunDir(run.path.rename(_free(folder / run.name)))
            if was_latest:
                _repoint(run.path.parent)
        finally:
            lock.release()
    return moved


def _free(wanted: Path) -> Path:
    """Return a free path: the wanted one, with a number if it is taken."""
    names = (wanted.with_name(f"{wanted.name}.{i}") if i else wanted for i in count())
    return next(path for path in names if not os.path.lexists(path))


def _is_latest(run: RunDir) -> bool:
    latest = run.path.parent / LATEST
    return latest.is_symlink() and latest.readlink().name == run.name


def _repoint(runs_dir: Path) -> None:
    """Point runs/latest to the newest of the remaining runs."""
    if left := all_runs(runs_dir):
        point_latest(left[-1])
    else:
        (runs_dir / LATEST).unlink(missing_ok=True)
