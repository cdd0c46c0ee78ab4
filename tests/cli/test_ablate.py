"""Ablations: switches named by an objective, a run for each variant and seed, taken up where they were left."""

import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from fake_runs import read_rows
from tiny import TINY, set_options
from waiting import until

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _plan, _variants
from cmbench.engine import runner
from cmbench.errors import DivergedError
from cmbench.rundir import status
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.select import all_runs

STEPS = 60

# Its tangent norm peaks at 10 (20 without the brake) in step 7; its true error at step k is 1 / k.
OWN = """
import signal
import time
from dataclasses import replace
from pathlib import Path

from cmbench.objectives import ct

def was_asked_to_stop():
    return signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # the first signal leaves the second to the system

class Config(ct.Config):
    brake: bool = True
    prop: bool = True
    slack: float = 0.0

class Mine(ct.Objective):
    switches = {
        "brake": ("objective.brake=false",),
        "prop": ("objective.prop=false", "objective.huber_c=0.1"),
        "slack": ("objective.slack=0.0",),
        "adn": ("network.double_norm=false",),
    }

    def loss(self, model, x_0, labels, step, random):
        while step == 5 and Path("held").exists() and not was_asked_to_stop():
            time.sleep(0.01)
        if not self.config.prop and Path("broken").exists():
            raise RuntimeError("nothing holds it up")
        terms = super().loss(model, x_0, labels, step, random)
        peak = (10.0 - abs(step - 6)) * (1 if self.config.brake else 2)
        total = terms.total if self.config.brake or step < 30 else terms.total * float("nan")
        norm = terms.loss.new_full(terms.loss.shape, peak)
        return replace(terms, total=total, tangent_norm=norm, scalars={"true_error": 1 / (step + 1)})
"""
MINE = TINY.replace('kind = "ct"', 'kind = "own_mine:Mine"').replace("steps = 12", f"steps = {STEPS}")
MINE = MINE.replace('name = "tiny"', 'name = "mine"').replace("[log]\nevery = 3", "[log]\nevery = 1")
MINE = MINE.replace("n = 32", "n = 32\ntrue_error_n = 0")  # its own takes the place
MINE = MINE.replace("every = 6", "every = 20").replace("every = 5", "every = 0")


@pytest.fixture
def mine(home: Path, put_back: None) -> Path:
    """A recipe of an objective of one's own, which has switches."""
    (home / "own_mine.py").write_text(OWN)
    (home / "mine.toml").write_text(MINE)
    return home


def tasks(*overrides: str, seeds: int = 1, drop: str = "brake,prop", name: str = "mine_ablation") -> list:
    path = Path("mine.toml")
    whole = _plan.complete(path, overrides)
    dropped = _variants.chosen(drop, _variants.switches_of(path, overrides, whole), "mine.toml")
    return _variants.tasks_of(path, overrides, whole, dropped, seeds, name, Path("runs"))


def train(task: object) -> RunDir:
    made = runner.create(consent.named(Path("mine.toml"), task.overrides), Path("runs"), [])
    with contextlib.suppress(DivergedError):
        list(made.records())
    return made.run


def interrupt_when(condition) -> threading.Thread:
    """Send this process what Ctrl-C sends, once a condition holds."""

    def wait() -> None:
        until(condition)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.long
def test_an_ablation_stopped_by_ctrl_c_is_taken_up_and_compared(mine, cmbench, monkeypatch):
    command = ["ablate", "mine.toml", "--drop", "brake,prop", "--jobs", 2]
    (mine / "held").touch()
    (mine / "broken").touch()
    both_train = interrupt_when(lambda: sum(bool(read_rows(run.metrics)) for run in all_runs(mine / "runs")) == 2)
    stopped = cmbench(*command)
    both_train.join()
    assert stopped.code == 75, stopped
    assert stopped.err == ""
    whole, brake = sorted(all_runs(mine / "runs"), key=lambda run: run.name, reverse=True)  # the third was not started
    assert whole.name.startswith("mine_ablation_whole-")
    assert brake.name.startswith("mine_ablation_no_brake-")
    lines = stopped.out.splitlines()
    for run in (whole, brake):
        now = status.read(run)
        assert now["state"] == "stopped"
        assert 0 < now["step"] <= 6
        assert steps_of_checkpoints(run)[-1] == now["step"]
        assert f"{run.name}  seed 3  started" in lines
        assert any(line.startswith(f"{run.name}  seed 3  stopped at step {now['step']}") for line in lines)
    assert lines[-1] == f"stopped, 3 of 3 runs left; go on: {' '.join(['cmbench', *map(str, command)])}"

    (mine / "held").unlink()
    list(runner.resume(whole).records())  # as `cmbench resume` would
    before = whole.metrics.read_bytes(), whole.events.read_bytes()
    failed = cmbench(*command, "--json")
    assert failed.code == 1
    (prop,) = (run for run in all_runs(mine / "runs") if run.name.startswith("mine_ablation_no_prop-"))
    why = "failed: RuntimeError: nothing holds it up (CMBENCH_DEBUG=1 shows where)"
    assert failed.err.splitlines()[-1] == f"cmbench: {prop.name}  seed 3: {why}"
    assert [row["of"] for row in json.loads(failed.out)["variants"]] == [1, 1, 0]
    assert [status.read(run)["state"] for run in (whole, brake, prop)] == ["finished", "diverged", "failed"]
    assert status.read(whole)["segment"] == status.read(brake)["segment"] == 2
    assert (whole.metrics.read_bytes(), whole.events.read_bytes()) == before
    assert failed.err.splitlines()[0] == "1 of 3 runs exist already"
    assert f"{brake.name}  seed 3  resumed" in failed.err
    assert f"{brake.name}  seed 3  diverged at step 30  sw_1step" in failed.err
    assert f"{prop.name}  seed 3  started" in failed.err

    (mine / "broken").unlink()
    list(runner.resume(prop).records())
    monkeypatch.setattr(sys, "executable", "/nonexistent")  # all is there: nothing may be started
    done = cmbench(*command, "--json")
    assert (done.code, done.err) == (0, "")
    answer = json.loads(done.out)
    assert (answer["name"], answer["metric"]) == ("mine_ablation", "sw_1step")
    rows = {row["variant"]: row for row in answer["variants"]}
    assert list(rows) == ["whole", "no_brake", "no_prop"]
    assert [row["largest_tangent_norm"] for row in rows.values()] == [10, 20, 10]
    assert [(row["diverged"], row["of"]) for row in rows.values()] == [(0, 1), (1, 1), (0, 1)]
    assert [row["true_error"] for row in rows.values()] == [1 / STEPS, None, 1 / STEPS]
    assert rows["no_brake"]["runs"][0]["true_error"] == 1 / 30
    for run, row in ((whole, rows["whole"]), (prop, rows["no_prop"])):
        assert row["quality"] == [r for r in read_rows(run.metrics) if "sw_1step" in r][-1]["sw_1step"]
        assert row["quality_std"] is None

    again = cmbench(*command)
    assert (again.code, again.err) == (0, "")
    header, *table = (line.split() for line in again.out.splitlines())
    assert header == ["variant", "seeds", "sw_1step", "true_error", "largest", "tangent_norm", "diverged"]
    assert table[1] == ["no_brake", "3", "-", "-", "20", "1", "of", "1"]
    assert table[0] == ["whole", "3", f"{rows['whole']['quality']:.4g}", f"{1 / STEPS:.4g}", "10", "0", "of", "1"]
    assert len(all_runs(mine / "runs")) == 3


def test_means_are_over_the_seeds_that_finished(mine, cmbench, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent")  # nothing may be started
    given = ["train.steps=32"]
    planned = tasks(*given, seeds=3, drop="brake")
    assert [(task.recipe.name, task.recipe.seed) for task in planned] == [
        (f"mine_ablation_{variant}", seed) for variant in ("whole", "no_brake") for seed in (3, 4, 5)
    ]
    runs = [train(task) for task in planned]
    finals = []
    for run in runs[:3]:
        assert status.read(run)["state"] == "finished"
        finals.append([row for row in read_rows(run.metrics) if "sw_1step" in row][-1]["sw_1step"])
    command = ["ablate", "mine.toml", *set_options(given), "--drop", "brake", "--seeds", 3]
    whole, brake = json.loads(cmbench(*command, "--json").out)["variants"]
    assert whole["quality"] == pytest.approx(np.mean(finals))
    assert whole["quality_std"] == pytest.approx(np.std(finals, ddof=1))
    assert [run["quality"] for run in whole["runs"]] == finals
    assert [run["run"] for run in whole["runs"] + brake["runs"]] == [run.name for run in runs]
    assert (brake["quality"], brake["diverged"], brake["of"]) == (None, 3, 3)
    row = cmbench(*command).out.splitlines()[1]
    assert row.split()[1:7] == ["3,", "4,", "5", f"{np.mean(finals):.4g}", "±", f"{np.std(finals, ddof=1):.2g}"]


def test_a_variant_of_this_name_with_another_recipe(mine, cmbench):
    run = train(tasks("train.steps=2")[0])
    for more, key in ((["train.steps=3"], "train.steps is 2 there and 3 here"), (["train.steps=2", "seed=9"], None)):
        planned = tasks(*more)
        if key is None:  # another seed is a run of its own
            _plan.take_up(planned, Path("runs"))
            assert [task.run for task in planned] == [None] * 3
            continue
        refused = cmbench("ablate", "mine.toml", *set_options(more), "--drop", "brake")
        assert refused.code == 5
        assert refused.err == f"cmbench: {run.name}: {key}; choose another --name, or the same recipe\n"
        assert refused.out == ""
    assert len(all_runs(mine / "runs")) == 1


def test_a_run_that_ended_counts_before_one_that_did_not(mine):
    planned = tasks("train.steps=2", drop="brake")
    ended, later = train(planned[0]), train(planned[0])
    status.write(later, {**status.read(later), "state": "stopped"})
    _plan.take_up(planned, Path("runs"))
    assert planned[0].run.name == ended.name
    status.write(ended, {**status.read(ended), "state": "stopped"})
    planned = tasks("train.steps=2", drop="brake")
    _plan.take_up(planned, Path("runs"))
    assert planned[0].run.name == later.name


def test_a_live_variant_is_left_alone(mine, cmbench):
    run = train(tasks("train.steps=2")[0])
    status.write(run, {**status.read(run), **status.owner(), "state": "running"})
    refused = cmbench("ablate", "mine.toml", "--set", "train.steps=2", "--drop", "brake")
    assert refused.code == 5
    assert refused.err == f"cmbench: {run.name}: a trainer works on this run (cmbench watch {run.name})\n"


def test_the_teacher_is_the_same_for_all_variants(home, teacher, put_back):
    """@latest would be the variant before: the run that it means when the ablation starts is named in full."""
    path, given = home / "tiny.toml", ["objective={kind='cd'}", "teacher.kind=run", "train.steps=2"]

    def planned(selector: str) -> list:
        latest = [*given, f"teacher.run={selector}"]
        return _variants.tasks_of(path, latest, _plan.complete(path, latest), [], 1, "taught", home / "runs")

    (task,) = planned("@latest")
    assert task.recipe.teacher.run == teacher.name
    made = runner.create(consent.named(path, task.overrides), home / "runs", [])
    list(made.records())
    (again,) = planned("@latest:dm-")
    _plan.take_up([again], home / "runs")
    assert again.run.name == made.run.name
    (by_path,) = planned(f"runs/{teacher.name}")  # the run keeps a path as an absolute one
    assert by_path.recipe.teacher.run == str(teacher.path)


def test_a_variant_is_the_recipe_with_its_overrides_alone(mine):
    whole, brake, prop = (task.recipe.tables() for task in tasks())
    assert brake["objective"] == {**whole["objective"], "brake": False}
    assert prop["objective"] == {**whole["objective"], "prop": False, "huber_c": 0.1}
    for tables in (brake, prop):
        assert {**tables, "name": "", "objective": {}} == {**whole, "name": "", "objective": {}}
    assert {k: v for k, v in whole.items() if k != "name"} == {
        k: v for k, v in _plan.complete(Path("mine.toml"), []).tables().items() if k != "name"
    }


REFUSALS = {
    "unknown": (
        ["--drop", "braek"],
        ["mine.toml", "--drop", "'braek'", "allowed: brake, prop;", "did you mean 'brake'"],
    ),
    "none": (["--drop", ""], ["mine.toml", "--drop", "found ''", "allowed: brake, prop"]),
    "not given": ([], ["mine.toml", "--drop", "missing", "brake, prop"]),
    "off already": (["--drop", "brake,slack"], ["mine.toml", "--drop", "'slack'", "off already", "brake, prop"]),
    "off by --set": (
        ["--drop", "brake", "--set", "objective.brake=false"],
        ["mine.toml", "--drop", "'brake'", "off already", "allowed: prop"],
    ),
    "refused by the recipe": (
        ["--drop", "adn"],
        ["mine.toml", "--drop", "'adn'", "refuses (this network has no such key)", "allowed: brake, prop"],
    ),
    "of an objective that has none": (
        ["--drop", "brake", "--set", "objective={kind='ct'}"],
        ["mine.toml", "--drop", "'brake'", "allowed: none"],
    ),
    "a name that is too long": (["--drop", "brake", "--name", "x" * 56], ["--name", "x" * 56, "_no_brake", "64"]),
    "a name with a slash": (["--drop", "brake", "--name", "a/b"], ["--name", "'a/b'", "letters, digits"]),
    "a seed beyond all": (
        ["--drop", "brake", "--seeds", 2, "--set", f"seed={2**63 - 1}"],
        ["mine.toml", "seed", str(2**63)],
    ),
    "no seed": (["--drop", "brake", "--seeds", 0], ["--seeds", "1"]),
    "no job": (["--drop", "brake", "--jobs", 0], ["--jobs", "1"]),
    "a mistake in the recipe": (["--drop", "brake", "--set", "train.stepz=1"], ["mine.toml", "train.stepz", "'steps'"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_refused_before_anything_starts(mine, cmbench, case):
    arguments, mentions = REFUSALS[case]
    outcome = cmbench("ablate", "mine.toml", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("cmbench: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert [part for part in mentions if part not in outcome.err] == [], outcome.err
    assert not (mine / "runs").exists()


def test_the_longest_name_that_is_allowed(mine):
    names = [task.recipe.name for task in tasks(name="x" * (64 - len("_no_brake")))]
    assert max(map(len, names)) == 64


def test_switches_are_listed(mine, cmbench):
    listed = json.loads(cmbench("ablate", "mine.toml", "--list", "--json").out)["switches"]
    assert {each["name"]: each["standing"] for each in listed} == {
        "brake": "on",
        "prop": "on",
        "slack": "off",
        "adn": "this network has no such key",
    }
    assert listed[1]["overrides"] == ["objective.prop=false", "objective.huber_c=0.1"]
    rows = cmbench("ablate", "mine.toml", "--list").out.splitlines()
    assert [row.split()[0] for row in rows[:4]] == ["switch", "brake", "prop", "slack"]
    assert "objective.prop=false, objective.huber_c=0.1" in rows[2]
    none = cmbench("ablate", "tiny.toml", "--list")
    assert (none.code, none.out, none.err) == (0, "", "objective 'ct' has no switches\n")
    assert not (mine / "runs").exists()


def test_a_recipe_of_a_run_is_what_was_planned(mine):
    task = tasks("train.steps=2")[2]
    assert recipes.load(train(task).recipe).tables() == task.recipe.tables()
