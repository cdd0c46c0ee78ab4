"""What a command that torchrun has started again takes up: the run that its launch has begun already."""

from pathlib import Path

from cmbench.errors import STOPPED, DivergedError
from cmbench.rundir import group
from cmbench.rundir.layout import RunDir

ENDED = {"finished": 0, "stopped": STOPPED, "diverged": DivergedError.exit_code}  # states that no restart takes up


def begun(run: RunDir) -> str:
    """Return the state of a run if this launch has begun it or taken it up; empty if not, and without torchrun."""
    return group.begun(run, _launch())


def found(runs_dir: Path) -> RunDir | None:
    """Return the run that this launch has begun in a folder; None if there is none yet, and without torchrun."""
    return group.begun_in(runs_dir, _launch())


def _launch() -> str:
    if not group.is_launched():
        return ""
    from cmbench.engine import launched

    return launched.name()
