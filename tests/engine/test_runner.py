"""A run at its edges: its last step, damaged and half-replaced checkpoints, and what is left on disk."""

import gc
import math
import shutil
import socket
from types import SimpleNamespace

import pytest
import torch
from fake_runs import read_rows
from killed import KilledError, Killer

from cmbench import consent
from cmbench.engine import checkpoint, environment, runner
from cmbench.engine.ranks import Ranks
from cmbench.engine.trainer import Trainer
from cmbench.errors import STOPPED, NotFoundError, UsageError
from cmbench.rundir import control, layout, leftovers, status
from cmbench.rundir.files import read_json, to_json
from cmbench.rundir.layout import steps_of_checkpoints
from cmbench.tables import Train

pytestmark = pytest.mark.usefixtures("put_back")


def create(home, *overrides):
    return runner.create(consent.named(home / "tiny.toml", overrides), None, ["cmbench"])


def stop_after(made, step):
    """Ask the run to stop once `step` steps are done, and train it to its end."""
    move = made.trainer.objective.after_step

    def after_step(model, k):
        move(model, k)
        if k + 1 == step:
            made.request_stop("test")

    made.trainer.objective.after_step = after_step
    list(made.records())
    return made


def test_a_stop_at_the_last_step_comes_too_late(home):
    made = stop_after(create(home), 12)
    assert (made.exit_code, status.read(made.run)["state"]) == (0, "finished")


def test_a_run_killed_after_its_last_checkpoint_finishes_when_it_is_resumed(trained):
    status.write(trained, {**read_json(trained.status), "state": "running", "pid": 2**22 + 1})
    assert status.read(trained)["state"] == "crashed"
    list(runner.resume(trained).records())
    assert status.read(trained)["state"] == "finished"


def test_a_stop_at_a_step_whose_checkpoint_is_damaged_writes_it_again(home):
    made = stop_after(create(home), 7)
    (checkpoint.folder_of(made.run, 7) / "model.safetensors").write_bytes(b"")
    made = stop_after(runner.resume(made.run), 7)
    assert checkpoint.newest(made.run)[0] == 7


def test_a_quality_that_is_no_number_is_never_the_best(home, monkeypatch):
    quality = iter([math.nan, 0.3, 0.5, 0.4, 0.6, 0.6])
    made = create(home, "checkpoint.keep=1", "checkpoint.every=2", "evaluate.every=2", "evaluate.true_error_n=0")
    monkeypatch.setattr(type(made.trainer), "evaluate", lambda self: {"sw_1step": next(quality), "sw_2step": math.inf})
    list(made.records())
    assert steps_of_checkpoints(made.run) == [4, 12]
    assert status.read(made.run)["best"] == {"sw_1step": {"value": 0.3, "step": 4}}


def test_what_a_killed_writer_left_is_swept(home):
    made = stop_after(create(home), 3)
    (made.run.path / ".status.json.123.tmp").write_bytes(b"half")
    list(runner.resume(made.run).records())
    assert not list(made.run.path.glob(".*"))


def test_a_recipe_that_fails_before_training_leaves_nothing(home, monkeypatch):
    def too_much(*given):
        raise MemoryError

    monkeypatch.setattr(Trainer, "floor", too_much)
    with pytest.raises(MemoryError):
        create(home)
    assert not (home / "runs").exists()


def test_a_stop_that_comes_before_the_first_step_is_heard(home):
    made = create(home)
    control.request(made.run, "stop")
    list(made.records())
    assert (made.exit_code, status.read(made.run)["state"]) == (STOPPED, "stopped")


def test_a_request_to_a_trainer_that_is_no_more_is_refused(home):
    made = stop_after(create(home), 3)
    control.request(made.run, "stop")
    list(runner.resume(made.run).records())
    assert status.read(made.run)["state"] == "finished"
    (answer,) = (row for row in read_rows(made.run.events) if row["kind"] == "request")
    assert answer["result"] == "refused: the run was not live"


def test_records_that_nobody_asks_for_any_more_end_with_a_checkpoint(home):
    made = create(home)
    records = made.records()
    while made.trainer.state.step < 4:
        next(records)
    records.close()
    assert status.read(made.run)["state"] == "stopped"
    assert checkpoint.is_whole(made.run, made.trainer.state.step)


def test_a_damaged_checkpoint_is_set_aside_and_never_outlives_a_whole_one(home):
    made = stop_after(create(home, "checkpoint.keep=1", "checkpoint.every=4", "evaluate.every=0"), 9)
    (checkpoint.folder_of(made.run, 9) / "model.safetensors").write_bytes(b"")
    with pytest.raises(NotFoundError):  # 4 and 8 were pruned when 9 was saved
        runner.resume(made.run)
    made = stop_after(create(home, "checkpoint.keep=2", "checkpoint.every=4", "evaluate.every=0"), 9)
    (checkpoint.folder_of(made.run, 9) / "model.safetensors").write_bytes(b"")
    resumed = runner.resume(made.run)
    assert (resumed.trainer.state.step, steps_of_checkpoints(made.run)) == (8, [8])
    list(resumed.records())
    assert steps_of_checkpoints(made.run) == [8, 12]
    assert (made.run.checkpoints / "00000009.damaged").exists()


def test_a_resume_elsewhere_takes_the_threads_over_and_warns_of_the_rest(home):
    made = stop_after(create(home), 3)
    meta = read_json(made.run.meta)
    threads = torch.get_num_threads()
    made.run.meta.write_bytes(to_json({**meta, "threads": threads + 1, "device": "abacus"}))
    try:
        list(runner.resume(made.run).records())
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    (warning,) = (row["text"] for row in read_rows(made.run.events) if row["kind"] == "warning")
    assert "device was abacus" in warning


@pytest.mark.parametrize("found", ["x", -3, 0, 1e3, 10**11, [4], None])
def test_what_is_no_number_of_threads_is_passed_over_and_told(found):
    now = torch.get_num_threads()
    environment.make_reproducible(Train(), found)
    assert torch.get_num_threads() == now
    (told,) = environment.of_place({"threads": found}, SimpleNamespace(device=torch.device("cpu"), ranks=Ranks()))
    assert told == f"threads was {found}, is {now}: the run may not continue bit for bit"


def test_a_run_that_cannot_be_written_leaves_nothing(home, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    write = runner.write_atomically
    monkeypatch.setattr(
        runner, "write_atomically", lambda path, data: (fail if path.suffix == ".toml" else write)(path, data)
    )
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        create(home)
    assert list((home / "runs").iterdir()) == []


def test_a_run_that_cannot_be_called_the_latest_is_one(home, monkeypatch):
    def fail(*_):
        raise FileNotFoundError(2, "swept by another host")

    monkeypatch.setattr(runner.layout, "point_latest", fail)
    made = create(home)
    list(made.records())
    assert [path.name for path in (home / "runs").iterdir()] == [made.run.name]
    assert status.read(made.run)["state"] == "finished"


@pytest.mark.long
@pytest.mark.long
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the dead close no files
def test_what_a_kill_leaves_of_a_run_in_the_making_is_gone_after_the_next(home, monkeypatch, teacher):
    """Killed before each of its operations on files, a run is whole or nothing once another was made."""
    options = ["name=cd", "objective.kind=cd", "teacher.kind=run", f"teacher.run={teacher.name}"]
    locks, kills, whole = [], 0, False
    monkeypatch.setattr(status, "owner", lambda: {"pid": 4194303, "pid_start": 1.0, "host": socket.gethostname()})
    monkeypatch.setattr(runner, "hold", lambda run, hold=runner.hold: locks.append(hold(run)) or locks[-1])
    while not whole:
        with monkeypatch.context() as patch:
            Killer(patch, kills)
            try:
                made, whole = create(home, *options), True
            except KilledError:
                kills += 1
        for lock in locks:
            lock.release(force=True)
        runs = [path for path in (home / "runs").iterdir() if path.name.startswith("cd-")]
        half = [path for path in runs if not (path / "recipe.toml").exists()]
        leftovers.sweep(home / "runs")
        assert not [path for path in half if path.exists()]
        assert not [path for path in (home / "runs").iterdir() if path.name.startswith(".")]
        for path in [path for path in runs if path not in half and not whole]:
            runner.resume(layout.RunDir(path)).close()
            shutil.rmtree(path)
    made.close()
    gc.collect()
    assert kills > 20
