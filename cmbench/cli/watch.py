"""`cmbench watch`."""

from typing import Annotated

import typer

from cmbench.cli import _follow
from cmbench.cli._options import Json, Run, RunsDir
from cmbench.rundir.files import to_json
from cmbench.rundir.select import address, runs_folder, select


def watch(
    run: Run = "@latest",
    runs_dir: RunsDir = None,
    past: Annotated[int, typer.Option("--past", "-n", min=0, help="Lines of what has been to begin with.")] = 10,
    json: Json = False,
) -> None:
    """Follow a run as log lines until it ends. Ctrl-C leaves; the run goes on."""
    chosen = select(run, runs_folder(runs_dir))
    if json:
        for row in _follow.rows(chosen, past):
            typer.echo(to_json(row))
        return
    typer.echo(chosen.name)
    try:
        for line in _follow.lines(chosen, past):
            typer.echo(line)
    except KeyboardInterrupt:
        typer.echo(f"\nleft; the run goes on: cmbench watch {address(chosen)}")
        return
    _follow.closing(chosen)
