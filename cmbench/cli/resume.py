"""`cmbench resume`."""

from cmbench import recipe
from cmbench.cli import _again, _former, _gpus, _restarts, _train
from cmbench.cli._app import app
from cmbench.cli._options import (
    Changes,
    CheckpointOrNone,
    Detach,
    Foreground,
    Gpus,
    HostGone,
    OtherData,
    Run,
    RunsDir,
    Trust,
)
from cmbench.errors import ConflictError
from cmbench.rundir import status
from cmbench.rundir.select import address, runs_folder, select


@app.command("resume", cls=_former.names(plain="foreground"))
def resume(
    run: Run,
    changes: Changes = None,
    checkpoint: CheckpointOrNone = None,
    other_data: OtherData = False,
    host_gone: HostGone = False,
    gpus: Gpus = None,
    runs_dir: RunsDir = None,
    foreground: Foreground = False,
    detach: Detach = False,
    trust: Trust = False,
) -> int:
    """Resume a stopped, crashed or diverged run from its newest checkpoint, exactly as if it had never ended.

    --checkpoint chooses an earlier one. Rows and settings of later steps then no longer count, and later checkpoints
    are kept in checkpoints/abandoned until the run has passed their steps. --set data.root=FOLDER says where the data
    are now, --set train.device=cpu where the run trains now. --set train.steps=N trains a run to step N, also a
    finished one.
    """
    _gpus.parsed(gpus)
    chosen = select(run, runs_folder(runs_dir))
    given = changes or []
    if begun := _restarts.begun(chosen):  # its trainer is dead, and has gone back to the chosen checkpoint
        checkpoint, host_gone = None, True
    if begun in _restarts.ENDED:
        return _restarts.ENDED[begun]
    _again.refuse_live(chosen, host_gone)
    status.refuse_imported(chosen)
    if status.read(chosen)["state"] == "finished" and "train.steps" not in recipe.flat_overrides(given):
        further = f"cmbench resume {address(chosen)} --set train.steps=N, or cmbench run --from {address(chosen)} ..."
        raise ConflictError(
            f"{chosen.name}: already finished (cmbench sample {address(chosen)}; more steps: {further})"
        )
    again = _again.Again(chosen, given, checkpoint, other_data, host_gone, trust, runs_folder(runs_dir))
    make = again.make()
    devices = _gpus.for_ranks(gpus, again.tables()["train"], chosen.name)
    return _train.train(make, again.arguments(), foreground, detach, gpus=devices)
