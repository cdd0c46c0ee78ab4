"""A run that is trained again: the checks before, and its trainer."""

import os
import pwd
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmbench import consent, recipe, steering
from cmbench.cli import _screen
from cmbench.errors import ConflictError
from cmbench.recipe import COMPONENTS
from cmbench.rundir import checkpoints, places, status
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address

if TYPE_CHECKING:
    from cmbench.engine.runner import Runner


def refuse_live(run: RunDir, host_gone: bool) -> None:
    """Refuse a run that a trainer works on.

    Raises:
        ConflictError: it is live; the message says what to type.
    """
    now = status.read(run)
    state, host = now["state"], now.get("host")
    is_here = host in (None, socket.gethostname())
    if state in ("running", "paused") and (is_here or not host_gone):
        next_command = "watch" if state == "running" else "continue"
        otherwise = "" if is_here else f"; if {host} is gone: cmbench resume {address(run)} --host-gone"
        raise ConflictError(f"{run.name}: is {state} (cmbench {next_command} {address(run)}{otherwise})")


@dataclass(frozen=True)
class Again:
    """A run to be resumed as a user asks: the options of `cmbench resume`."""

    run: RunDir
    changes: Sequence[str]
    checkpoint: str | None
    other_data: bool
    host_gone: bool
    trust: bool
    runs_dir: Path

    def make(self) -> "Callable[[], Runner]":
        """Check what is asked, ask for consent while the user is watching, and return what builds the runner.

        Raises:
            UsageError: something is not allowed.
            NotFoundError: there is no such checkpoint.
        """
        run, whole = self.run, recipe.load(self.run.recipe)
        settings, moved = steering.parse_with_places(whole, self.changes, run.name)
        consent.moved(moved)
        step = self._step()
        steering.check_length(settings, step or checkpoints.last(run), run.name)
        began, passed_over = began_in(run, self.trust)
        consent.ask(consent.kinds(whole.tables()), str(run.recipe), began)
        for tables, where in kept_tables(run):  # only their weights are used: no teacher is built
            consent.ask(consent.kinds(tables, tuple(COMPONENTS)), str(where), began)
        if passed_over:
            _screen.complain(passed_over)
        path, runs_path = run.path.resolve(), self.runs_dir.resolve()

        def make() -> "Runner":
            from cmbench.engine import runner

            os.chdir(began)
            elsewhere = runner.Elsewhere(moved, self.other_data, self.host_gone)
            return runner.resume(RunDir(path), runs_path, settings, step, elsewhere, whole)

        return make

    def arguments(self) -> list[str]:
        """Return the arguments of the `cmbench` that resumes the run from any folder."""
        _, moved = steering.parse_with_places(recipe.load(self.run.recipe), self.changes, self.run.name)
        step = self._step()
        arguments = ["resume", str(self.run.path.resolve()), "--runs-dir", str(self.runs_dir.resolve())]
        places_last = [*self.changes, *(f"{key}={value}" for key, value in moved.items())]  # absolute paths
        arguments += [part for change in places_last for part in ("--set", change)]
        arguments += [] if step is None else ["--checkpoint", str(step)]
        options = {"--trust": self.trust, "--other-data": self.other_data, "--host-gone": self.host_gone}
        return arguments + [option for option, wanted in options.items() if wanted]

    def tables(self) -> dict[str, Any]:
        """Return the tables of the run's recipe, with its places as they are then."""
        whole = recipe.load(self.run.recipe)
        _, moved = steering.parse_with_places(whole, self.changes, self.run.name)
        return places.in_force(self.run, whole.tables(), moved)

    def _step(self) -> int | None:
        return None if self.checkpoint is None else checkpoints.choose(self.run, self.checkpoint)


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
