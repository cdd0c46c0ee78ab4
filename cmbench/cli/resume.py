"""`cmbench resume`."""

from cmbench import recipe
from cmbench.cli import _again, _former, _train
from cmbench.cli._app import app
from cmbench.cli._options import Changes, CheckpointOrNone, Detach, Foreground, HostGone, OtherData, Run, RunsDir, Trust
from cmbench.errors import STOPPED, ConflictError, DivergedError
from cmbench.rundir import group, status
from cmbench.rundir.select import address, runs_folder, select

_ENDED = {"finished": 0, "stopped": STOPPED, "diverged": DivergedError.exit_code}  # not resumed by torchrun's restarts


@app.command("resume", cls=_former.names(plain="foreground"))
def resume(
    run: Run,
    changes: Changes = None,
    checkpoint: CheckpointOrNone = None,
    other_data: OtherData = False,
    host_gone: HostGone = False,
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
    chosen = select(run, runs_folder(runs_dir))
    given = changes or []
    _again.refuse_live(chosen, host_gone)
    now = status.read(chosen)
    if group.restarted():  # a group of ranks that began, or resumed, this run
        if now["state"] in _ENDED:
            return _ENDED[now["state"]]
        checkpoint = None
    if now["state"] == "finished" and "train.steps" not in recipe.flat_overrides(given):
        further = f"cmbench resume {address(chosen)} --set train.steps=N, or cmbench run --from {address(chosen)} ..."
        raise ConflictError(
            f"{chosen.name}: already finished (cmbench sample {address(chosen)}; more steps: {further})"
        )
    again = _again.Again(chosen, given, checkpoint, other_data, host_gone, trust, runs_folder(runs_dir))
    return _train.train(again.make(), again.arguments(), foreground, detach)
