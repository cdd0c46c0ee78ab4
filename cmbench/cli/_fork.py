"""`cmbench run --from`: a child of a run."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cmbench import consent, recipe, steering
from cmbench.cli import _gpus, _named, _screen, _train
from cmbench.cli._again import began_in, kept_tables
from cmbench.recipe import COMPONENTS
from cmbench.rundir import parents, places, settings
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import runs_folder, select

if TYPE_CHECKING:
    from cmbench.engine.runner import Runner


def fork(
    origin: str,
    overrides: Sequence[str],
    folder: str | None,
    runs_dir: Path | None,
    foreground: bool,
    detach: bool,
    trust: bool,
    gpus: str | None,
) -> int:
    """Train a child of RUN[@STEP] in a new directory, whose name may be given, and follow it."""
    if folder is not None:
        _named.refuse_taken(_named.run_of(folder, runs_folder(runs_dir)))
    name, wanted = parents.split(origin)
    parent = select(name, runs_folder(runs_dir))
    step = parents.nearest_checkpoint(parent, wanted)
    whole = recipe.load(parent.recipe)
    steering.check_fork(whole, overrides, step, parent.name, settings.steps(parent, whole.train.steps))
    now = places.in_force(parent, recipe.merged(whole.tables(), recipe.parse_overrides(overrides)))
    chosen = _gpus.for_ranks(gpus, now["train"], parent.name)
    began, passed_over = began_in(parent, trust)
    consent.ask(consent.kinds(whole.tables()), str(parent.recipe), began)
    for tables, where in kept_tables(parent):
        consent.ask(consent.kinds(tables, tuple(COMPONENTS)), str(where), began)
    if passed_over:
        _screen.complain(passed_over)
    if wanted.isdigit() and int(wanted) != step:
        _screen.complain(f"{parent.name}: forked at step {step}, the last checkpoint up to step {int(wanted)}")
    path, runs_path = parent.path.resolve(), runs_folder(runs_dir).resolve()

    def make() -> "Runner":
        from cmbench.engine import fork

        os.chdir(began)
        return fork.fork(RunDir(path), step, overrides, runs_path, sys.argv, whole, folder)

    arguments = ["run", "--from", f"{path}@{step}", "--runs-dir", str(runs_path)]
    arguments += [part for override in overrides for part in ("--set", override)]
    arguments += ["--name", folder] if folder else []
    arguments += ["--trust"] if trust else []
    return _train.train(make, arguments, foreground, detach, gpus=chosen)
