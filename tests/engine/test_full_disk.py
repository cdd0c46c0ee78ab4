"""A disk that is full, or fails: rows wait, a checkpoint gets a second chance, and the run can be resumed."""

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest
from fake_runs import read_rows
from steered import after, answers, asked, assert_same_end, create, finish, killed, timeless

from cmbench.cli import _train
from cmbench.engine import checkpoint, recorder, runner
from cmbench.errors import STOPPED, DivergedError, StoppedError
from cmbench.rundir import control, status
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import steps_of_checkpoints
from cmbench.rundir.select import all_runs

pytestmark = pytest.mark.usefixtures("put_back")
TROUBLES = [errno.ENOSPC, errno.EDQUOT, errno.EIO]


class Disk:
    """Where it is full, no file is made and none grows; what is there can be written over."""

    def __init__(self, patch, code=errno.ENOSPC):
        self.is_full, self.code = False, code
        self._open, self._write = os.open, os.write
        patch.setattr(os, "open", self._open_file)
        patch.setattr(os, "write", self._write_file)

    def _fail(self):
        raise OSError(self.code, os.strerror(self.code))

    def _open_file(self, path, flags, *rest, **options):
        if self.is_full and flags & os.O_CREAT and not Path(path).exists():
            self._fail()
        return self._open(path, flags, *rest, **options)

    def _write_file(self, descriptor, data):
        if self.is_full and stat.S_ISREG(os.fstat(descriptor).st_mode):
            grows = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
            if grows or os.lseek(descriptor, 0, os.SEEK_CUR) + len(data) > max(4096, os.fstat(descriptor).st_size):
                self._fail()
        return self._write(descriptor, data)


@pytest.fixture
def disk(monkeypatch):
    monkeypatch.setattr(recorder, "_LAST_WORD", 0.1)
    return Disk(monkeypatch)


def fill(disk, made, first, last=None):
    """Let the disk be full from one step on, and have room again at another."""
    after(made, first, lambda: setattr(disk, "is_full", True))
    if last is not None:
        after(made, last, lambda: setattr(disk, "is_full", False))
    return made


def warnings(run):
    return [row["text"] for row in read_rows(run.events) if row["kind"] == "warning"]


@pytest.mark.parametrize("code", TROUBLES)
def test_rows_wait_for_room_and_the_run_ends_as_if_nothing_was(home, trained, disk, code):
    disk.code = code
    run = finish(fill(disk, create(home), 2, 7))
    assert status.read(run)["state"] == "finished"
    assert_same_end(run, trained)
    assert timeless(run.metrics) == timeless(trained.metrics)
    assert timeless(run.profiles) == timeless(trained.profiles)
    assert steps_of_checkpoints(run) == [10, 12]
    why = os.strerror(code)
    for what in ("metrics.jsonl", "profiles.jsonl", "events.jsonl", "snapshots"):
        assert [text for text in warnings(run) if text.startswith(what)] == [
            f"{what}: cannot be written: {why}",
            f"{what}: can be written again",
        ]
    assert (
        f"the checkpoint of step 5 cannot be written: {why}; the next attempt is at the next due checkpoint"
        in warnings(run)
    )
    assert not list(run.path.rglob(".*"))


@pytest.mark.parametrize("code", TROUBLES)
def test_a_checkpoint_that_fails_twice_stops_the_run_which_can_be_resumed(home, trained, disk, code, capsys):
    disk.code = code
    made = fill(disk, create(home, "train.steps=30", "checkpoint.every=2"), 3)
    list(made.records())
    assert (made.exit_code, made.trainer.state.step) == (STOPPED, 6)
    assert made.recorder.reason == f"the checkpoint of step 6 cannot be written: {os.strerror(code)}"
    assert steps_of_checkpoints(made.run) == [2]
    assert not list(made.run.path.rglob(".*"))
    disk.is_full = False
    run = finish(runner.resume(made.run))
    assert_same_end(run, finish(create(home, "train.steps=30", "checkpoint.every=2")))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_the_status_is_true_while_the_disk_is_full(home, disk, code):
    disk.code = code
    made = fill(disk, create(home, "checkpoint.every=2"), 3)
    list(made.records())
    now = status.read(made.run)
    assert (now["state"], now["step"], now["checkpoint"]) == ("stopped", 6, 2)
    assert now["reason"] == f"the checkpoint of step 6 cannot be written: {os.strerror(code)}"


def test_the_status_is_true_as_soon_as_there_is_room(home, disk, monkeypatch):
    """A disk that takes not even the status over the old one, until the run has ended its training."""
    made = fill(disk, create(home, "checkpoint.every=2"), 3)
    monkeypatch.setattr(recorder, "_LAST_WORD", 60.0)
    monkeypatch.setattr(status, "overwrite", lambda *_: disk._fail())
    monkeypatch.setattr(recorder.time, "sleep", lambda _: setattr(disk, "is_full", False))
    list(made.records())
    now = read_json(made.run.status)
    assert (now["state"], now["step"]) == ("stopped", 6)
    assert [row["kind"] for row in read_rows(made.run.events)][-1] == "stopped"


def test_the_last_checkpoint_has_no_second_chance(home, trained, disk):
    made = fill(disk, create(home), 11)
    list(made.records())
    assert (made.exit_code, made.recorder.state) == (STOPPED, "stopped")
    assert steps_of_checkpoints(made.run) == [5, 10]
    disk.is_full = False
    assert_same_end(finish(runner.resume(made.run)), trained)


def test_a_stop_on_a_full_disk_is_a_stop_without_a_checkpoint(home, trained, disk):
    made = fill(disk, create(home), 7)
    after(made, 8, lambda: made.request_stop("SIGTERM"))
    list(made.records())
    assert (made.exit_code, status.read(made.run)["state"], steps_of_checkpoints(made.run)) == (STOPPED, "stopped", [5])
    disk.is_full = False
    assert_same_end(finish(runner.resume(made.run)), trained)


def test_what_is_asked_for_on_a_full_disk_is_refused_and_the_run_goes_on(home, trained, disk):
    made = fill(disk, create(home), 7, 8)
    asked(made, {7: []})
    after(made, 6, lambda: [control.request(made.run, action) for action in ("checkpoint", "snapshot")])
    after(made, 6, lambda: setattr(made.requests, "_next_look", float("inf")))
    run = finish(made)
    assert [row["result"] for row in answers(run)] == ["refused: it cannot be written: No space left on device"] * 2
    assert_same_end(run, trained)


def test_a_run_that_diverges_on_a_full_disk_has_diverged(home, disk):
    made = fill(disk, create(home, "optimizer.lr=1e20", "train.steps=200", "checkpoint.every=0"), 1)
    with pytest.raises(DivergedError, match=r"is not finite; the checkpoint of step .* cannot be written"):
        list(made.records())
    assert status.read(made.run)["state"] == "diverged"


def test_a_resume_on_a_full_disk_can_be_made_again(home, trained, disk):
    run = killed(create(home), 7)
    disk.is_full = True
    for _ in range(2):
        with pytest.raises(StoppedError, match="cannot be written: No space left on device"):
            runner.resume(run)
    assert StoppedError.exit_code == STOPPED
    disk.is_full = False
    assert_same_end(finish(runner.resume(run)), trained)


def test_a_checkpoint_that_cannot_take_its_place_leaves_the_one_that_has_it(home, monkeypatch):
    run = killed(create(home), 7)
    made = runner.resume(run)
    after(made, 10, lambda: None)
    before = checkpoint.load(run, 5)
    rename, calls = type(run.path).rename, []

    def fail_once(self, target):
        calls.append(self)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(run.path), "rename", fail_once)
        with pytest.raises(OSError, match="No space"):
            checkpoint.save(run, 5, before)
    assert checkpoint.is_whole(run, 5)
    assert [path.name for path in run.checkpoints.iterdir()] == ["00000005"]
    made.close()


def test_the_reason_is_on_stderr_and_the_exit_code_is_75(home, cmbench, disk, monkeypatch):
    create_run = runner.create

    def create_on_full(*given):
        return fill(disk, create_run(*given), 3)

    monkeypatch.setattr(runner, "create", create_on_full)
    outcome = cmbench("run", "tiny.toml", "--foreground", "--set", "checkpoint.every=2")
    name = next(iter((home / "runs").glob("tiny-*"))).name
    assert outcome.code == STOPPED
    assert outcome.err == f"cmbench: {name}: the checkpoint of step 6 cannot be written: No space left on device\n"
    stopped, way_on = outcome.out.splitlines()[-2:]
    assert stopped[8:] == "  step 6  stopped (a checkpoint could not be written) without a checkpoint"
    assert way_on == f"stopped at step 6: cmbench resume {name}"


@pytest.mark.parametrize("code", TROUBLES)
def test_no_room_for_the_console_stops_a_run_before_it_begins(home, cmbench, monkeypatch, code):
    def full_disk(path):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as full:
        full.setattr(_train, "open_to_append", full_disk)
        outcome = cmbench("run", "tiny.toml", "--foreground")
    (run,) = all_runs(home / "runs")
    assert outcome.code == STOPPED
    assert outcome.err == f"cmbench: {run.console}: cannot be written: {os.strerror(code)}\n"
    now = status.read(run)
    assert now["state"] == "stopped"
    assert f"cmbench: {now['reason']}\n" == outcome.err
    assert cmbench("resume", run.name, "--foreground").code == 0
