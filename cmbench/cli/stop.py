"""`cmbench stop`."""

import time

from cmbench.cli import _follow, _screen
from cmbench.cli._app import app
from cmbench.cli._options import Run, RunsDir, Timeout
from cmbench.cli.requests import select_live
from cmbench.errors import STOPPED, CmbenchError
from cmbench.rundir import control, status


@app.command("stop")
def stop(
    run: Run,
    runs_dir: RunsDir = None,
    timeout: Timeout = 60.0,
) -> int:
    """Ask a live run to write a checkpoint and stop. It can be resumed."""
    chosen = select_live(run, runs_dir)
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
    _screen.line(f"{chosen.name}: asked to stop")
    return 0
