"""The time of training is that of the steps, whatever else the run does and whatever the clock of the wall says."""

import time
from pathlib import Path

import numpy as np
import pytest
from fake_runs import read_rows
from steered import asked, create, finish, killed

from cmbench.engine import clock, runner
from cmbench.engine.runner import Runner
from cmbench.engine.trainer import Trainer
from cmbench.rundir import checkpoints, columns, status
from cmbench.rundir.checkpoints import sealed
from cmbench.rundir.files import read_json, to_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.series import Series

pytestmark = pytest.mark.usefixtures("put_back")

STEP = 2.0  # seconds of a step
BATCH = 8


class Watch:
    """A clock that stands still unless something is done."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch):
    """Steps take two seconds, what else a run does takes hours; the clock of the wall is set back and forth."""
    own, jumps = Watch(), iter(range(10**6))
    monkeypatch.setattr(clock, "time", own)
    monkeypatch.setattr(time, "time", lambda: 1.7e9 + 1e5 * (-1) ** next(jumps))
    for name in ("evaluate", "snapshot", "true_error"):
        does = getattr(Trainer, name)

        def slowly(self, does=does):
            own.now += 3600.0
            return does(self)

        monkeypatch.setattr(Trainer, name, slowly)
    return own


def timed(made: Runner, watch: Watch, seconds: float = STEP) -> Runner:
    """Let a step take its time, and what lies between two steps another: rows, requests, pauses, checkpoints."""
    move, between = made.trainer.objective.after_step, made.requests.between_steps

    def after_step(model, k):
        watch.now += seconds
        move(model, k)

    def between_steps():
        watch.now += 500.0
        return between()

    made.trainer.objective.after_step, made.requests.between_steps = after_step, between_steps
    return made


def train_s(path: Path) -> dict[int, float]:
    return {row["step"]: row["train_s"] for row in read_rows(path)}


def test_only_steps_count(home, watch):
    run = finish(timed(create(home), watch))
    for path in (run.metrics, run.profiles, run.events):
        found = train_s(path)
        assert found == {step: STEP * step for step in found}
    rates = [row["images_per_s"] for row in read_rows(run.metrics) if "images_per_s" in row]
    assert rates == [BATCH / STEP] * 4
    assert status.read(run)["train_s"] == 12 * STEP


def test_the_time_to_go_is_that_of_the_steps_to_come(home, watch):
    made = timed(create(home), watch)
    told = []
    for record in made.records():
        if record.stream == "metrics":
            made.recorder._write_status()
            told.append((made.trainer.state.step, status.read(made.run)["eta_s"]))
    assert told
    assert all(eta == STEP * (12 - step) for step, eta in told)


def test_it_goes_on_over_pauses_stops_and_nights(home, watch):
    pauses = {3: [("pause", None), ("continue", None)], 7: [("stop", None)]}
    made = timed(asked(create(home), pauses), watch)
    list(made.records())
    watch.now += 86400.0
    again = timed(runner.resume(made.run), watch)
    assert again.trainer.state.train_s == 7 * STEP
    run = finish(again)
    assert train_s(run.metrics) == {step: STEP * step for step in train_s(run.metrics)}
    loss = columns.read(run)["loss"]
    assert loss.seconds.tolist() == [STEP * step for step in loss.step]


def test_steps_that_are_trained_again_count_once(home, watch):
    run = killed(timed(create(home), watch, seconds=9.0), 8)
    again = timed(runner.resume(run), watch)
    assert (again.trainer.state.step, again.trainer.state.train_s) == (5, 45.0)
    found = train_s(finish(again).metrics)
    assert found == {step: 9.0 * min(step, 5) + STEP * max(0, step - 5) for step in found}


def test_a_speed_after_a_resume_is_that_of_its_own_steps(home, watch):
    made = timed(asked(create(home, "log.every=4"), {6: [("stop", None)]}), watch, seconds=50.0)
    list(made.records())
    run = finish(timed(runner.resume(made.run), watch))
    rates = {row["step"]: row["images_per_s"] for row in read_rows(run.metrics) if "images_per_s" in row}
    assert rates == {4: BATCH / 50.0, 8: BATCH / STEP, 12: BATCH / STEP}


def test_a_step_that_is_not_taken_does_not_count(home, watch):
    made = timed(create(home, "optimizer.lr=1e30", "optimizer.clip=0.0"), watch)
    with pytest.raises(Exception, match="not finite"):
        list(made.records())
    assert made.trainer.state.train_s == STEP * made.trainer.state.step


def without_seconds(run: RunDir) -> None:
    """Make a run one of an earlier version: neither rows nor checkpoints say their seconds."""
    for path in (run.metrics, run.profiles, run.events):
        lines = [line.split(b'"train_s":') for line in path.read_bytes().split(b"\n")]
        path.write_bytes(b"\n".join(b"".join([a, *(rest.partition(b",")[2] for rest in more)]) for a, *more in lines))
    for folder in run.checkpoints.iterdir():
        state = read_json(folder / "state.json")
        del state["train_s"], state["checksum"]
        (folder / "state.json").write_bytes(to_json(sealed(state)))


def test_a_run_of_an_earlier_version_is_told_by_its_speeds(home, watch):
    made = timed(asked(create(home, "log.every=5"), {5: [("stop", None)]}), watch)
    list(made.records())
    without_seconds(made.run)
    assert b"train_s" not in made.run.metrics.read_bytes()
    again = timed(runner.resume(made.run), watch)
    assert again.trainer.state.train_s == pytest.approx(5 * STEP)
    run = finish(again)
    loss = columns.read(run)["loss"]
    assert loss.seconds == pytest.approx(STEP * loss.step)
    read = Series(run)
    while read.read():
        pass
    assert read.metrics.curves["loss"].points().seconds == pytest.approx(loss.seconds)


def test_the_seal_of_a_checkpoint_holds_its_seconds(home, watch):
    run = finish(timed(create(home), watch))
    state, why = checkpoints.state(run, 12)
    assert (state["train_s"], why) == (12 * STEP, "")
    path = run.checkpoint(12) / "state.json"
    path.write_bytes(path.read_bytes().replace(b"24.0", b"25.0"))
    assert "checksum" in checkpoints.state(run, 12)[1]
    assert np.isfinite(state["train_s"])
