"""`cmbench run`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _fork, _former, _train
from cmbench.cli._app import app
from cmbench.cli._options import Detach, Foreground, Overrides, RecipeFileOrNone, RunsDir, Trust, complete_runs
from cmbench.errors import UsageError
from cmbench.recipe import COMPONENTS, Recipe
from cmbench.rundir.select import runs_folder, select

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
    runs_dir: RunsDir = None,
    foreground: Foreground = False,
    detach: Detach = False,
    trust: Trust = False,
) -> int:
    """Train a recipe in a new run directory, and follow it. Closing the terminal does not stop the run.

    With --from RUN[@STEP] the new run is a child of another. It starts from that run's checkpoint with the settings
    that --set changes, and trains exactly as that run would have done.
    """
    if origin is not None:
        if recipe is not None:
            raise UsageError(f"--from: found together with RECIPE {recipe}, allowed: one of the two")
        return _fork.fork(origin, overrides or (), runs_dir, foreground, detach, trust)
    if recipe is None:
        raise UsageError("RECIPE: missing; allowed: a recipe's path or name, or --from RUN[@STEP]")
    path = recipes.find(recipe)
    given = consent.named(path, overrides or ())  # most mistakes show here, before torch is imported
    _ask(path, given.recipe, runs_folder(runs_dir))

    def make() -> "Runner":
        from cmbench.engine import runner

        return runner.create(given, runs_dir, sys.argv)

    arguments = ["run", str(path), *(part for o in overrides or () for part in ("--set", o))]
    arguments += ["--runs-dir", str(runs_dir)] if runs_dir else []
    arguments += ["--trust"] if trust else []
    return _train.train(make, arguments, foreground, detach)


def _ask(path: Path, given: Recipe, runs_dir: Path) -> None:
    """Ask for consent to the classes of the recipe and of the weights' runs while the user is still watching."""
    consent.ask(consent.kinds(given.tables()), str(path))
    for source in (given.teacher, given.start):
        if source is not None and source.run:
            run = select(source.run, runs_dir, with_checkpoint=True)
            consent.ask(consent.kinds(recipes.load(run.recipe).tables(), tuple(COMPONENTS)), str(run.recipe))
