"""What a killed command leaves in a runs folder is removed by the next one; what others put there is not."""

import os
import shutil
from pathlib import Path

import filelock
import pytest

from cmbench.rundir import leftovers, status
from cmbench.rundir.files import to_json
from cmbench.rundir.layout import RunDir, create, machine, point_latest
from cmbench.rundir.leftovers import sweep

OPENED = b'{"segment":1,"first_step":1}\n'
DEAD = {"state": "starting", "step": 0, "pid": 4194303, "pid_start": 1.0, "host": status.owner()["host"]}


def half_made(runs_dir):
    """A run just before it has its recipe."""
    run = create(runs_dir, "x")
    for path in (run.metrics, run.profiles, run.events):
        path.write_bytes(OPENED)
    run.lock.touch()
    run.status.write_bytes(to_json({**DEAD, "heartbeat": 0.0}))
    run.meta.write_text("{}")
    run.recipe_source.write_text("")
    (run.path / ".recipe.toml.12.tmp").write_text("half")
    for folder in (run.teacher, run.start):
        folder.mkdir()
        for name in ("model.safetensors", "teacher.json", ".teacher.json.12.tmp"):
            (folder / name).write_text("half")
    return run


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_run_in_the_making_is_removed_whatever_of_it_is_there(tmp_path):
    run = half_made(tmp_path)
    parts = [path.relative_to(run.path) for path in sorted(run.path.rglob("*"), reverse=True)]
    for part in parts:
        sweep(tmp_path)
        assert everything(tmp_path) == []
        run = half_made(tmp_path)
        for gone in parts[: parts.index(part) + 1]:
            path = run.path / gone
            path.rmdir() if path.is_dir() else path.unlink()
    sweep(tmp_path)
    assert everything(tmp_path) == []


FOREIGN = {
    "a file of another's": lambda run: (run.path / "notes.txt").write_text("mine"),
    "a hidden file": lambda run: (run.path / ".gitignore").write_text("mine"),
    "a hidden folder": lambda run: (run.path / ".ssh").mkdir(),
    "a checkpoint": lambda run: run.checkpoint(5).mkdir(),
    "a snapshot": lambda run: (run.snapshots / "00000005_1step.png").write_text("mine"),
    "rows": lambda run: run.metrics.write_bytes(OPENED + b'{"segment":1,"step":3}\n'),
    "a file among the weights": lambda run: (run.teacher / "notes.txt").write_text("mine"),
    "a link in the place of a file": lambda run: [run.meta.unlink(), run.meta.symlink_to(run.status)],
    "a link in the place of a folder": lambda run: [run.control.rmdir(), run.control.symlink_to(run.path.parent)],
    "a temporary of another name": lambda run: (run.path / ".thesis.txt.12.tmp").write_text("mine"),
    "its recipe": lambda run: run.recipe.write_text(""),
    "a live owner": lambda run: run.status.write_bytes(
        to_json({**status.owner(), "state": "starting", "heartbeat": 0.0})
    ),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_holds_more_stays_as_it_is(tmp_path, what):
    run = half_made(tmp_path)
    FOREIGN[what](run)
    before = everything(tmp_path)
    sweep(tmp_path)
    assert everything(tmp_path) == before


def test_a_run_that_is_being_made_stays(tmp_path):
    run = half_made(tmp_path)
    run.status.unlink()
    before = everything(tmp_path)
    with filelock.FileLock(run.lock):
        sweep(tmp_path)
        assert everything(tmp_path) == before
    sweep(tmp_path)
    assert everything(tmp_path) == []


@pytest.mark.parametrize("name", ["x", "x-20260102-030405", "x-20260102-030405-zzzz", ".ssh", "20260102-030405-aaaa"])
def test_a_folder_of_another_name_stays(tmp_path, name):
    (tmp_path / name).mkdir()
    sweep(tmp_path)
    assert everything(tmp_path) == [name]


def test_links_that_were_to_be_the_latest_are_removed_where_their_maker_is_no_more(tmp_path):
    dead = f".latest.{machine()}.4194303"
    kept = [f".latest.{machine()}.1", ".latest.0123456789ab.4194303", ".latest.4194303", ".latest.x", ".latest"]
    for name in (dead, *kept):
        (tmp_path / name).symlink_to("nowhere")
    (tmp_path / f".latest.{machine()}.4194302").write_text("no link")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f".latest.{machine()}.4194302", *kept}
    for path in tmp_path.iterdir():  # of other machines, and of older versions, nothing but their age is known
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f".latest.{machine()}.4194302", ".latest.x", ".latest"}


def test_the_link_in_the_making_of_another_machine_outlasts_a_sweep(tmp_path, monkeypatch):
    """Two hosts, or two containers, on one folder: the number of one's process means nothing to the other."""
    here, swept = machine(), []
    replace = Path.replace

    def meanwhile(path, target):
        monkeypatch.setattr(leftovers, "machine", lambda: "of another")
        monkeypatch.setattr(leftovers, "lives", lambda pid: False)
        sweep(tmp_path)
        swept.append(path.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    run = create(tmp_path, "x")
    run.recipe.touch()
    point_latest(run)
    assert swept == [f".latest.{here}.{os.getpid()}"]
    assert (tmp_path / "latest").readlink().name == run.name


def test_nothing_is_done_where_nothing_is(tmp_path):
    sweep(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    sweep(tmp_path / "file")
    assert RunDir(tmp_path / "nowhere").path.exists() is False
    shutil.rmtree(tmp_path)


def half_forked(runs_dir):
    """A fork at step 40 just before it has its recipe, its checkpoint whole and another half; also kept averages."""
    run = half_made(runs_dir)
    run.forking.write_bytes(to_json({"step": 40}))
    for path in (run.metrics, run.profiles, run.events, run.machine):
        path.write_bytes(b'{"segment":1,"first_step":41}\n')
    run.averages.mkdir()
    averages = (run.kept.checkpoint(20), run.averages / ".00000040.tmp")
    for folder in (run.checkpoint(40), run.checkpoints / ".00000040.tmp", *averages):
        folder.mkdir()
        for name in ("model.safetensors", "ema_0.999.safetensors", "state.json", ".state.json.12.tmp"):
            (folder / name).write_text("half")
    return run


def test_a_fork_in_the_making_is_removed_even_where_the_removal_was_killed(tmp_path, monkeypatch):
    steps = len(everything(half_forked(tmp_path).path))
    sweep(tmp_path)
    assert everything(tmp_path) == []
    for kills in range(steps):
        half_forked(tmp_path)
        with monkeypatch.context() as patch:
            left = [kills]
            for name in ("unlink", "rmdir"):
                patch.setattr(Path, name, killed_after(left, getattr(Path, name)))
            with pytest.raises(KeyboardInterrupt):
                sweep(tmp_path)
        sweep(tmp_path)
        assert everything(tmp_path) == [], kills


def killed_after(left, operation):
    def call(*given, **named):
        if left[0] <= 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return operation(*given, **named)

    return call


FOREIGN_TO_A_FORK = {
    "no word of the fork": lambda run: run.forking.unlink(),
    "half a word": lambda run: run.forking.write_text('{"st'),
    "another checkpoint": lambda run: run.checkpoint(60).mkdir(),
    "a file of another's in it": lambda run: (run.checkpoint(40) / "notes.txt").write_text("mine"),
    "a folder in it": lambda run: (run.checkpoint(40) / "sub").mkdir(),
    "a file among the averages": lambda run: (run.averages / "notes.txt").write_text("mine"),
    "reconstructed averages": lambda run: (run.averages / "reconstructed").mkdir(),
    "a file among the checkpoints": lambda run: (run.checkpoints / "notes.txt").write_text("mine"),
    "rows": lambda run: run.metrics.write_bytes(run.metrics.read_bytes() + b'{"segment":1,"step":50}\n'),
    "rows of another beginning": lambda run: run.metrics.write_bytes(OPENED),
    "its recipe": lambda run: run.recipe.write_text(""),
}


@pytest.mark.parametrize("what", FOREIGN_TO_A_FORK)
def test_what_holds_more_than_a_fork_in_the_making_stays(tmp_path, what):
    run = half_forked(tmp_path)
    FOREIGN_TO_A_FORK[what](run)
    before = everything(tmp_path)
    sweep(tmp_path)
    assert everything(tmp_path) == before
