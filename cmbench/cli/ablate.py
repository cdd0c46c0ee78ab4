"""`cmbench ablate`."""

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _outcomes, _screen, _variants
from cmbench.cli._app import app
from cmbench.cli._options import Json, Overrides, RecipeFile, RunsDir, Trust
from cmbench.cli._processes import Accepted, Ended, Processes
from cmbench.cli._screen import table
from cmbench.cli._variants import Switch, Task
from cmbench.errors import STOPPED, DivergedError, UsageError
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import runs_folder


@app.command("ablate")
def ablate(
    recipe: RecipeFile,
    drop: Annotated[
        str | None,
        typer.Option("--drop", metavar="SWITCH,...", help="Switches of the objective; each variant drops one."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="Seeds per variant, from the recipe's seed on.")] = 1,
    overrides: Overrides = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Prefix of the runs' names; RECIPE_ablation if not given.")
    ] = "",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=10_000, help="How many runs train at a time.")] = 1,
    listed: Annotated[bool, typer.Option("--list", help="List the recipe's switches, and train nothing.")] = False,
    runs_dir: RunsDir = None,
    trust: Trust = False,
    json: Json = False,
) -> int:
    """Train a recipe whole and without each given switch, and compare. The same command resumes a stopped ablation.

    Ctrl-C writes checkpoints and stops. Means are taken over the runs that finished.
    """
    path, given = recipes.find(recipe), overrides or []
    recipes.load(path, given)  # most mistakes show here, before torch is imported
    whole = _variants.complete(path, given)
    switches = _variants.switches_of(path, given, whole)
    if listed:
        _list(switches, whole.objective["kind"], json)
        return 0
    if drop is None:
        on = ", ".join(s.name for s in switches if s.standing == _variants.ON) or "none"
        raise UsageError(f"{path}: --drop: missing, allowed: one or more of the switches that are on: {on}")
    dropped = _variants.chosen(drop, switches, str(path))
    name, folder = name or f"{whole.name}_ablation", runs_folder(runs_dir)
    tasks = _variants.tasks_of(path, given, whole, dropped, seeds, name, folder)
    _variants.take_up(tasks, folder)

    consent.remember(whole)  # also for resumed runs, which have this recipe
    training = _Training(path, folder, jobs, trust, to_stderr=json)
    training.do(tasks)
    left = sum(not task.is_done for task in tasks)
    if not (training.interrupted and left):
        _outcomes.report(name, path, tasks, json)
        for failure in training.failures:
            _screen.complain(failure)
        if training.failures or not left:
            return 1 if training.failures else 0
    training.say(f"stopped, {left} of {len(tasks)} runs left; go on: {shlex.join(['cmbench', *sys.argv[1:]])}")
    return STOPPED


def _list(switches: Sequence[Switch], objective: str, json: bool) -> None:
    if json:
        found = [{"name": s.name, "overrides": s.overrides, "standing": s.standing} for s in switches]
        _screen.data({"schema": 1, "switches": found})
    elif switches:
        table(["switch", "without it", "here"], [[s.name, ", ".join(s.overrides), s.standing] for s in switches])
    else:
        _screen.line(f"objective '{objective}' has no switches", err=True)


class _Training:
    """Trains the tasks that are not done, and prints lines about their progress."""

    def __init__(self, path: Path, runs_dir: Path, jobs: int, trust: bool, to_stderr: bool) -> None:
        self._path, self._runs_dir, self._jobs, self._to_stderr = path, runs_dir, jobs, to_stderr
        self._trust = ["--trust"] if trust else []
        self.failures: list[str] = []
        self.interrupted = False

    def say(self, line: str) -> None:
        """Print a line apart from the data."""
        _screen.line(line, err=self._to_stderr)

    def do(self, tasks: Sequence[Task]) -> None:
        """Train the tasks that are not done. A failed run is noted, and the others continue."""
        left = [task for task in tasks if not task.is_done]
        if left and len(left) < len(tasks):
            self.say(f"{len(tasks) - len(left)} of {len(tasks)} runs exist already")
        processes = Processes([self._command(task) for task in left], self._jobs, _threads(self._jobs))
        with closing(processes.events()) as events:
            for event in events:
                self.interrupted = processes.stopped
                if isinstance(event, Accepted):
                    self._accepted(left[event.index], event.run)
                else:
                    self._ended(left[event.index], event)
        self.interrupted = processes.stopped

    def _command(self, task: Task) -> list[str]:
        task.resumed = task.run is not None
        if task.run:
            command = ["resume", str(task.run.path.resolve())]
        else:
            command = ["run", str(self._path), *(part for o in task.overrides for part in ("--set", o))]
        return [*command, *self._trust, "--runs-dir", str(self._runs_dir), "--foreground"]

    def _accepted(self, task: Task, run: str) -> None:
        task.run = task.run or RunDir(self._runs_dir / run)
        self.say(f"{task}  {'resumed' if task.resumed else 'started'}")

    def _ended(self, task: Task, end: Ended) -> None:
        if end.exit_code in (0, DivergedError.exit_code, STOPPED) or (task.run and task.is_done):
            self.say(f"{task}  {_outcomes.in_words(task)}")
        elif self.interrupted:
            self.say(f"{task}  interrupted")
        else:
            self.say(f"{task}  failed: {end.error}")
            self.failures.append(f"{task}: failed: {end.error}")


def _threads(jobs: int) -> dict[str, str]:
    """Return variables that divide one trainer's cores among `jobs` trainers; none if OMP_NUM_THREADS is set.

    Two trainers of ct_edm_ring on two cores: 9,000 images/s each with one thread, 1,100 with two.
    """
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    import torch

    return {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs))}
