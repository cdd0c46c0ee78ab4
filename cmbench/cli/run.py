"""`cmbench run`."""

import sys
from typing import TYPE_CHECKING

from cmbench import recipe as recipes
from cmbench.cli import _train
from cmbench.cli._options import Detach, Foreground, Overrides, RecipeFile, RunsDir

if TYPE_CHECKING:
    from cmbench.engine.runner import Runner


def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs_dir: RunsDir = None,
    foreground: Foreground = False,
    detach: Detach = False,
) -> int:
    """Train a recipe in a new run directory, and follow it. Closing the terminal does not stop it."""
    path = recipes.find(recipe)
    recipes.load(path, overrides or ())  # most mistakes show here, before torch is imported

    def make() -> "Runner":
        from cmbench.engine import runner

        return runner.create(path, overrides or (), runs_dir, sys.argv)

    arguments = ["run", str(path), *(part for o in overrides or () for part in ("--set", o))]
    arguments += ["--runs-dir", str(runs_dir)] if runs_dir else []
    return _train.train(make, arguments, foreground, detach)
