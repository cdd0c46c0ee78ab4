"""pause, continue, checkpoint, snapshot and set, on a run that trains in a thread of this process."""

import json
import threading
from collections.abc import Iterator

import pytest
from fake_runs import read_rows

from cmbench import consent
from cmbench.engine import checkpoint, runner
from cmbench.engine.runner import Runner
from cmbench.rundir import control, status
from cmbench.rundir.files import read_json

LONG = ["train.steps=100000000", "log.every=1000", "profile.every=0", "snapshot.every=0", "evaluate.every=0"]
LONG += ["checkpoint.every=0", "network.width=4"]


@pytest.fixture
def live(home, put_back) -> Iterator[Runner]:
    made = runner.create(consent.named(home / "tiny.toml", LONG), None, [])
    trainer = threading.Thread(target=lambda: list(made.records()))
    trainer.start()
    yield made
    made.request_stop("test")
    trainer.join()


def test_a_run_is_paused_asked_for_things_and_goes_on(cmbench, live):
    run = live.run
    paused = cmbench("pause", run.name)
    step = live.trainer.state.step
    assert paused == (0, f"{run.name}: step {step}  pause: done\n", "")
    assert status.read(run)["state"] == "paused"
    assert "paused" in cmbench("ls").out
    assert cmbench("resume", run.name).err == f"cmbench: {run.name}: is paused (cmbench continue {run.name})\n"

    given = cmbench("set", run.name, "optimizer.lr=1e-4", "ema.lengths=[0.8,0.7]")
    assert (given.code, given.err) == (0, "")
    assert given.out == (f"{run.name}: step {step}  set: done (optimizer.lr=0.0001 ema.lengths=[0.8, 0.7])\n")
    assert live.trainer.recipe.optimizer.lr == 1e-4
    assert f"checkpoints/{step:08d}\n" in cmbench("checkpoint", run.name).out
    assert checkpoint.averages(run, step) == ["0.8", "0.7"]
    row = json.loads(cmbench("snapshot", run.name, "--json").out)
    assert row == read_rows(run.events)[-1]
    assert [(run.path / name).exists() for name in row["files"]] == [True, True]
    assert live.trainer.state.step == step

    assert cmbench("continue", run.name).code == 0
    assert status.read(run)["state"] == "running"
    assert cmbench("stop", run.name).code == 0
    assert live.trainer.state.step > step


def test_what_the_trainer_refuses_is_one_line_and_a_conflict(cmbench, live, monkeypatch):
    request = control.request
    monkeypatch.setattr(control, "request", lambda run, action, **details: request(run, "pasue", **details))
    refused = cmbench("pause", live.run.name)
    assert (refused.code, refused.out, refused.err.count("\n")) == (5, "", 1)
    assert refused.err.startswith(f"cmbench: {live.run.name}: pause refused: action: found 'pasue', allowed: pause")


def test_without_patience_nothing_is_waited_for(cmbench, trained):
    status.write(trained, {**(read_json(trained.status) or {}), **status.owner(), "state": "running"})
    assert cmbench("pause", trained.name, "--timeout", "0") == (0, f"{trained.name}: asked to pause\n", "")
    asked = json.loads(cmbench("set", trained.name, "log.every=5", "--timeout", "0", "--json").out)
    late = cmbench("continue", trained.name, "--timeout", "0.2")
    assert (late.code, late.out) == (1, "")
    assert late.err.startswith(f"cmbench: {trained.name}: asked to continue, but no answer after 0.2 s")
    waiting = control.take(trained)
    assert [request["action"] for request in waiting] == ["pause", "set", "continue"]
    assert waiting[1] == asked == {"id": asked["id"], "action": "set", "settings": {"log.every": 5}}


def test_a_run_that_ends_before_it_answers_is_a_conflict(cmbench, trained, monkeypatch):
    status.write(trained, {**(read_json(trained.status) or {}), **status.owner(), "state": "running"})

    def ends(run, action, **details):
        status.write(trained, {**(read_json(trained.status) or {}), "state": "finished"})
        return "1-ab"

    monkeypatch.setattr(control, "request", ends)
    outcome = cmbench("checkpoint", trained.name)
    assert outcome == (5, "", f"cmbench: {trained.name}: ended before it answered (finished)\n")


def test_a_resumed_run_takes_changes(cmbench, home, put_back):
    made = runner.create(consent.named(home / "tiny.toml", []), None, [])
    made.request_stop("test")
    list(made.records())
    resumed = cmbench("resume", made.run.name, "--set", "optimizer.lr=0.5", "--set", "log.every=12", "--plain")
    assert resumed.code == 0
    assert "set: done (optimizer.lr=0.5 log.every=12)" in resumed.out
    assert [row["lr"] for row in read_rows(made.run.metrics) if "lr" in row] == [0.5]
