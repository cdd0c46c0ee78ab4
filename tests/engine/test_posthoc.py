"""Averages that training keeps, and those that are made of them afterwards."""

import gc
import shutil

import pytest
import torch
from killed import KilledError, Killer
from steered import killed
from test_resume import create, finish, stop_after

from cmbench.engine import checkpoint, fork, runner, weights
from cmbench.engine.posthoc import Source
from cmbench.errors import NotFoundError, UsageError
from cmbench.rundir import reconstructed
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir, steps_of_checkpoints

pytestmark = pytest.mark.usefixtures("put_back")
QUIET = ["evaluate.every=0", "snapshot.every=0", "profile.every=0"]
POWER = ["ema={profile='power', lengths=[0.05, 0.1], keep_every=2}", *QUIET]
TRUTH = [0.03, 0.075, 0.2]
MANY = ["ema={profile='power', lengths=[0.05, 0.1, 0.03, 0.075, 0.2], keep_every=4}", "train.steps=128", *QUIET]
CPU = torch.device("cpu")


def kept_in(run: RunDir) -> dict[int, dict]:
    return {step: checkpoint.load(run.kept, step) for step in steps_of_checkpoints(run.kept)}


def assert_equal(one: dict[int, dict], other: dict[int, dict]) -> None:
    assert one.keys() == other.keys()
    for step, groups in one.items():
        assert list(groups) == list(other[step])
        for group, tensors in groups.items():
            assert all(torch.equal(tensor, other[step][group][name]) for name, tensor in tensors.items())


@pytest.fixture
def powerful(home) -> RunDir:
    return finish(create(home, *POWER))


def test_copies_are_the_averages_of_their_steps_and_outlast_the_checkpoints(home, powerful):
    assert steps_of_checkpoints(powerful.kept) == [2, 4, 6, 8, 10, 12]
    assert steps_of_checkpoints(powerful) == [10, 12]
    for step in (10, 12):
        averages = {name: own for name, own in checkpoint.load(powerful, step).items() if name.startswith("ema_")}
        assert list(averages) == ["ema_0.05", "ema_0.1"]
        assert_equal({step: averages}, {step: checkpoint.load(powerful.kept, step)})
    stopped = stop_after(create(home, *POWER), 4)
    assert_equal({4: kept_in(stopped)[4]}, {4: kept_in(powerful)[4]})


@pytest.mark.parametrize("kills", [(3,), (7,), (8, 9)])
def test_copies_of_a_killed_and_resumed_run_are_those_of_an_unbroken_one(home, powerful, kills):
    made = create(home, *POWER)
    for kill in kills:
        killed(made, kill)
        made = runner.resume(made.run)
    assert_equal(kept_in(finish(made)), kept_in(powerful))
    assert [path.name for path in made.run.kept.abandoned_checkpoints.glob("*")] == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the dead close no files
def test_killed_while_it_writes_a_copy_a_run_resumes_and_the_copy_is_whole(home, powerful, monkeypatch):
    """Before every sixth operation on files of the copy of step 6."""
    kills, done = 0, False
    while not done:
        run = killed(create(home, *POWER), 5)
        again = runner.resume(run)
        keep = again.recorder.keep_averages
        with monkeypatch.context() as patch:

            def within(kills=kills, keep=keep, patch=patch, again=again) -> None:
                if again.trainer.state.step == 6:
                    Killer(patch, kills)
                keep()
                patch.undo()

            again.recorder.keep_averages = within
            again.stop_now = lambda: iter(())
            try:
                finish(again)
                done = True
            except KilledError:
                again.lock.release(force=True)
        if not done:
            kills += 6
            finish(runner.resume(run))
        assert_equal(kept_in(run), kept_in(powerful))
        shutil.rmtree(run.path)
    del again, keep, within
    gc.collect()
    assert kills > 5


def test_copies_past_a_checkpoint_that_the_user_went_back_to_are_set_aside_until_passed(home):
    run = stop_after(create(home, *POWER, "checkpoint.keep=9"), 11)
    before = kept_in(run)
    again = runner.resume(run, changes={"optimizer.lr": 0.1}, step=5)
    assert steps_of_checkpoints(run.kept) == [2, 4]
    assert len(list(run.kept.abandoned_checkpoints.iterdir())) == 3
    finish(again)
    after = kept_in(run)
    assert after.keys() == {*before.keys(), 12}
    assert_equal({k: after[k] for k in (2, 4)}, {k: before[k] for k in (2, 4)})
    assert not torch.equal(*(own[10]["ema_0.1"]["F_theta.output.weight"] for own in (before, after)))
    assert list(run.kept.abandoned_checkpoints.iterdir()) == []


def test_a_resume_that_is_killed_on_its_way_back_loses_no_copy(home, monkeypatch):
    """Killed before it has told of its choice, it leaves the copies of the line that goes on."""
    run = stop_after(create(home, *POWER, "checkpoint.keep=9"), 11)
    before = kept_in(run)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_abandon", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            runner.resume(run, step=5)
    finish(runner.resume(run))
    after = kept_in(run)
    assert_equal({step: after[step] for step in before}, before)


def test_what_is_reconstructed_is_what_training_took(home):
    """Of two widths at 32 steps: the others to a few percent of what averaging does."""
    long = finish(create(home, *MANY))
    outcomes = Source(long, 128, [0.05, 0.1]).reconstruct([*TRUTH, 0.05])
    assert [own.path for own in outcomes] == [""] * 4
    assert all(own.difference < bound for own, bound in zip(outcomes, [0.03, 0.003, 0.03, 1e-6], strict=True))
    assert not (long.averages / "reconstructed").exists()


def test_it_is_found_wherever_an_average_is_named(home, powerful):
    (outcome,) = Source(powerful, 12).reconstruct([0.075])
    assert outcome.path.startswith(str(powerful.averages))
    trained = weights.load(powerful, CPU, "0.075")
    assert (trained.ema, trained.step) == ("0.075", 12)
    found = checkpoint.read_tensors(outcome.path)
    assert all(torch.equal(found[name], tensor) for name, tensor in trained.model.state_dict().items())
    assert checkpoint.averages(powerful, 12) == ["0.05", "0.1", "0.075"]
    assert weights.load(powerful, CPU).ema == "0.05"
    assert weights.load(powerful, CPU, "0.0750").ema == "0.075"
    with pytest.raises(UsageError, match=r"found '0\.075', allowed: 0\.05, 0\.1, none"):
        weights.load(powerful, CPU, "0.075", 10)
    finish(runner.resume(powerful, changes={"train.steps": 14}))  # a resume does not take it for its own


def test_it_does_not_belong_to_another_checkpoint_of_its_step(home):
    run = stop_after(create(home, *POWER, "checkpoint.keep=9"), 11)
    Source(run, 10).reconstruct([0.075])
    assert "ema_0.075" in reconstructed.checksums(run, 10)
    finish(runner.resume(run, changes={"optimizer.lr": 0.1}, step=5))
    assert "ema_0.075" not in reconstructed.checksums(run, 10)
    Source(run, 10).reconstruct([0.075])
    assert "ema_0.075" in reconstructed.checksums(run, 10)


def test_a_fork_takes_the_copies_along(home, powerful):
    child = finish(fork.fork(powerful, 10, ["train.steps=14"], None, ["cmbench"]))
    assert steps_of_checkpoints(child.kept) == [2, 4, 6, 8, 10, 12, 14]
    mine, theirs = kept_in(child), kept_in(powerful)
    assert_equal({k: mine[k] for k in range(2, 12, 2)}, {k: theirs[k] for k in range(2, 12, 2)})


@pytest.mark.parametrize("change", ["ema.lengths", "ema.keep_every"])
def test_neither_a_setting_nor_a_fork_mixes_profiles(home, powerful, change):
    value = [0.05, 0.2] if change == "ema.lengths" else 3
    with pytest.raises(UsageError, match=change):
        runner.resume(powerful, changes={change: value, "train.steps": 14})
    with pytest.raises(UsageError, match=change):
        fork.fork(powerful, 10, [f"{change}={value}"], None, ["cmbench"])


@pytest.mark.parametrize(
    ("step", "only", "says"),
    [(10, [0.2], "--kept: found 0.2, allowed: 0.05, 0.1, which"), (11, [], "00000011/state.json: missing or broken")],
)
def test_what_cannot_be_a_source(powerful, step, only, says):
    with pytest.raises((UsageError, NotFoundError), match=says):
        Source(powerful, step, only)


def test_a_damaged_copy_is_named(powerful):
    file = powerful.kept.checkpoint(4) / "ema_0.1.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(NotFoundError, match=r"averages/00000004/ema_0.1.safetensors: damaged"):
        Source(powerful, 12).reconstruct([0.075])


@pytest.mark.parametrize("names", [["ema_0.05"], [], ["ema_0.05", "ema_0.7"]])
def test_a_copy_of_other_groups_is_damaged(powerful, names):
    groups = checkpoint.load(powerful.kept, 4)
    checkpoint.save(powerful.kept, 4, dict.fromkeys(names, groups["ema_0.1"]))
    with pytest.raises(NotFoundError, match=r"averages/00000004"):
        Source(powerful, 12).reconstruct([0.075])


def test_averages_of_a_width_that_no_power_function_has_are_none(powerful):
    groups = checkpoint.load(powerful, 12)
    checkpoint.save(powerful, 12, {"model": groups["model"], "ema_0.7": groups["ema_0.1"], "ema_1e-400": {}})
    with pytest.raises(NotFoundError, match="it has no average of a width"):
        Source(powerful, 12)


def test_half_lives_train_and_are_named_in_images(home):
    run = finish(create(home, "ema={profile='half_life', lengths=[64, 500000], ramp_up=0.05}", *QUIET))
    assert checkpoint.averages(run, 12) == ["64.0", "500000.0"]
    trained = weights.load(run, CPU, "500000")
    assert trained.ema == "500000.0"
    assert read_json(run.checkpoint(12) / "state.json")["sha256"].keys() >= {"ema_64.0", "ema_500000.0"}


def test_half_lives_are_those_of_the_recursion(home):
    made = create(home, "ema={profile='half_life', lengths=[20]}", *QUIET)
    (average,), model = made.trainer.state.averages, made.trainer.state.model
    truth = model.F_theta.output.weight.detach().clone()
    for event in range(3):
        with torch.no_grad():
            model.F_theta.output.weight += event + 1
        average.update(event + 1)
        truth = 0.5 ** (8 / 20) * truth + (1 - 0.5 ** (8 / 20)) * model.F_theta.output.weight.detach()
    torch.testing.assert_close(average.model.F_theta.output.weight, truth)
    made.close("test")
