"""A resumed run equals an uninterrupted one: weights, targets, averages, optimiser, metrics and profiles."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fake_runs import read_rows
from tiny import DISTILL

from cmbench import consent
from cmbench.engine import checkpoint, recorder, runner, weights
from cmbench.engine.recorder import Record
from cmbench.engine.runner import Runner
from cmbench.errors import ConflictError, NotFoundError
from cmbench.rundir import status
from cmbench.rundir.files import read_json, to_json
from cmbench.rundir.layout import RunDir, machine, steps_of_checkpoints
from cmbench.rundir.log import Log
from cmbench.rundir.summary import Summary

pytestmark = pytest.mark.usefixtures("put_back")
CLOCK = {"time", "train_s", "images_per_s", "segment"}

UNET = [
    "data.kind=digits",
    "network.kind=unet",
    "network.width=8",
    "network.multipliers=[1]",
    "network.depth=1",
    "network.dropout=0.3",
    "snapshot.every=0",
    "evaluate.every=0",
    "train.steps=6",
]
EDM2 = [
    "network={kind='edm2', width=8, multipliers=[1, 2], depth=1, attention=[4], head_channels=8}",
    "objective={kind='denoise', log_variance='network'}",
    "optimizer.kind=adam",
]

AUGMENTED = [
    "data={kind='digits', augment=0.5, augment_by=['flip_x', 'scale', 'stretch', 'shift']}",
    "network={kind='adm', width=8, multipliers=[1], depth=1, attention=[], augment_labels=6, dropout=0.3}",
    *UNET[-3:],
]


def create(home: Path, *overrides: str) -> Runner:
    return runner.create(consent.named(home / "tiny.toml", overrides), None, ["cmbench"])


def crash(made: Runner, records: Iterator[Record]) -> None:
    """End a run as a crash does, without a checkpoint."""
    made.stop_now = lambda: iter(())
    records.close()


def finish(made: Runner) -> RunDir:
    list(made.records())
    assert made.exit_code == 0
    return made.run


def stop_after(made: Runner, step: int) -> RunDir:
    move = made.trainer.objective.after_step

    def after_step(model: torch.nn.Module, k: int) -> None:
        move(model, k)
        if k + 1 == step:
            made.request_stop("test")

    made.trainer.objective.after_step = after_step
    list(made.records())
    assert made.exit_code == 75
    assert made.trainer.state.step == step
    assert status.read(made.run)["state"] == "stopped"
    return made.run


def timeless(path: Path) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in read_rows(path)]


def assert_same_outcome(run: RunDir, unbroken: RunDir) -> None:
    last = steps_of_checkpoints(unbroken)[-1]
    mine, theirs = checkpoint.load(run, last), checkpoint.load(unbroken, last)
    assert set(mine) == set(theirs)
    for group, tensors in theirs.items():
        assert set(mine[group]) == set(tensors)
        assert all(torch.equal(mine[group][name], tensor) for name, tensor in tensors.items()), group
    assert timeless(run.metrics) == timeless(unbroken.metrics)
    assert timeless(run.profiles) == timeless(unbroken.profiles)
    assert read_rows(run.metrics)
    assert read_rows(run.profiles)


@pytest.mark.parametrize("stops", [(1,), (5,), (7,), (1, 5, 7), (10,)])
def test_a_stopped_and_resumed_run_equals_an_unbroken_one(home, trained, stops):
    run = stop_after(create(home), stops[0])
    for stop in stops[1:]:
        stop_after(runner.resume(run), stop)
    finish(runner.resume(run))
    assert_same_outcome(run, trained)
    assert {"model", "objective", "optimizer", "ema_0.9", "ema_0.5"} <= set(checkpoint.load(run, 12))
    assert read_rows(run.metrics)[-1]["segment"] == len(stops) + 1


@pytest.mark.parametrize(
    ("overrides", "stop"),
    [
        (["network.dropout=0.5"], 7),
        (["network.class_conditional=true", "optimizer.warmup=9", "optimizer.decay=cosine"], 5),
        (["objective.kind=denoise", "ema.profile=power", "ema.lengths=[0.1]", "optimizer.clip=0.1"], 7),
        (["objective.kind=cd", "objective.mu=0.9", "teacher.kind=oracle"], 7),
        (["data.kind=points", "data.size=30"], 5),
        (["train.precision=bfloat16"], 7),
        (["train.matmul_precision=high"], 7),
        (UNET, 3),
        (AUGMENTED, 3),
        (["objective={kind='sct'}", "path.kind=trigflow", "network.dropout=0.3", "profile.anatomy_every=3"], 7),
        (["train.micro_batch_size=3", "network.dropout=0.3"], 7),
        ([*UNET[:1], *EDM2, *UNET[-4:]], 3),
        ([*UNET, "train.channels_last=true"], 3),
    ],
    ids=[
        *("dropout", "labels", "denoise", "cd", "epochs", "bfloat16", "tf32", "unet", "augmented", "anatomy"),
        *("micro batches", "edm2", "channels last"),
    ],
)
def test_so_does_one_of_every_objective_and_data_set(home, overrides, stop):
    overrides = [*overrides, "log.every=2"]
    unbroken = finish(create(home, *overrides))
    run = stop_after(create(home, *overrides), stop)
    finish(runner.resume(run))
    assert_same_outcome(run, unbroken)


@pytest.mark.parametrize("fused", ["off", "on"])
@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_so_does_one_of_the_other_optimisers(home, kind, fused):
    overrides = [
        f"optimizer.kind={kind}",
        f"optimizer.fused={fused}",
        "optimizer.lr=0.01",
        "optimizer.weight_decay=0.1",
        "snapshot.every=0",
    ]
    unbroken = finish(create(home, *overrides))
    run = stop_after(create(home, *overrides), 7)
    finish(runner.resume(run))
    assert_same_outcome(run, unbroken)


def test_what_is_logged_and_saved_does_not_change_the_training(home, trained):
    quiet = create(
        home, "log.every=100", "profile.every=0", "snapshot.every=0", "evaluate.every=0", "checkpoint.every=0"
    )
    run = finish(quiet)
    assert steps_of_checkpoints(run) == [12]
    busy = finish(create(home, "log.every=1", "profile.every=1", "snapshot.every=2", "evaluate.every=5"))
    for other in (run, busy):
        for group in ("model", "objective", "optimizer", "ema_0.9"):
            mine, theirs = checkpoint.load_group(other, 12, group), checkpoint.load_group(trained, 12, group)
            assert all(torch.equal(mine[name], tensor) for name, tensor in theirs.items())


def test_another_seed_gives_other_weights(home, trained):
    run = finish(create(home, "seed=4"))
    mine, theirs = checkpoint.load_group(run, 12, "model"), checkpoint.load_group(trained, 12, "model")
    assert not any(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_run_that_crashed_before_its_first_checkpoint_starts_over(home, trained):
    made = create(home)
    records = made.records()
    for _ in records:
        if made.trainer.state.step >= 3:
            break
    crash(made, records)
    assert steps_of_checkpoints(made.run) == []
    again = runner.resume(made.run)
    assert again.trainer.state.step == 0
    assert_same_outcome(finish(again), trained)


def test_rows_after_the_newest_checkpoint_are_trained_again_and_not_doubled(home, trained):
    made = create(home)
    records = made.records()
    for _ in records:
        if made.trainer.state.step == 9:  # the newest checkpoint is of step 5
            break
    assert {row["step"] for row in read_rows(made.run.metrics)} == {3, 6, 9}
    crash(made, records)
    again = runner.resume(made.run)
    assert again.trainer.state.step == 5
    assert_same_outcome(finish(again), trained)


def test_resume_passes_over_a_damaged_checkpoint_and_says_so(home, trained):
    run = stop_after(create(home), 7)
    assert steps_of_checkpoints(run) == [5, 7]
    victim = checkpoint.folder_of(run, 7) / "model.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1] + b"\xff")
    again = runner.resume(run)
    assert again.trainer.state.step == 5
    assert_same_outcome(finish(again), trained)
    (warning,) = (row["text"] for row in read_rows(run.events) if row["kind"] == "warning")
    assert "00000007" in warning
    assert "checksum" in warning


def test_with_every_checkpoint_damaged_there_is_nothing_to_resume(home):
    run = stop_after(create(home), 1)
    (checkpoint.folder_of(run, 1) / "state.json").unlink()
    with pytest.raises(NotFoundError, match=r"no checkpoint to resume from.*00000001"):
        runner.resume(run)
    shutil.rmtree(checkpoint.folder_of(run, 1))
    with pytest.raises(NotFoundError, match="checkpoints are gone"):
        runner.resume(run)


@pytest.mark.parametrize(("wrong", "key"), [('name = "nowhere"', "data.name"), ("noise = 3", "data.noise")])
def test_a_component_that_cannot_be_is_one_line(home, cmbench, wrong, key):
    run = stop_after(create(home), 3)
    run.recipe.write_text(run.recipe.read_text().replace('name = "ring"', wrong))
    refused = cmbench("resume", run.name, "--foreground")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"recipe.toml: {key}: " in refused.err


def test_what_a_kill_left_in_the_runs_folder_is_removed_by_a_resume(home):
    run = stop_after(create(home), 3)
    link = home / "runs" / f".latest.{machine()}.4194303"
    link.symlink_to(run.name)
    finish(runner.resume(run))
    assert not link.is_symlink()


def test_a_live_run_is_locked(home):
    made = create(home)
    records = made.records()
    next(records)
    with pytest.raises(ConflictError, match="a trainer works on this run"):
        runner.resume(made.run)
    records.close()
    finish(runner.resume(made.run))


def test_a_finished_run_is_not_resumed(trained):
    with pytest.raises(ConflictError, match="already finished at step 12"):
        runner.resume(trained)
    with pytest.raises(ConflictError, match="already finished"):  # the lock was let go of
        runner.resume(trained)


def test_a_run_of_another_host_is_left_alone(home):
    run = stop_after(create(home), 1)
    now = read_json(run.status)
    status.write(run, {**now, "state": "running", "host": "elsewhere"})
    with pytest.raises(ConflictError, match="elsewhere"):
        runner.resume(run)


def test_a_run_keeps_its_teacher(home, teacher):
    overrides = [*DISTILL, f"teacher.run={teacher.name}", "teacher.initialise_student=true", "log.every=1"]
    unbroken = finish(create(home, *overrides))
    run = stop_after(create(home, *overrides), 7)
    kept = weights.load_kept(run.teacher, torch.device("cpu")).model.state_dict()
    average = checkpoint.load_group(teacher, 12, "ema_0.5")
    assert all(torch.equal(kept[name], tensor) for name, tensor in average.items())
    shutil.rmtree(teacher.path)
    finish(runner.resume(run))
    assert_same_outcome(run, unbroken)


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_newest_and_the_best_checkpoints_stay(home, monkeypatch, keep):
    quality = iter([0.5, 0.1, 0.3, 0.4, 0.2, 0.6])
    made = create(home, f"checkpoint.keep={keep}", "checkpoint.every=2", "evaluate.every=2", "snapshot.every=0")
    monkeypatch.setattr(type(made.trainer), "evaluate", lambda self: {"sw_1step": next(quality), "sw_2step": 0.0})
    run = finish(made)
    assert steps_of_checkpoints(run) == {1: [4, 12], 2: [4, 10, 12]}[keep]
    best = status.read(run)["best"]["sw_1step"]
    assert (best["value"], best["step"]) == (0.1, 4)


@pytest.mark.parametrize("step", [5, 10, 12])
def test_a_checkpoint_tells_what_its_rows_came_to(home, step):
    """As reading all rows would, which is done where a checkpoint of an earlier version does not tell it."""
    run = finish(create(home, "log.every=1", "evaluate.every=2", "checkpoint.keep=9"))
    told, quality = recorder.told_so_far(run, step, "sw_1step")
    rows = [row for row in read_rows(run.metrics) if row["step"] <= step]
    wanted = Summary(rows)
    wanted.last.pop("images_per_s")  # is of the machine: checkpoints of equal runs are equal
    assert (told.last, told.best) == (wanted.last, wanted.best)
    measured = {row["step"]: row["sw_1step"] for row in rows if "sw_1step" in row}
    assert quality == {s: measured[s] for s in steps_of_checkpoints(run) if s <= step and s in measured}
    run.metrics.unlink()  # nothing was read of it
    assert recorder.told_so_far(run, step, "sw_1step")[0].last == wanted.last

    path = run.checkpoint(step) / "state.json"
    first = {key: value for key, value in read_json(path).items() if key in ("step", "sha256")}
    path.write_bytes(to_json({"schema": 1, **first}))
    log = Log(run.metrics)
    log.segment = 1
    for row in rows:
        log.append(row)
    log.close()
    again, quality = recorder.told_so_far(run, step, "sw_1step")
    assert again.last.pop("images_per_s") > 0
    assert (again.last, again.best, quality) == (wanted.last, wanted.best, measured)


def test_the_best_survives_a_resume(home, monkeypatch):
    quality = iter([0.5, 0.1, 0.3, 0.4, 0.2, 0.6])
    overrides = ["checkpoint.keep=1", "checkpoint.every=2", "evaluate.every=2", "snapshot.every=0"]
    made = create(home, *overrides)
    monkeypatch.setattr(type(made.trainer), "evaluate", lambda self: {"sw_1step": next(quality), "sw_2step": 0.0})
    run = finish(runner.resume(stop_after(made, 7)))
    assert steps_of_checkpoints(run) == [4, 12]
