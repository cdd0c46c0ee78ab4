"""A run at its edges: its last step, damaged and half-replaced checkpoints, and what is left on disk."""

import math

import pytest

from cmbench.engine import checkpoint, runner
from cmbench.rundir import status
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import steps_of_checkpoints

pytestmark = pytest.mark.usefixtures("put_back")


def create(home, *overrides):
    return runner.create(home / "tiny.toml", overrides, None, ["cmbench"])


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
    made = create(home, "checkpoint.keep=1", "checkpoint.every=2", "evaluate.every=2", "snapshot.every=0")
    monkeypatch.setattr(type(made.trainer), "evaluate", lambda self: {"sw_1step": next(quality), "sw_2step": math.inf})
    list(made.records())
    assert steps_of_checkpoints(made.run) == [4, 12]
    assert status.read(made.run)["best"] == {"sw_1step": {"value": 0.3, "step": 4}}


def test_what_a_killed_writer_left_is_swept(home):
    made = stop_after(create(home), 3)
    (made.run.path / ".status.json.123.tmp").write_bytes(b"half")
    list(runner.resume(made.run).records())
    assert not list(made.run.path.glob(".*"))


def test_a_recipe_that_fails_before_training_leaves_nothing(home):
    with pytest.raises((RuntimeError, MemoryError)):
        create(home, "evaluate.n=10000000000000")
    assert not (home / "runs").exists()
