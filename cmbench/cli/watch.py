"""`cmbench watch`."""

from typing import Annotated

import typer

from cmbench.cli import _dashboard, _follow, _former, _screen
from cmbench.cli._app import app
from cmbench.cli._options import Ascii, Json, Plain, Runs, RunsDir
from cmbench.errors import UsageError
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address, runs_folder, select


@app.command("watch", cls=_former.names(n="past"))
def watch(
    runs: Runs = None,
    runs_dir: RunsDir = None,
    plain: Plain = False,
    past: Annotated[int, typer.Option(min=0, max=10**9, help="With --plain: number of past lines.")] = 10,
    ascii_only: Ascii = False,
    json: Json = False,
) -> None:
    """Open the dashboard of one run, of several side by side, or of all. Without a terminal, print a text card."""
    folder = runs_folder(runs_dir)
    chosen = [select(run, folder) for run in runs or ()]
    if (json or plain) and len(chosen) > 1:
        raise UsageError(f"watch: {'--json' if json else '--plain'}: found {len(chosen)} runs, allowed: one")
    if json or plain:
        _follow_one(chosen[0] if chosen else select("@latest", folder), past, json)
    elif _dashboard.can_be_shown():
        _dashboard.show(folder, chosen, ascii_only)
    else:
        from cmbench.cli import _card

        for run in chosen or [select("@latest", folder)]:
            _screen.show(_card.card(run, ascii_only))


def _follow_one(run: RunDir, past: int, json: bool) -> None:
    if json:
        for row in _follow.rows(run, past):
            _screen.data(row)
        return
    _screen.line(run.name)
    try:
        for line in _follow.lines(run, past):
            _screen.line(line)
    except KeyboardInterrupt:
        _screen.text(f"\nleft; the run goes on: cmbench watch {address(run)}")
        return
    _follow.closing(run)
