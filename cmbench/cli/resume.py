"""`cmbench resume`."""

from typing import TYPE_CHECKING

from cmbench.cli import _train
from cmbench.cli._options import Detach, Foreground, Run, RunsDir
from cmbench.errors import ConflictError
from cmbench.rundir import status
from cmbench.rundir.select import address, runs_folder, select

if TYPE_CHECKING:
    from cmbench.engine.runner import Runner


def resume(run: Run, runs_dir: RunsDir = None, foreground: Foreground = False, detach: Detach = False) -> int:
    """Take a stopped, crashed or diverged run up from its newest checkpoint, exactly as if it had never ended."""
    chosen = select(run, runs_folder(runs_dir))
    state = status.read(chosen)["state"]
    if state == "finished":
        raise ConflictError(f"{chosen.name}: already finished (cmbench sample {address(chosen)})")
    if state == "running":
        raise ConflictError(f"{chosen.name}: is running (cmbench watch {address(chosen)})")

    def make() -> "Runner":
        from cmbench.engine import runner

        return runner.resume(chosen, runs_dir)

    arguments = ["resume", str(chosen.path.resolve())]
    arguments += ["--runs-dir", str(runs_dir)] if runs_dir else []
    return _train.train(make, arguments, foreground, detach)
