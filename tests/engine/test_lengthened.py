"""A finished run that is trained further: with all of its state, curricula over the new length, and bit for bit."""

import shutil

import pytest
import torch
from fake_runs import read_rows
from test_fork import equal, rows
from test_resume import create, finish, stop_after

from cmbench.comparison import member
from cmbench.engine import fork, runner
from cmbench.engine.runner import Runner
from cmbench.errors import ConflictError, UsageError
from cmbench.rundir import settings, status
from cmbench.rundir.layout import RunDir, steps_of_checkpoints

pytestmark = pytest.mark.usefixtures("put_back")
FURTHER = {"train.steps": 24}
SAVED = ["checkpoint.every=4", "checkpoint.keep=99", "log.every=1"]
LEARNED = [  # its weighting has parameters, which the optimiser holds
    *("name=scm", "objective={kind='sct', weighting='adaptive'}", "path.kind=trigflow", "path.sigma_data=0.5"),
    *("network.embedding=positional", "optimizer.decay=cosine"),
]
OBJECTIVES = {
    "ct with a target": ["optimizer.decay=cosine"],
    "ict": ["objective={kind='ict'}"],
    "ect": ["objective={kind='ect'}"],
    "sct with a learned weight": LEARNED,
}


def further(run: RunDir, name: str) -> RunDir:
    """Return a copy of a run."""
    return RunDir(shutil.copytree(run.path, run.path.with_name(name)))


def stopped(made: Runner, step: int) -> None:
    """Stop a run after the row of a step; its objective is another one from where it is made longer."""
    for record in made.records():
        if record.stream == "metrics" and record.row["step"] == step:
            made.request_stop("test")
    assert made.exit_code == 75


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_it_is_what_a_run_of_the_new_length_makes_of_the_same_state(home, kind):
    """A fork builds everything anew for the new length, and loads the state."""
    short = finish(create(home, *OBJECTIVES[kind], *SAVED))
    child = finish(fork.fork(short, 12, ["train.steps=24"], None, ["cmbench"]))
    longer = finish(runner.resume(short, changes=FURTHER))
    assert status.read(longer)["step"] == status.read(longer)["of"] == 24
    assert equal(child, longer, 24)
    assert rows(child, 12) == rows(longer, 12)


def test_it_is_resumed_bit_for_bit(home):
    whole = finish(create(home, *SAVED))
    broken, damaged = further(whole, "broken"), further(whole, "damaged")
    whole = finish(runner.resume(whole, changes=FURTHER))

    stopped(runner.resume(broken, changes=FURTHER), 17)
    assert status.read(broken)["state"] == "stopped"
    assert equal(finish(runner.resume(broken)), whole, 24)
    assert rows(broken, 0) == rows(whole, 0)

    stopped(runner.resume(damaged, changes=FURTHER), 14)
    for step in steps_of_checkpoints(damaged):  # back before the step where the run was made longer
        if step > 8:
            (damaged.checkpoint(step) / "model.safetensors").write_bytes(b"")
    assert equal(finish(runner.resume(damaged)), whole, 24)
    assert rows(damaged, 0) == rows(whole, 0)
    steps = [row["step"] for row in read_rows(whole.metrics) if "loss" in row]
    assert steps == sorted(set(steps))


def test_the_journal_says_what_follows_the_new_length(home):
    run = finish(create(home, "optimizer.decay=cosine"))
    told = [record.row for record in runner.resume(run, changes=FURTHER).records() if record.stream == "events"]
    (row,) = (row for row in told if row["kind"] == "lengthened")
    assert (row["step"], row["steps"], row["follow"]) == (12, 24, ["N", "mu", "lr"])
    constant = finish(create(home, "objective.s_0=20", "objective.s_1=20", "objective.mu_0=0.0"))
    list(runner.resume(constant, changes=FURTHER).records())
    (row,) = (row for row in read_rows(constant.events) if row.get("kind") == "lengthened")
    assert row["follow"] == []
    assert settings.steps(run, 12) == 24
    assert member.Member.read(run, "a").keys["train.steps"] == "12, 24 from step 13"


def test_an_unfinished_run_gets_another_length_and_a_finished_one_a_second(home):
    run = stop_after(create(home, *SAVED), 5)
    finish(runner.resume(run, changes={"train.steps": 9}))
    assert status.read(run)["step"] == 9
    finish(runner.resume(run, changes={"train.steps": 10}))
    finish(runner.resume(run, changes={"train.steps": 15, "log.every": 1}))
    assert steps_of_checkpoints(run)[-1] == 15
    with pytest.raises(ConflictError, match="already finished at step 15"):
        runner.resume(run)
    with pytest.raises(UsageError, match=r"train\.steps: found 15, allowed: more than 15"):
        runner.resume(run, changes={"train.steps": 15})


def test_going_back_by_choice_takes_the_new_length_back(home):
    run = finish(create(home, *SAVED))
    finish(runner.resume(run, changes=FURTHER))
    status.write(run, {**status.read(run), "state": "stopped"})
    finish(runner.resume(run, step=8))
    assert status.read(run)["step"] == 12


def test_no_request_changes_the_length(home):
    made = create(home)
    list(made.requests._grant({"id": "x", "action": "set", "settings": {"train.steps": 99}}))
    assert made.trainer.recipe.train.steps == 12
    made.close()
    assert "train.steps: cannot be changed while a run trains" in read_rows(made.run.events)[-1]["result"]


def test_checkpoints_past_the_recipe_count_in_a_run_of_millions(home):
    """A folder called as a date is no checkpoint, unless the run can reach its step."""
    run = finish(create(home))
    far = run.checkpoint(20_260_101)
    shutil.copytree(run.checkpoint(12), far)
    assert steps_of_checkpoints(run)[-1] == 12
    status.write(run, {**status.read(run), "of": 30_000_000})
    assert steps_of_checkpoints(run)[-1] == 20_260_101


def test_a_longer_run_has_all_weights_of_its_optimiser(home):
    made = create(home, *LEARNED)
    before = [p.detach().clone() for p in made.trainer.objective.parameters()]
    assert before
    list(made.records())
    again = runner.resume(made.run, changes=FURTHER)
    list(again.records())
    held = {id(p) for group in again.trainer.state.optimizer.param_groups for p in group["params"]}
    own = [p for p in again.trainer.objective.parameters() if p.requires_grad]
    assert {id(p) for p in own} <= held
    assert again.trainer.objective is again.trainer.state.objective
    assert any(not torch.equal(a, b) for a, b in zip(before, again.trainer.objective.parameters(), strict=True))
