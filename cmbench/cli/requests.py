"""Requests to a live run: `cmbench pause`, `continue`, `checkpoint`, `snapshot`, `set`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cmbench import recipe as recipes
from cmbench import steering
from cmbench.cli import _screen
from cmbench.cli._app import app
from cmbench.cli._options import Json, Run, RunsDir, Timeout
from cmbench.errors import CmbenchError, ConflictError
from cmbench.rundir import control, status
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row, Tail
from cmbench.rundir.select import runs_folder, select
from cmbench.words.journal import event_line

_POLL = 0.1  # seconds

Changes = Annotated[
    list[str],
    typer.Argument(metavar="TABLE.KEY=VALUE", help="E.g. optimizer.lr=1e-4 log.every=50; other keys stay."),
]


@app.command("pause")
def pause(run: Run, runs_dir: RunsDir = None, timeout: Timeout = 60.0, json: Json = False) -> None:
    """Pause a live run after the current step, until `cmbench continue` or `cmbench stop`."""
    _ask(select_live(run, runs_dir), "pause", timeout, json)


@app.command("continue")
def go_on(run: Run, runs_dir: RunsDir = None, timeout: Timeout = 60.0, json: Json = False) -> None:
    """Let a paused run continue."""
    _ask(select_live(run, runs_dir), "continue", timeout, json)


@app.command("checkpoint")
def checkpoint(run: Run, runs_dir: RunsDir = None, timeout: Timeout = 60.0, json: Json = False) -> None:
    """Ask a live run to write a checkpoint now."""
    _ask(select_live(run, runs_dir), "checkpoint", timeout, json)


@app.command("snapshot")
def snapshot(run: Run, runs_dir: RunsDir = None, timeout: Timeout = 60.0, json: Json = False) -> None:
    """Ask a live run to draw samples now."""
    _ask(select_live(run, runs_dir), "snapshot", timeout, json)


@app.command("set")
def change(run: Run, changes: Changes, runs_dir: RunsDir = None, timeout: Timeout = 60.0, json: Json = False) -> None:
    """Change the learning rate, the tangent warm-up, the EMA lengths or an interval of a live run.

    A change applies from the next step on. A resumed run repeats it at the same step.
    """
    chosen = select(run, runs_folder(runs_dir))
    settings = steering.parse(recipes.load(chosen.recipe), changes, chosen.name, option="set")
    _ask(_if_live(chosen), "set", timeout, json, settings=settings)


def select_live(run: str, runs_dir: Path | None) -> RunDir:
    """Find the live run that a selector names.

    Raises:
        NotFoundError: there is no such run.
        ConflictError: no trainer works on the run.
    """
    return _if_live(select(run, runs_folder(runs_dir)))


def _if_live(run: RunDir) -> RunDir:
    state = status.read(run)["state"]
    if state not in status.LIVE:
        raise ConflictError(f"{run.name}: is not live ({state})")
    return run


def _ask(run: RunDir, action: str, timeout: float, json: bool, **details: Any) -> None:
    """Send a request and print its answer.

    Raises:
        ConflictError: the trainer refused, or ended before it answered.
        CmbenchError: no answer came in time; the request is still pending.
    """
    journal = Tail(run.events)
    journal.skip()  # past rows
    identity = control.request(run, action, **details)
    if not timeout:
        _say({"id": identity, "action": action, **details}, f"{run.name}: asked to {action}", json)
        return
    answer = _answer(run, journal, identity, time.monotonic() + timeout)
    if answer is None:
        raise CmbenchError(f"{run.name}: asked to {action}, but no answer after {timeout:g} s; the request still waits")
    if answer["result"] != "done":
        raise ConflictError(f"{run.name}: {action} {answer['result']}")
    _say(answer, f"{run.name}: {event_line(answer)}", json)


def _say(about: Row, text: str, json: bool) -> None:
    if json:
        _screen.data(about)
    else:
        _screen.line(text)


def _answer(run: RunDir, journal: Tail, identity: str, deadline: float) -> Row | None:
    while True:
        live = status.is_live(run)  # checked before reading, so that a last answer is not missed
        for row in journal.read():
            if row.get("kind") == "request" and row.get("id") == identity:
                return row
        if not live:
            raise ConflictError(f"{run.name}: ended before it answered ({status.read(run)['state']})")
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL)
