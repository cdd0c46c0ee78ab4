"""`cmbench stop`."""

import time
from typing import Annotated

import typer

from cmbench.cli._options import Run, RunsDir
from cmbench.errors import CmbenchError, ConflictError
from cmbench.rundir import control, status
from cmbench.rundir.select import address, runs_folder, select


def stop(
    run: Run,
    runs_dir: RunsDir = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for it; 0: do not wait.")] = 60.0,
) -> None:
    """Ask a live run to write a checkpoint and stop. It can be resumed."""
    chosen = select(run, runs_folder(runs_dir))
    state = status.read(chosen)["state"]
    if state not in status.LIVE:
        raise ConflictError(f"{chosen.name}: is not live ({state})")
    control.request(chosen, "stop")
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        now = status.read(chosen)
        if now["state"] not in status.LIVE:
            typer.echo(f"{chosen.name}: {now['state']} at step {now['step']}: cmbench resume {address(chosen)}")
            return
        time.sleep(0.2)
    if timeout:
        raise CmbenchError(f"{chosen.name}: asked to stop, but still {state} after {timeout:g} s")
    typer.echo(f"{chosen.name}: asked to stop")
