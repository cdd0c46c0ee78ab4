"""`cmbench ablate`."""

from collections.abc import Sequence
from typing import Annotated

import typer

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _gpus, _outcomes, _plan, _screen, _variants
from cmbench.cli._app import app
from cmbench.cli._options import GpuPool, Jobs, Json, Overrides, RecipeFile, RunsDir, Trust
from cmbench.cli._screen import table
from cmbench.cli._training import Training
from cmbench.cli._variants import Switch
from cmbench.errors import UsageError
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
        str, typer.Option(metavar="NAME", help="Name of the runs, up to their variant; RECIPE_ablation if not given.")
    ] = "",
    jobs: Jobs = None,
    gpus: GpuPool = None,
    listed: Annotated[bool, typer.Option("--list", help="List the recipe's switches, and train nothing.")] = False,
    runs_dir: RunsDir = None,
    trust: Trust = False,
    json: Json = False,
) -> int:
    """Train a recipe whole and without each given switch, and compare. The same command resumes a stopped ablation.

    Ctrl-C writes checkpoints and stops. Means are taken over the runs that finished.
    """
    path, given = recipes.find(recipe), overrides or []
    _gpus.parsed(gpus)
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
    pool = _gpus.pool(gpus, {task.recipe.train.device for task in tasks}, str(path))
    _plan.take_up(tasks, folder)

    consent.remember(whole)  # also for resumed runs, which have this recipe
    training = Training(path, folder, jobs, pool, trust, to_stderr=json)
    return training.carry_out(tasks, lambda: _outcomes.report_ablation(name, path, tasks, json))


def _list(switches: Sequence[Switch], objective: str, json: bool) -> None:
    if json:
        found = [{"name": s.name, "overrides": s.overrides, "standing": s.standing} for s in switches]
        _screen.data({"schema": 1, "switches": found})
    elif switches:
        table(["switch", "without it", "here"], [[s.name, ", ".join(s.overrides), s.standing] for s in switches])
    else:
        _screen.line(f"objective '{objective}' has no switches", err=True)
