"""`cmbench resume`."""

import os
import pwd
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmbench import consent, recipe, steering
from cmbench.cli import _former, _screen, _train
from cmbench.cli._app import app
from cmbench.cli._options import Changes, CheckpointOrNone, Detach, Foreground, OtherData, Run, RunsDir, Trust
from cmbench.errors import ConflictError
from cmbench.recipe import COMPONENTS
from cmbench.rundir import checkpoints, status
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address, runs_folder, select

if TYPE_CHECKING:
    from cmbench.engine.runner import Runner


@app.command("resume", cls=_former.names(plain="foreground"))
def resume(
    run: Run,
    changes: Changes = None,
    checkpoint: CheckpointOrNone = None,
    other_data: OtherData = False,
    host_gone: Annotated[
        bool, typer.Option("--host-gone", help="Resume a run of another host whose trainer has ended.")
    ] = False,
    runs_dir: RunsDir = None,
    foreground: Foreground = False,
    detach: Detach = False,
    trust: Trust = False,
) -> int:
    """Resume a stopped, crashed or diverged run from its newest checkpoint, exactly as if it had never ended.

    --checkpoint chooses an earlier one. Rows and settings of later steps then no longer count, and later checkpoints
    are kept in checkpoints/abandoned until the run has passed their steps. --set data.root=FOLDER says where the data
    are now, --set train.device=cpu where the run trains now.
    """
    chosen = select(run, runs_folder(runs_dir))
    now = status.read(chosen)
    state, host = now["state"], now.get("host")
    if state == "finished":
        further = f"cmbench run --from {address(chosen)} --set train.steps=N"
        raise ConflictError(
            f"{chosen.name}: already finished (cmbench sample {address(chosen)}; more steps: {further})"
        )
    is_here = host in (None, socket.gethostname())
    if state in ("running", "paused") and (is_here or not host_gone):
        next_command = "watch" if state == "running" else "continue"
        otherwise = "" if is_here else f"; if {host} is gone: cmbench resume {address(chosen)} --host-gone"
        raise ConflictError(f"{chosen.name}: is {state} (cmbench {next_command} {address(chosen)}{otherwise})")
    given = changes or []
    whole = recipe.load(chosen.recipe)
    settings, places = steering.parse_with_places(whole, given, chosen.name)
    consent.moved(places)
    step = None if checkpoint is None else checkpoints.choose(chosen, checkpoint)
    began, passed_over = began_in(chosen, trust)
    consent.ask(consent.kinds(whole.tables()), str(chosen.recipe), began)
    for tables, where in kept_tables(chosen):  # only their weights are used: no teacher is built
        consent.ask(consent.kinds(tables, tuple(COMPONENTS)), str(where), began)
    if passed_over:
        _screen.complain(passed_over)

    path, runs_path = chosen.path.resolve(), runs_folder(runs_dir).resolve()

    def make() -> "Runner":
        from cmbench.engine import runner

        os.chdir(began)
        elsewhere = runner.Elsewhere(places, other_data, host_gone)
        return runner.resume(RunDir(path), runs_path, settings, step, elsewhere, whole)

    arguments = ["resume", str(path), "--runs-dir", str(runs_path)]
    places_last = [*given, *(f"{key}={value}" for key, value in places.items())]  # absolute paths
    arguments += [part for change in places_last for part in ("--set", change)]
    arguments += [] if step is None else ["--checkpoint", str(step)]
    options = {"--trust": trust, "--other-data": other_data, "--host-gone": host_gone}
    arguments += [option for option, wanted in options.items() if wanted]
    return _train.train(make, arguments, foreground, detach)


def began_in(run: RunDir, trust: bool) -> tuple[Path, str]:
    """Return the folder where the run was started: paths of data and custom modules may be relative to it.

    Another user's folder is entered only with consent. Without it the run continues from the current folder, and a
    line that says so is returned as well.
    """
    directory, here = (read_json(run.meta) or {}).get("directory"), Path.cwd()
    with suppress(OSError, ValueError):
        began = Path(directory) if isinstance(directory, str) else Path()
        if began.is_absolute() and began.is_dir() and os.access(began, os.X_OK):
            owner = began.stat().st_uid
            if trust or owner == os.geteuid() or began.samefile(here):
                return began, ""
            return here, f"{began} belongs to {user_name(owner)} and is not entered; give --trust to go on from there"
    return here, ""


def user_name(uid: int) -> str:
    """Return a user's name, or "user" and their number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def kept_tables(run: RunDir) -> Iterator[tuple[Mapping[str, Any], Path]]:
    """Yield the recipe tables of the runs whose weights a run keeps, each with its file."""
    for file in (run.teacher / "teacher.json", run.start / "teacher.json"):
        tables = (read_json(file) or {}).get("recipe")
        if isinstance(tables, dict):
            yield tables, file
