"""`cmbench run`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _fork, _former, _gpus, _named, _restarts, _train
from cmbench.cli._app import app
from cmbench.cli._options import (
    Detach,
    Foreground,
    Gpus,
    HostGone,
    Overrides,
    RecipeFileOrNone,
    RunsDir,
    Trust,
    complete_runs,
)
from cmbench.cli.resume import resume
from cmbench.errors import UsageError
from cmbench.recipe import COMPONENTS, Recipe
from cmbench.rundir.select import is_path, runs_folder, select

if TYPE_CHECKING:
    from cmbench.engine.runner import Runner


@app.command("run", cls=_former.names(plain="foreground"))
def run(
    recipe: RecipeFileOrNone = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="RUN[@STEP]",
            autocompletion=complete_runs,
            help="Train a child of a run, from its last checkpoint up to STEP, in a new directory.",
        ),
    ] = None,
    overrides: Overrides = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the run's folder; a new one if not given.")
    ] = None,
    or_resume: Annotated[
        bool,
        typer.Option("--or-resume", help="With --name: resume the run of that name, or say that it has finished."),
    ] = False,
    host_gone: HostGone = False,
    gpus: Gpus = None,
    runs_dir: RunsDir = None,
    foreground: Foreground = False,
    detach: Detach = False,
    trust: Trust = False,
) -> int:
    """Train a recipe in a new run directory, and follow it. Closing the terminal does not stop the run.

    With --from RUN[@STEP] the new run is a child of another. It starts from that run's checkpoint with the settings
    that --set changes, and trains exactly as that run would have done.

    With --name NAME --or-resume the same command starts the run, resumes it, or says that it has finished: for jobs
    that a queue starts again.
    """
    if or_resume and (name is None or origin is not None):
        with_what = "--from" if origin is not None else "no --name"
        raise UsageError(f"--or-resume: found with {with_what}, allowed: with --name NAME and a recipe")
    if host_gone and not or_resume:
        raise UsageError("--host-gone: found without --or-resume, allowed: with it")
    _gpus.parsed(gpus)
    begun = _restarts.found(runs_folder(runs_dir))  # by ranks that torchrun has started again
    if begun is not None and (not or_resume or _restarts.begun(begun) in _restarts.ENDED):
        if recipe is not None:
            consent.named(recipes.find(recipe), overrides or ())
        return resume(str(begun.path), runs_dir=runs_dir, foreground=foreground, detach=detach, trust=trust)
    if origin is not None:
        if recipe is not None:
            raise UsageError(f"--from: found together with RECIPE {recipe}, allowed: one of the two")
        return _fork.fork(origin, overrides or (), name, runs_dir, foreground, detach, trust, gpus)
    if recipe is None:
        raise UsageError("RECIPE: missing; allowed: a recipe's path or name, or --from RUN[@STEP]")
    heard = _train.listen(foreground, detach)
    path = recipes.find(recipe)
    given = consent.named(path, overrides or ())  # most mistakes show here, before torch is imported
    chosen = _gpus.for_ranks(gpus, given.recipe.tables()["train"], str(path))
    arguments = ["run", str(path), *(part for o in overrides or () for part in ("--set", o))]
    arguments += ["--name", name] if name is not None else []
    arguments += ["--runs-dir", str(runs_dir)] if runs_dir else []
    options = {"--or-resume": or_resume, "--host-gone": host_gone, "--trust": trust}
    arguments += [option for option, wanted in options.items() if wanted]
    if name is not None:
        there = _named.run_of(name, runs_folder(runs_dir))
        host_gone = host_gone or bool(_restarts.begun(there))
        if or_resume and is_path(there.path):
            again = _named.taken_up(there, given, host_gone, trust, runs_folder(runs_dir))
            return 0 if again is None else _train.train(again.make(), arguments, foreground, detach, heard, chosen)
        _named.refuse_taken(there)
    _ask(path, given.recipe, runs_folder(runs_dir))

    def make() -> "Runner":
        from cmbench.engine import runner

        return runner.create(given, runs_dir, sys.argv, name, host_gone)

    return _train.train(make, arguments, foreground, detach, heard, chosen)


def _ask(path: Path, given: Recipe, runs_dir: Path) -> None:
    """Ask for consent to the classes of the recipe and of the weights' runs while the user is still watching."""
    consent.ask(consent.kinds(given.tables()), str(path))
    for source in (given.teacher, given.start):
        if source is not None and source.run:
            run = select(source.run, runs_dir, with_checkpoint=True)
            consent.ask(consent.kinds(recipes.load(run.recipe).tables(), tuple(COMPONENTS)), str(run.recipe))
