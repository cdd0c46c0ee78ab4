"""A fork: a child run in its own directory, which continues from another run's checkpoint with other settings."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.engine import build, checkpoint, environment, fingerprint, memory, trainer
from cmbench.engine.data_as_before import data_as_before
from cmbench.engine.live import Runner
from cmbench.engine.runner import claimed, trained_for
from cmbench.engine.trainer import Trainer
from cmbench.errors import UsageError, refusing_write_errors
from cmbench.recipe import Recipe
from cmbench.rundir import layout, settings
from cmbench.rundir.fields import number_list
from cmbench.rundir.files import read_json, to_json, write_atomically
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.select import runs_folder
from cmbench.steering import check_fork


def fork(
    parent: RunDir,
    step: int,
    overrides: Sequence[str],
    runs_dir: Path | None,
    argv: Sequence[str],
    read: Recipe | None = None,
    folder: str | None = None,
) -> Runner:
    """Make a child of a run, which trains as the run would have done from a checkpoint with other settings.

    The child begins with everything in the checkpoint and with the settings that led to it. Its rows begin after the
    checkpoint. The parent is only read, and may be live.

    Args:
        parent: the run.
        step: of one of its checkpoints.
        overrides: `table.key=value`, of keys that `steering.check_fork` allows.
        runs_dir: where to make the child, and to look for a teacher's run.
        argv: the command, for meta.json.
        read: the parent's recipe, if the caller has read it.
        folder: the name of the child's folder, if the user has chosen it.

    Raises:
        UsageError: a setting is not allowed, or there is nothing left to train.
        NotFoundError: the checkpoint is damaged or missing.
        ConflictError: the parent's data have changed, or there is a folder of the chosen name.
    """
    meta = read_json(parent.meta) or {}
    recipe = _recipe(parent, step, overrides, read)
    environment.make_reproducible(recipe.train, meta.get("threads"))
    data, about_data = data_as_before(parent, recipe, step, False)
    built = trainer.from_recipe(recipe, f"{parent.name}, forked", runs_dir, kept=parent, data=data)
    built.labels_in_turn = False
    _refuse_other_bins(parent, meta, built)
    with memory.wanted_by_network(recipe, built.device):
        built.state.load(step, checkpoint.load_fitting(parent, step, built.state.misfit))
    built.state.train_s = trained_for(parent, step)
    about = {"run": parent.name, "step": step, "changed": recipes.flat_overrides(overrides)}
    written = {**environment.meta(built, argv), "parent": about}
    run, lock = claimed(runs_folder(runs_dir), built.recipe.name, folder)
    with refusing_write_errors(run.path), ExitStack() as undo:
        undo.callback(shutil.rmtree, run.path, ignore_errors=True)
        for folder_of_steps in (run.checkpoints, run.averages):  # before the file that marks them as a fork's
            undo.callback(shutil.rmtree, folder_of_steps, ignore_errors=True)
        undo.callback(run.recipe.unlink, missing_ok=True)  # before the rest: if killed then, what is left is not a run
        undo.callback(lock.release)
        write_atomically(run.forking, to_json({"step": step}))
        _keep_weights(run, built, parent)
        warnings = [*fingerprint.oddities(built.recipe, built.data), *about_data]
        runner = Runner(run, built, lock, [*warnings, *environment.differences(meta, built)], parent=about)
        undo.callback(runner.close)
        write_atomically(run.meta, to_json(written, indent=True))
        source = f"# forked from {parent.name} at step {step}\n" + recipes.source(parent.recipe)
        write_atomically(run.recipe_source, (source + "".join(f"\n# --set {o}" for o in overrides)).encode())
        write_atomically(run.recipe, recipes.dumps(built.recipe).encode())  # last: from here on it is a run
        undo.pop_all()
    with suppress(OSError):  # with a recipe, fork.json has no meaning
        run.forking.unlink()
    with suppress(OSError):  # the run works without the link, and other processes may set it at the same time
        layout.point_latest(run)
    consent.remember(built.recipe)
    return runner


def _recipe(parent: RunDir, step: int, overrides: Sequence[str], read: Recipe | None) -> Recipe:
    """Return the complete recipe of the child: the parent's recipe in force at the step, with the overrides."""
    rows = settings.read(parent)
    made, _ = settings.at([*rows, {"first_step": step + 1, "abandons": True}], step)
    tables = build.of_run(parent, read=read).tables()
    for row in made:
        for key, value in row["settings"].items():
            table, _, name = key.partition(".")
            tables[table] = {**tables[table], name: value}
    given = recipes.parse_overrides(overrides)
    check_fork(recipes.check_tables(tables, str(parent.recipe)), overrides, step, parent.name)
    where = f"{parent.name}, forked"
    return build.complete(recipes.check_tables(recipes.merged(tables, given), where), where)


def _refuse_other_bins(parent: RunDir, meta: dict[str, Any], built: Trainer) -> None:
    """Refuse a setting that moves the bins of the profile: the checkpoint's sums would belong to other bins."""
    then, now = number_list(meta.get("profile_edges")), built.state.profile.edges.tolist()
    if then and then != now:
        raise UsageError(f"{parent.name}: the setting moves the time bins of its profile, which a fork must keep")


def _keep_weights(run: RunDir, built: Trainer, parent: RunDir) -> None:
    """Write what the child needs: its first checkpoint, and copies of teacher, initial weights and kept averages."""
    if built.teacher is not None:
        built.teacher.save(run.teacher)
    if built.recipe.start is not None and built.start is not None:
        built.start.trained.save(run.start)
    state = built.state
    for kept in (step for step in steps_of_checkpoints(parent.kept) if step <= state.step):
        checkpoint.save(run.kept, kept, checkpoint.load(parent.kept, kept), None, 0.0, built.fingerprint)
    checkpoint.save(run, state.step, state.groups(), None, state.train_s, built.fingerprint)
