"""`cmbench stop`."""

import time
from typing import Annotated

import typer

from cmbench.cli import _follow
from cmbench.cli._options import Run, RunsDir
from cmbench.errors import STOPPED, CmbenchError, ConflictError
from cmbench.rundir import control, status
from cmbench.rundir.select import runs_folder, select


def stop(
    run: Run,
    runs_dir: RunsDir = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for it; 0: do not wait.")] = 60.0,
) -> int:
    """Ask a live run to write a checkpoint and stop. It can be resumed."""
    chosen = select(run, runs_folder(runs_dir))
    state = status.read(chosen)["state"]
    if state not in status.LIVE:
        raise ConflictError(f"{chosen.name}: is not live ({state})")
    control.request(chosen, "stop")
    deadline = time.monotonic() + timeout
    while status.is_live(chosen) and time.monotonic() < deadline:
        time.sleep(0.2)
    if not status.is_live(chosen):
        code = _follow.closing(chosen)
        return 0 if code == STOPPED else code
    if timeout:
        raise CmbenchError(
            f"{chosen.name}: asked to stop, but still {status.read(chosen)['state']} after {timeout:g} s"
        )
    typer.echo(f"{chosen.name}: asked to stop")
    return 0
