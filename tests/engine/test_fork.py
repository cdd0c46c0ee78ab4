"""A child of a run: what its parent would have done with another setting, in a directory of its own."""

import gc
import shutil
import socket

import pytest
import torch
from fake_runs import read_rows
from killed import KilledError, Killer
from test_resume import create, finish, stop_after

from cmbench.engine import checkpoint, fork, runner
from cmbench.errors import NotFoundError, UsageError
from cmbench.rundir import leftovers, parents, status
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir, steps_of_checkpoints

pytestmark = pytest.mark.usefixtures("put_back")
CLOCK = {"time", "train_s", "images_per_s", "segment"}


def content(run: RunDir) -> dict[str, bytes]:
    return {str(p.relative_to(run.path)): p.read_bytes() for p in run.path.rglob("*") if p.is_file()}


def rows(run: RunDir, after: int) -> list[dict]:
    kept = [row for row in read_rows(run.metrics) if row.get("step", 0) > after]
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in kept]


def equal(a: RunDir, b: RunDir, step: int) -> bool:
    one, other = checkpoint.load(a, step), checkpoint.load(b, step)
    return one.keys() == other.keys() and all(
        one[group].keys() == other[group].keys()
        and all(torch.equal(one[group][name], other[group][name]) for name in one[group])
        for group in one
    )


def test_a_child_is_what_its_parent_would_have_become(home):
    parent = stop_after(create(home, "checkpoint.every=4", "checkpoint.keep=9"), 9)
    twin = RunDir(home / "runs" / "twin")
    shutil.copytree(parent.path, twin.path)
    before = content(parent)
    changed = finish(runner.resume(twin, changes={"optimizer.lr": 1e-3}, step=4))

    child = finish(fork.fork(parent, 4, ["optimizer.lr=1e-3"], None, ["cmbench"]))
    assert content(parent) == before
    assert equal(child, changed, 12)
    assert rows(child, 0) == rows(changed, 4)
    assert min(row["step"] for row in read_rows(child.metrics) if "step" in row) > 4
    meta = read_json(child.meta)
    assert meta["parent"] == {"run": parent.name, "step": 4, "changed": {"optimizer.lr": 1e-3}}
    assert parents.of(child) == parents.Parent(parent, 4)
    kinds = [row.get("kind") for row in read_rows(child.events)]
    assert kinds.count("forked") == 1
    assert "warning" not in kinds


def test_a_child_that_was_killed_at_once_goes_on_from_the_fork(home):
    parent = stop_after(create(home, "checkpoint.every=4"), 9)
    unbroken = finish(fork.fork(parent, 8, ["train.steps=14", "objective.mu_0=0.9"], None, ["cmbench"]))
    made = fork.fork(parent, 8, ["train.steps=14", "objective.mu_0=0.9"], None, ["cmbench"])
    made.close()
    assert steps_of_checkpoints(made.run) == [8]
    again = finish(runner.resume(made.run))
    assert equal(again, unbroken, 14)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("network.width=8", "network.width: found in --set, but the checkpoint depends on it"),
        ("optimizer.lrr=1", "allowed"),
        ("train.steps=4", "train.steps: found 4, allowed for a fork at step 4: more than 4"),
        ("data.name=grid", "data.name: found in --set"),
        (
            "objective.kind=sct",
            "objective.kind: found in --set, but the checkpoint depends on it; allowed: without it",
        ),
        (
            "ema.keep_every=5",
            "ema.keep_every: found in --set, but the checkpoint depends on it; allowed: without it",
        ),
        ("profile.bins=9", "profile.bins: found in --set"),
        ("ema.lengths=[0.9]", "averages"),
        ("seeds=3", "did you mean 'seed'"),
    ],
)
def test_what_cannot_be_forked_is_refused_and_nothing_is_written(home, trained, override, says):
    step = steps_of_checkpoints(trained)[-1] if "ema" in override else 4
    there = set((home / "runs").iterdir())
    with pytest.raises((UsageError, NotFoundError), match=says.replace("[", "\\[")):
        fork.fork(trained, step, [override, *(["train.steps=99"] if step > 4 else [])], None, ["cmbench"])
    assert {path for path in (home / "runs").iterdir() if path.is_dir()} <= there


def test_the_nearest_checkpoint_is_the_last_up_to_the_step(tmp_path):
    run = RunDir(tmp_path / "run")
    for step in (4, 8):
        run.checkpoint(step).mkdir(parents=True)
        (run.checkpoint(step) / "state.json").write_text("{}")
    assert [parents.nearest_checkpoint(run, wanted) for wanted in ("4", "7", "8", "999", "latest")] == [4, 4, 8, 8, 8]
    with pytest.raises(NotFoundError, match="no checkpoint up to step 3 to fork from: the first is at 4"):
        parents.nearest_checkpoint(run, "3")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("run@12", ("run", "12")),
        ("@latest", ("@latest", "latest")),
        ("@latest@3", ("@latest", "3")),
        ("@latest:ct@best", ("@latest:ct", "best")),
        ("runs/a@b", ("runs/a@b", "latest")),
    ],
)
def test_run_and_step_are_told_apart(text, parts):
    assert parents.split(text) == parts


@pytest.mark.parametrize("told", [None, 3, {}, {"run": "../x", "step": 1}, {"run": "..", "step": 1}, {"run": "no"}])
def test_a_parent_that_is_none(tmp_path, told):
    run = RunDir(tmp_path / "run")
    assert parents.of_meta(run, {"parent": told}) is None


@pytest.mark.long
@pytest.mark.long
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the dead close no files
def test_what_a_kill_leaves_of_a_fork_in_the_making_is_gone_after_the_next(home, monkeypatch):
    """Killed before each of its operations on files, a fork is a run that goes on from its checkpoint, or nothing."""
    parent = stop_after(create(home, "checkpoint.every=4"), 5)
    before, runs = content(parent), home / "runs"
    locks, kills, made = [], 0, None
    monkeypatch.setattr(status, "owner", lambda: {"pid": 4194303, "pid_start": 1.0, "host": socket.gethostname()})
    monkeypatch.setattr(runner, "hold", lambda run, hold=runner.hold: locks.append(hold(run)) or locks[-1])
    while made is None:
        with monkeypatch.context() as patch:
            Killer(patch, kills)
            try:
                made = fork.fork(parent, 4, ["train.steps=6"], None, ["cmbench"])
            except KilledError:
                kills += 1
        for lock in locks:
            lock.release(force=True)
        folders = [path for path in runs.iterdir() if path.name != parent.name and not path.is_symlink()]
        whole = [RunDir(path) for path in folders if (path / "recipe.toml").exists()]
        leftovers.sweep(runs)
        assert {path.name for path in runs.iterdir() if path.name != "latest"} == {
            parent.name,
            *(run.name for run in whole),
        }
        for run in whole if made is None else []:
            runner.resume(run).close()
            assert steps_of_checkpoints(run) == [4]
            shutil.rmtree(run.path)
    assert not made.run.forking.exists()
    made.close()
    gc.collect()
    assert content(parent) == before
    assert kills > 30
