"""`cmbench ls`."""

import time
from typing import Any

from cmbench.cli import _screen
from cmbench.cli._options import Json, RunsDir
from cmbench.cli._tables import table
from cmbench.rundir import status
from cmbench.rundir.layout import RunDir
from cmbench.rundir.overview import Glance, glance
from cmbench.rundir.select import all_runs, runs_folder
from cmbench.tui.signs import clock, four_digits


def ls(runs_dir: RunsDir = None, json: Json = False) -> None:
    """List all runs, the newest first."""
    folder = runs_folder(runs_dir)
    found = all_runs(folder)[::-1]
    if json:
        _screen.data({"schema": 1, "runs": list(map(_about, found))})
    elif found:
        table(["run", "state", "step", "loss", "quality", "age"], [_cells(glance(run)) for run in found], spare=3)
    else:
        _screen.line(f"no runs in {folder}: cmbench run recipes/ct_edm.toml", err=True)


def _about(run: RunDir) -> dict[str, Any]:
    now = status.read(run)
    return {"name": run.name, "path": str(run.path), **now}


def _cells(look: Glance) -> list[str]:
    return [
        look.name,
        look.state,
        f"{look.step}/{'?' if look.of is None else look.of}",
        *("-" if figure is None else four_digits(figure) for figure in (look.loss, look.quality)),
        clock(time.time() - look.heartbeat),
    ]
