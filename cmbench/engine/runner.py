"""A trainer in a run directory: started or resumed."""

import shutil
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from cmbench import consent, steering
from cmbench import recipe as recipes
from cmbench.engine import build, checkpoint, environment, fingerprint, launched, memory, snapshot, trainer
from cmbench.engine.data_as_before import data_as_before
from cmbench.engine.live import Runner
from cmbench.engine.trainer import Trainer
from cmbench.errors import (
    ConflictError,
    NotFoundError,
    UsageError,
    prefixing,
    refusing_write_errors,
    stopping_on_write_errors,
)
from cmbench.recipe import Given, Recipe
from cmbench.rundir import checkpoints, control, layout, leftovers, settings, status
from cmbench.rundir.fields import moment
from cmbench.rundir.files import read_json, refuse_unusual, to_json, write_atomically
from cmbench.rundir.layout import RunDir
from cmbench.rundir.lock import hold, in_turn
from cmbench.rundir.log import Log, Row, Tail
from cmbench.rundir.segments import newest, parts
from cmbench.rundir.select import address, runs_folder
from cmbench.rundir.series import Series


def create(
    given: Given, runs_dir: Path | None, argv: Sequence[str], folder: str | None = None, host_gone: bool = False
) -> Runner:
    """Build a recipe, as `consent.named` reads it, and make a run directory for it.

    Nothing is written before everything is built. `folder` and `host_gone` are as for `claimed`.

    Raises:
        UsageError: something in the recipe is not allowed, or the runs folder cannot be written.
        NotFoundError: the teacher's run does not exist.
        ConflictError: there is a folder of that name.
    """
    environment.make_reproducible(given.recipe.train)
    source = given.text + "".join(f"\n# --set {override}" for override in given.overrides)
    built = trainer.from_given(given, runs_dir)
    with prefixing(given.where):
        fingerprint.refuse_absurd(built.recipe, built.data)
    meta = environment.meta(built, argv)
    run, lock = claimed(runs_folder(runs_dir), built.recipe.name, folder, host_gone)
    with refusing_write_errors(run.path), ExitStack() as undo:
        undo.callback(shutil.rmtree, run.path, ignore_errors=True)
        undo.callback(run.recipe.unlink, missing_ok=True)  # before the rest: if killed then, what is left is not a run
        undo.callback(lock.release)
        runner = Runner(run, built, lock, fingerprint.oddities(built.recipe, built.data))
        undo.callback(runner.close)
        write_atomically(run.meta, to_json(meta, indent=True))
        write_atomically(run.recipe_source, source.encode())
        if built.teacher is not None:
            built.teacher.save(run.teacher)
        if built.recipe.start is not None and built.start is not None:
            built.start.trained.save(run.start)
        write_atomically(run.recipe, recipes.dumps(built.recipe).encode())  # last: from here on it is a run
        undo.pop_all()
    with suppress(OSError):  # the run works without the link, and other processes may set it at the same time
        layout.point_latest(run)
    consent.remember(built.recipe)
    return runner


def claimed(
    runs_dir: Path, name: str, folder: str | None = None, host_gone: bool = False
) -> tuple[RunDir, filelock.BaseFileLock]:
    """Make a run's folder and take its lock; make another if a clean-up removed this one as a leftover.

    Args:
        runs_dir: of the runs.
        name: of the recipe, with which the folder's name begins.
        folder: the folder's name, if the user has chosen it. What a killed command left of that name is removed.
        host_gone: no trainer on another host is making a run of that name, whatever its status says.

    Raises:
        ConflictError: there is a folder of the chosen name, or another command is making it.
        UsageError: the run cannot be written.
    """
    leftovers.sweep(runs_dir)
    if folder is not None:
        return _claimed_by_name(RunDir(runs_dir / folder), host_gone)
    while True:
        run = layout.create(runs_dir, name)
        try:
            lock = hold(run)
        except (ConflictError, UsageError):
            if run.path.exists():
                raise
            continue
        if run.lock.exists():
            return run, lock
        lock.release()


def _claimed_by_name(run: RunDir, host_gone: bool) -> tuple[RunDir, filelock.BaseFileLock]:
    """Make the folder of a run whose name the user has chosen, and take its lock, unless another command has it."""
    layout.make_folder_of_runs(run.path.parent)
    with in_turn(run.path.parent):
        leftovers.remove(run, host_gone)
        try:
            layout.create_named(run)
        except FileExistsError:
            raise ConflictError(layout.taken(run)) from None
        return run, hold(run)


@dataclass(frozen=True)
class Elsewhere:
    """What a user tells about a run that is resumed elsewhere.

    Attributes:
        places: changed places, such as {"data.root": "/new", "train.device": "cpu"}.
        other_data: the data may differ from those that the run was trained on.
        host_gone: no trainer on another host works on the run any more, whatever its status says.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    other_data: bool = False
    host_gone: bool = False


def resume(
    run: RunDir,
    runs_dir: Path | None = None,
    changes: Mapping[str, Any] | None = None,
    step: int | None = None,
    elsewhere: Elsewhere | None = None,
    read: Recipe | None = None,
) -> Runner:
    """Resume a run from its newest whole checkpoint, or from its first step if it has no checkpoint yet.

    Settings that were changed during training are kept: those up to the checkpoint are in force, later ones are made
    again at their steps.

    With a `step`, the run resumes from that checkpoint, and everything after it is abandoned. Rows are superseded as
    after a crash. Later settings are not made again, now or by any later resume. Later checkpoints and snapshots move
    to folders named abandoned, where neither `latest` nor a resume looks. An abandoned checkpoint is removed once the
    run has a checkpoint at or past its step.

    Args:
        run: the run.
        runs_dir: where to look for its teacher's run.
        changes: settings such as {"optimizer.lr": 1e-4} from the next step on; they also replace later ones. With
            train.steps, a finished run is trained further.
        step: of the checkpoint to go back to; None takes the newest and abandons nothing.
        elsewhere: what the user tells about changed data, device and host.
        read: the run's recipe, if the caller has read it.

    Raises:
        ConflictError: the run is live, or finished and given no further steps, or its data differ from those that it
            was trained on.
        NotFoundError: every checkpoint is damaged, or that of `step` is damaged or missing.
        UsageError: the run cannot be written, or a change is not allowed.
        StoppedError: the disk is full.
    """
    said = elsewhere or Elsewhere()
    lock = hold(run)
    try:
        now = status.read(run)
        of_others = now["state"] in status.LIVE and now.get("host") not in (None, socket.gethostname())
        if of_others and not said.host_gone:
            raise ConflictError(
                f"{run.name}: a trainer on {now['host']} works on this run, or did until recently (if that host is "
                f"gone: cmbench resume {address(run)} --host-gone)"
            )
        status.refuse_imported(run)
        if now["state"] == "finished" and "train.steps" not in (changes or {}):
            raise ConflictError(f"{run.name}: already finished at step {now['step']}")
        meta = read_json(run.meta) or {}
        recipe = build.of_run(run, said.places, read=read)
        environment.make_reproducible(recipe.train, meta.get("threads"))
        data, about_data = data_as_before(run, recipe, step, said.other_data)
        built = trainer.from_recipe(recipe, str(run.recipe), runs_dir, kept=run, data=data)
        built.steered(changes or {}, run.name, steering.LENGTH)
        with stopping_on_write_errors(run.path), memory.wanted_by_network(recipe, built.device):
            for path in (run.metrics, run.profiles, run.events, run.machine, run.console):
                refuse_unusual(path)
            leftovers.sweep(run.path.parent)
            checkpoint.recover(run)
            checkpoint.remove_leftovers(run)
            checkpoint.recover(run.kept)
            checkpoint.remove_leftovers(run.kept)
            step = unfinished(run) if step is None else step
            if step is None:
                damaged = _load_newest(run, built)
            else:
                damaged = []
                built.state.load(step, checkpoint.load_fitting(run, step, built.state.misfit))
            steering.check_length(changes or {}, built.state.step, run.name)
            built.state.train_s = trained_for(run, built.state.step)
            ahead = _steer_as_before(run, built, changes or {}, abandons=step is not None)
            abandoned = None if step is None else _abandon(run, step)
            checkpoint.abandon_after(run.kept, built.state.step)  # later ones have seen what is now trained again
            taken_from = [f"the trainer on {now['host']} is assumed to be gone (--host-gone)"] if of_others else []
            if "data.root" in said.places:
                consent.remember(recipe)
            warnings = [*damaged, *about_data, *taken_from, *environment.differences(meta, built)]
            return Runner(run, built, lock, warnings, ahead, abandoned, dict(said.places))
    except BaseException:
        lock.release()
        raise


def trained_for(run: RunDir, step: int) -> float:
    """Return the seconds of training up to a checkpoint: from the checkpoint, or from the rows in earlier versions."""
    told = moment(checkpoints.state(run, step)[0].get("train_s")) if step else 0.0
    if told is not None:
        return told
    metrics = Series(run).metrics
    while metrics.read():
        pass
    steps, seconds, _ = metrics.course()
    return float(np.interp(step, steps, seconds))


def _load_newest(run: RunDir, built: Trainer) -> list[str]:
    """Load the newest whole checkpoint into the state; set damaged ones aside, and return a line for each."""
    if not layout.steps_of_checkpoints(run):
        if (read_json(run.meta) or {}).get("parent") or any(
            row.get("kind") == "checkpoint" for row in newest(run.events)
        ):
            raise NotFoundError(f"{run.name}: its checkpoints are gone")
        return []
    step, groups, damaged = checkpoint.newest(run, built.state.misfit)
    checkpoint.set_aside_after(run, step)
    built.state.load(step, groups)
    return [f"{line}; the checkpoint of step {step} is used" for line in damaged]


def _abandon(run: RunDir, step: int) -> list[int]:
    """Set aside everything after a step, and return the steps of the abandoned checkpoints.

    The journal records it first: even after a kill, any later resume goes back to this step too.
    """
    journal = Log(run.events)
    journal.open_segment(journal.last_segment() + 1, step + 1, abandons=True)
    journal.fsync()
    journal.close()
    abandoned = checkpoint.abandon_after(run, step)
    snapshot.abandon_after(run, step)
    return abandoned


def unfinished(run: RunDir) -> int | None:
    """Return the step to which a killed resume was going back by choice, before it wrote `resumed`."""
    step = None
    for part in parts(Tail(run.events, [b'"abandons"', b'"resumed"']).read()):
        if part.abandons and part.first_step is not None:
            step = part.first_step - 1
        if any(row.get("kind") == "resumed" for row in part.rows):
            step = None
    return step


def _steer_as_before(run: RunDir, built: Trainer, changes: Mapping[str, Any], abandons: bool) -> list[Row]:
    """Apply the settings that led to the checkpoint, and return those to come: earlier ones, then `changes`."""
    step = built.state.step
    rows = settings.read(run)
    made, ahead = settings.at([*rows, {"first_step": step + 1, "abandons": True}] if abandons else rows, step)
    for row in made:
        built.steer(row["settings"], f"{run.events}, step {row['step']}", steering.LENGTH)
    ahead = [{**row, "replayed": True} for row in ahead]
    identity = launched.name() or control.new_id()  # a restart by torchrun finds what the launch has changed already
    if changes and all(row["id"] != identity for row in (*made, *ahead)):
        ahead.append({"id": identity, "step": step, "settings": dict(changes)})
    return sorted(ahead, key=lambda row: row["step"])
