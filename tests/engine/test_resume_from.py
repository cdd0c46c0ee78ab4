"""A run taken up from an earlier checkpoint by choice: the line that it leaves is kept apart and never comes back."""

import pytest
from fake_runs import read_rows
from steered import answers, asked, assert_same_end, create, finish, killed

from cmbench.engine import checkpoint, runner
from cmbench.errors import DivergedError, NotFoundError
from cmbench.rundir import checkpoints, status
from cmbench.rundir.layout import steps_of_checkpoints
from cmbench.rundir.snapshots import FIXED
from cmbench.words.journal import event_line

pytestmark = pytest.mark.usefixtures("put_back")
BASE = ["checkpoint.every=5", "snapshot.every=0", "evaluate.every=0", "log.every=1", "train.steps=14"]
STEERED = {
    3: [("set", {"optimizer.lr": 0.05, "ema.lengths": [0.8, 0.4]})],
    7: [("set", {"optimizer.lr": 0.002, "log.every": 2})],
    10: [("set", {"optimizer.lr": 0.03})],
}


def abandoned(run):
    return sorted(path.name for path in run.abandoned_checkpoints.glob("*"))


@pytest.mark.parametrize("kills", [(), (5,), (6,), (9,), (12,), (6, 12)])
def test_it_goes_on_as_if_nothing_had_come_after_the_checkpoint(home, kills):
    """However often the new line is killed: its resumes stay on it, though the other one had a later checkpoint."""
    run = killed(asked(create(home, *BASE), STEERED), 12)
    assert steps_of_checkpoints(run) == [5, 10]
    again = runner.resume(run, step=5)
    for kill in kills:
        killed(again, kill)
        again = runner.resume(run)
        assert again.trainer.state.step == 5 * (kill // 5)
    finish(again)
    other = finish(asked(create(home, *BASE), {3: STEERED[3]}))
    assert_same_end(run, other)
    assert [(row["step"], row["settings"]) for row in answers(run)] == [(3, STEERED[3][0][1])]


def test_changes_hold_from_the_checkpoint_on(home):
    run = killed(asked(create(home, *BASE), STEERED), 12)
    again = runner.resume(run, changes={"optimizer.lr": 0.004}, step=5)
    killed(again, 6)
    finish(runner.resume(run))
    other = finish(asked(create(home, *BASE), {3: STEERED[3], 5: [("set", {"optimizer.lr": 0.004})]}))
    assert_same_end(run, other)


def test_a_setting_that_another_line_replaced_is_in_force_again(home):
    """Those of steps up to the checkpoint are in force, whatever came later for their keys."""
    run = killed(asked(create(home, *BASE), STEERED), 12)
    finish(runner.resume(run, step=10))
    assert_same_end(run, finish(asked(create(home, *BASE), STEERED)))


def test_it_is_the_way_out_of_a_run_that_diverged(home):
    made = asked(create(home, *BASE), {7: [("set", {"optimizer.lr": 1e30})]})
    with pytest.raises(DivergedError):
        list(made.records())
    run, ruined = made.run, made.trainer.state.step
    assert steps_of_checkpoints(run) == [5, ruined]
    with pytest.raises(DivergedError):  # the newest does not help
        list(runner.resume(run).records())
    run = killed(runner.resume(run, step=5), 6)
    assert (steps_of_checkpoints(run), abandoned(run)) == ([5], [f"{ruined:08d}"])
    assert checkpoints.choose(run) == status.read(run)["checkpoint"] == 5
    assert max(row["step"] for row in read_rows(run.metrics)) == 6
    (resumed,) = (row for row in read_rows(run.events) if row["kind"] == "resumed")
    assert (resumed["step"], resumed["chosen"], resumed["abandoned"]) == (5, True, [ruined])
    said = event_line(resumed)
    assert said.startswith("step 5  resumed after step 5 by choice; ")
    assert f"checkpoints {ruined} kept in checkpoints/abandoned" in said
    again = runner.resume(run)
    assert again.trainer.state.step == 5
    assert_same_end(finish(again), finish(create(home, *BASE)))


def test_what_was_abandoned_stays_until_the_run_has_passed_it(home):
    run = killed(asked(create(home, *BASE, "checkpoint.every=4", "checkpoint.keep=9"), STEERED), 13)
    whole = checkpoint.load(run, 12)
    run = killed(runner.resume(run, step=4), 9)
    assert (steps_of_checkpoints(run), abandoned(run)) == ([4, 8], ["00000012"])
    (run.abandoned_checkpoints / "00000012").rename(run.checkpoint(12))  # by hand it can be had again
    assert checkpoint.load(run, 12).keys() == whole.keys()
    finish(runner.resume(run, step=8))
    assert (steps_of_checkpoints(run), abandoned(run)) == ([4, 8, 12, 14], [])


def test_snapshots_of_abandoned_steps_are_set_aside(home):
    run = killed(create(home, "snapshot.every=3"), 10)
    before = {path.name for path in run.snapshots.iterdir()}
    killed(runner.resume(run, step=5), 5)
    left, aside = ({p.name for p in f.iterdir() if p.is_file()} for f in (run.snapshots, run.abandoned_snapshots))
    assert {name[:8] for name in left - {FIXED}} == {"00000003"}
    assert {int(name[:8]) for name in aside} == {6, 9}
    assert left | aside == before
    finish(runner.resume(run))


def test_a_checkpoint_that_cannot_be_read_leaves_the_run_as_it_was(home):
    run = killed(asked(create(home, *BASE), STEERED), 12)
    (run.checkpoint(5) / "model.safetensors").write_bytes(b"")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    for step in (5, 7):
        with pytest.raises(NotFoundError, match=f"{step:08d}"):
            runner.resume(run, step=step)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    finish(runner.resume(run))


@pytest.mark.parametrize("where", ["checkpoint.abandon_after", "snapshot.abandon_after", "live.Recorder"])
def test_a_resume_that_is_killed_on_its_way_back_is_completed_by_any_later_one(home, monkeypatch, where):
    run = killed(asked(create(home, *BASE, "snapshot.every=4"), STEERED), 12)
    with monkeypatch.context() as patch:
        patch.setattr(f"cmbench.engine.{where}", stopped)
        with pytest.raises(KeyboardInterrupt):
            killed(runner.resume(run, step=5), 6)
    again = runner.resume(run)
    assert again.trainer.state.step == 5
    assert steps_of_checkpoints(run) == [5]
    assert not [path for path in run.snapshots.glob("*_*step.*") if int(path.name[:8]) > 5]
    finish(again)
    assert_same_end(run, finish(asked(create(home, *BASE, "snapshot.every=4"), {3: STEERED[3]})))
    assert runner.unfinished(run) is None


def stopped(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_a_kept_copy_of_an_abandoned_checkpoint_disturbs_nobody(home):
    run = killed(create(home, *BASE), 12)
    again = runner.resume(run, step=5)
    (run.abandoned_checkpoints / "00000010").rename(run.abandoned_checkpoints / "00000010-keep")
    finish(again)
    assert abandoned(run) == ["00000010-keep"]
