"""`cmbench ls`."""

import time
from typing import Any

import typer

from cmbench.cli._lines import duration, number
from cmbench.cli._options import Json, RunsDir
from cmbench.cli._tables import table
from cmbench.measures import quality_keys
from cmbench.rundir import status
from cmbench.rundir.files import to_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import all_runs, runs_folder


def ls(runs_dir: RunsDir = None, json: Json = False) -> None:
    """List all runs, the newest first."""
    folder = runs_folder(runs_dir)
    found = [_about(run) for run in reversed(all_runs(folder))]
    if json:
        typer.echo(to_json({"schema": 1, "runs": found}))
    elif found:
        table(["run", "state", "step", "loss", "quality", "age"], [_cells(about) for about in found], spare=3)
    else:
        typer.echo(f"no runs in {folder}: cmbench run recipes/ct_edm.toml", err=True)


def _about(run: RunDir) -> dict[str, Any]:
    now = status.read(run)
    return {"name": run.name, "path": str(run.path), **now}


def _cells(about: dict[str, Any]) -> list[str]:
    loss = about.get("last", {}).get("loss")
    best = about.get("best", {})
    quality = next((best[key]["value"] for key in quality_keys(best)), None)
    return [
        about["name"],
        about["state"],
        f"{about['step']}/{about.get('of', '?')}",
        "-" if loss is None else number(loss),
        "-" if quality is None else number(quality),
        duration(time.time() - about["heartbeat"]),
    ]
