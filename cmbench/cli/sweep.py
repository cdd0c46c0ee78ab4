"""`cmbench sweep`."""

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _combinations, _gpus, _outcomes, _plan, _screen
from cmbench.cli._app import app
from cmbench.cli._options import GpuPool, Jobs, Json, RecipeFile, RunsDir, Trust
from cmbench.cli._plan import Task
from cmbench.cli._training import Training
from cmbench.errors import STOPPED
from cmbench.rundir.select import runs_folder


@app.command("sweep")
def sweep(
    recipe: RecipeFile,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="TABLE.KEY=VALUE,...", help="Override a key by one value or several; may be repeated."
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the runs, up to their values; that of the recipe if not given.")
    ] = "",
    jobs: Jobs = None,
    gpus: GpuPool = None,
    listed: Annotated[bool, typer.Option("--list", help="List the combinations, and train nothing.")] = False,
    runs_dir: RunsDir = None,
    trust: Trust = False,
    json: Json = False,
) -> int:
    """Train a recipe with every combination of values, and compare. The same command resumes a stopped sweep.

    A value with commas is a list: ema.lengths=[0.9,0.99] is one value, ema.lengths=[0.9],[0.99] are two. Seeds share a
    row, with their mean. Ctrl-C writes checkpoints and stops.
    """
    path, folder = recipes.find(recipe), runs_folder(runs_dir)
    _gpus.parsed(gpus)
    _combinations.read(overrides or ())  # most mistakes show here, before torch is imported
    planned = _combinations.planned(path, overrides or (), name, folder)
    keys, tasks, tag = planned.keys, planned.tasks, planned.tag
    if listed:
        _list(keys, tasks, json)
        return 0
    pool = _gpus.pool(gpus, {task.recipe.train.device for task in tasks}, str(path))
    _plan.take_up(tasks, folder)
    for whole in {
        repr((task.recipe.data, consent.kinds(task.recipe.tables()))): task.recipe for task in tasks
    }.values():
        consent.remember(whole)  # also for resumed runs, which have this recipe
    training = Training(path, folder, jobs, pool, trust, to_stderr=json, tag=tag)
    code = training.carry_out(tasks, lambda: _outcomes.report_sweep(tag, path, keys, tasks, json))
    if code != STOPPED:
        where = [] if folder == runs_folder() else ["--runs-dir", str(folder)]
        training.say(f"compare: {shlex.join(['cmbench', 'compare', '--filter', f'tag:{tag}', *where])}")
    return code


def _list(keys: Sequence[str], tasks: Sequence[Task], json: bool) -> None:
    rows = [(task.recipe.name, task.variant.told["values"], task.recipe.seed) for task in tasks]
    if json:
        found = [{"name": own, "seed": seed, "values": values} for own, values, seed in rows]
        _screen.data({"schema": 1, "keys": list(keys), "combinations": found})
    else:
        others = [key for key in keys if key != "seed"]
        _screen.table(
            ["run", *others, "seed"],
            [[task.recipe.name, *task.variant.cells, str(task.recipe.seed)] for task in tasks],
        )
        _screen.line(f"{len(tasks)} runs")
