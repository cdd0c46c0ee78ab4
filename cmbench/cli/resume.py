"""`cmbench resume`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmbench import recipe, steering
from cmbench.cli import _train
from cmbench.cli._options import Changes, Detach, Foreground, Run, RunsDir
from cmbench.errors import ConflictError
from cmbench.rundir import checkpoints, status
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address, runs_folder, select

if TYPE_CHECKING:
    from cmbench.engine.runner import Runner


def resume(
    run: Run,
    changes: Changes = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="STEP|best", help="Go back to this checkpoint and abandon what lies past it."),
    ] = None,
    runs_dir: RunsDir = None,
    foreground: Foreground = False,
    detach: Detach = False,
) -> int:
    """Take a stopped, crashed or diverged run up from its newest checkpoint, exactly as if it had never ended.

    With --checkpoint from an earlier one: rows and settings of later steps count no more, and later checkpoints are set
    aside in checkpoints/abandoned until the run has passed their steps.
    """
    chosen = select(run, runs_folder(runs_dir))
    state = status.read(chosen)["state"]
    if state == "finished":
        raise ConflictError(f"{chosen.name}: already finished (cmbench sample {address(chosen)})")
    if state in ("running", "paused"):
        next_command = "watch" if state == "running" else "continue"
        raise ConflictError(f"{chosen.name}: is {state} (cmbench {next_command} {address(chosen)})")
    given = changes or []
    settings = steering.parse(recipe.load(chosen.recipe), given, chosen.name)
    step = None if checkpoint is None else checkpoints.choose(chosen, checkpoint)

    path, runs_path = chosen.path.resolve(), runs_folder(runs_dir).resolve()

    def make() -> "Runner":
        from cmbench.engine import runner

        # Data and modules of one's own may be named relative to where the run was started.
        began = Path((read_json(chosen.meta) or {}).get("directory", "."))
        os.chdir(began if began.is_dir() else ".")
        return runner.resume(RunDir(path), runs_path, settings, step)

    arguments = ["resume", str(path), "--runs-dir", str(runs_path)]
    arguments += [part for change in given for part in ("--set", change)]
    arguments += [] if step is None else ["--checkpoint", str(step)]
    return _train.train(make, arguments, foreground, detach)
