"""A hand-steered run that is killed at any instant ends like the same run unbroken, bit for bit."""

import shutil

import pytest
from fake_runs import read_rows
from steered import answers, asked, assert_same_end, create, finish, killed

from cmbench.engine import checkpoint, runner
from cmbench.errors import DivergedError, UsageError
from cmbench.rundir.layout import steps_of_checkpoints

pytestmark = pytest.mark.usefixtures("put_back")
BASE = ["checkpoint.every=5", "snapshot.every=0", "evaluate.every=0", "log.every=1", "train.steps=14"]
STEERED = {
    3: [("set", {"optimizer.lr": 0.05, "ema.lengths": [0.8, 0.4]})],
    7: [("set", {"optimizer.lr": 0.002, "log.every": 2}), ("snapshot", None)],
    8: [("set", {"ema.lengths": [0.7, 0.6]})],
    10: [("set", {"optimizer.lr": 0.03})],
}


def settings_of(run):
    return [(row["id"], row["step"], row["settings"]) for row in answers(run) if row["action"] == "set"]


@pytest.fixture
def unbroken(home):
    return finish(asked(create(home, *BASE), STEERED))


@pytest.mark.parametrize("kills", [(2,), (4,), (6,), (9,), (12,), (9, 6), (9, 7, 6), (12, 13), (6, 12, 11)])
def test_a_steered_run_killed_and_resumed_equals_an_unbroken_one(home, unbroken, kills):
    first, *others = kills
    run = killed(asked(create(home, *BASE), STEERED), first)
    for kill in others:
        heard = {row["step"] for row in read_rows(run.events)}
        later = {step: wanted for step, wanted in STEERED.items() if step > max(heard | {first})}
        run = killed(asked(runner.resume(run), later), kill)
        first = max(first, kill)
    finish(asked(runner.resume(run), {step: wanted for step, wanted in STEERED.items() if step > first}))
    assert_same_end(run, unbroken)
    assert [row[1:] for row in settings_of(run)] == [row[1:] for row in settings_of(unbroken)]
    assert len({row[0] for row in settings_of(run)}) == 4


def test_a_kill_between_a_checkpoint_and_the_settings_of_its_step_loses_none(home, unbroken):
    run = killed(asked(create(home, *BASE), STEERED), 12)  # the newest checkpoint is that of 10: go back to 5
    (run.checkpoints / "00000010" / "state.json").unlink()
    run = killed(runner.resume(run), 10, deaf=True)
    finish(runner.resume(run))
    assert_same_end(run, unbroken)
    assert [row[1:] for row in settings_of(run)] == [row[1:] for row in settings_of(unbroken)]


def test_what_is_made_again_says_so_and_what_is_in_force_is_not_repeated(home):
    run = killed(asked(create(home, *BASE), STEERED), 9)
    first = settings_of(run)
    finish(runner.resume(run))
    rows = [row for row in answers(run) if row["action"] == "set"]
    assert settings_of(run) == first
    assert [(row["step"], row.get("replayed", False)) for row in rows] == [(3, False), (7, True), (8, True)]
    assert [row["action"] for row in answers(run)] == ["set", "set", "set"]  # no snapshot is drawn again


@pytest.mark.parametrize("kills", [(), (6,), (8,), (12,)])
def test_a_change_on_resume_holds_at_once_and_replaces_later_ones_of_its_key(home, kills):
    run = killed(asked(create(home, *BASE), STEERED), 12)
    (run.checkpoints / "00000010" / "state.json").unlink()
    again = runner.resume(run, changes={"optimizer.lr": 0.004})
    for kill in kills:
        killed(again, kill)
        again = runner.resume(run)
    finish(again)
    wanted = {
        3: STEERED[3],
        5: [("set", {"optimizer.lr": 0.004})],
        7: [("set", {"log.every": 2})],
        8: STEERED[8],
    }
    other = finish(asked(create(home, *BASE), wanted))
    assert_same_end(run, other)
    assert [row[1:] for row in settings_of(run)] == [row[1:] for row in settings_of(other)]


def test_so_does_a_new_setting_in_a_part_that_is_trained_again(home):
    run = killed(asked(create(home, *BASE), STEERED), 9)
    newer = {6: [("set", {"optimizer.lr": 0.004, "log.every": 3})]}
    run = killed(asked(runner.resume(run), newer), 7)
    finish(runner.resume(run))
    other = finish(asked(create(home, *BASE), {3: STEERED[3], **newer, 8: STEERED[8]}))
    assert_same_end(run, other)


def test_changes_that_are_not_allowed_leave_the_run_as_it_was(home):
    run = killed(asked(create(home, *BASE), STEERED), 6)
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    for changes in ({"optimizer.lr": -1.0}, {"train.steps": 3}, {"ema.lengths": [0.5]}):
        with pytest.raises(UsageError, match=f"^{run.name}: {next(iter(changes))}"):
            runner.resume(run, changes=changes)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    finish(runner.resume(run))


def test_a_run_that_a_setting_made_diverge_is_saved_by_another_from_an_earlier_checkpoint(home):
    made = asked(create(home, *BASE), {7: [("set", {"optimizer.lr": 1e30})]})
    with pytest.raises(DivergedError):
        list(made.records())
    shutil.rmtree(checkpoint.folder_of(made.run, steps_of_checkpoints(made.run)[-1]))
    with pytest.raises(DivergedError):
        list(runner.resume(made.run).records())
    shutil.rmtree(checkpoint.folder_of(made.run, steps_of_checkpoints(made.run)[-1]))
    run = finish(runner.resume(made.run, changes={"optimizer.lr": 1e-4}))
    assert [row[1:] for row in settings_of(run)] == [(5, {"optimizer.lr": 1e-4})]
