"""`cmbench ls`."""

import time
from typing import Any

from cmbench import recipe as recipes
from cmbench.cli import _screen
from cmbench.cli._app import app
from cmbench.cli._options import Json, RunsDir
from cmbench.cli._screen import table
from cmbench.rundir import floors, status
from cmbench.rundir.layout import RunDir
from cmbench.rundir.overview import Glance, glance
from cmbench.rundir.select import all_runs, runs_folder
from cmbench.text import cut
from cmbench.words.numbers import four_digits
from cmbench.words.times import age


@app.command("ls")
def ls(runs_dir: RunsDir = None, json: Json = False) -> None:
    """List all runs, the newest first."""
    folder = runs_folder(runs_dir)
    found = all_runs(folder)[::-1]
    if json:
        _screen.data({"schema": 1, "runs": list(map(_about, found))})
    elif found:
        looks = [glance(run) for run in found]
        table(["run", "state", "step", "loss", "quality", "age"], [_cells(look) for look in looks], spare=3)
        if any(look.is_within_floor for look in looks):
            _screen.line(floors.legend())
    else:
        begin = f"cmbench run {_first_recipe()} starts one, --runs-dir FOLDER looks elsewhere"
        _screen.line(f"no runs in {cut(str(folder), 200)}: {begin}", err=True)


def _first_recipe() -> str:
    """Return a recipe that can be run from here, a small one if possible."""
    names = [path.stem for path in recipes.available()]
    return next((name for name in ("ct_edm_ring", "ct_edm", *names) if name in names), "RECIPE.toml")


def _about(run: RunDir) -> dict[str, Any]:
    now = status.read(run)
    return {"name": run.name, "path": str(run.path), **now}


def _cells(look: Glance) -> list[str]:
    return [
        look.name,
        look.state,
        "-" if look.state == status.IMPORTED else f"{look.step}/{'?' if look.of is None else look.of}",
        four_digits(look.loss),
        floors.marked(four_digits(look.quality), look.is_within_floor),
        age(time.time() - look.heartbeat),
    ]
