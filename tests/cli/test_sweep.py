"""Sweeps: a run for every combination of values, taken up where they were left, compared with the best first."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_runs import read_rows
from test_ablate import MINE, OWN, interrupt_when
from test_processes import kill
from tiny import set_options
from waiting import until

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _combinations, _outcomes
from cmbench.cli._plan import Variant
from cmbench.engine import runner
from cmbench.errors import UsageError
from cmbench.rundir import annotations, status
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.segments import that_count
from cmbench.rundir.select import all_runs

COMMAND = [sys.executable, "-m", "cmbench"]
TWELVE = ["optimizer.lr=1e-2,3e-3", "seed=0,1,2", "ema.lengths=[0.9,0.5],[0.8,0.5]", "train.steps=30"]
SWEEP = ["sweep", "mine.toml", *set_options(TWELVE), "--jobs", "2"]
TAG = "mine_by_lr_seed_lengths"


@pytest.fixture
def mine(home: Path, put_back: None) -> Path:
    """A recipe whose runs wait in step 5 while there is a file `held`."""
    (home / "own_mine.py").write_text(OWN)
    (home / "mine.toml").write_text(MINE)
    return home


def states(home: Path) -> list[str]:
    return [status.read(run)["state"] for run in all_runs(home / "runs")]


def losses(run: RunDir) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in that_count(read_rows(run.metrics)) if "loss" in row]


@pytest.mark.long
def test_a_sweep_of_twelve_runs_that_is_killed_in_the_middle_is_taken_up(mine, cmbench, monkeypatch):
    sweep = subprocess.Popen([*COMMAND, *SWEEP], stdout=subprocess.DEVNULL)
    until(lambda: states(mine).count("finished") >= 3)
    (mine / "held").touch()
    until(lambda: [len(losses(run)) for run in all_runs(mine / "runs")].count(5) == 2)  # both are held
    sweep.kill()
    sweep.wait()
    for run in all_runs(mine / "runs"):
        if status.is_live(run):
            kill(run)
    until(lambda: "running" not in states(mine))
    assert states(mine).count("crashed") == 2
    assert 3 <= states(mine).count("finished") < 10
    (mine / "held").unlink()
    before = {run.name: run.metrics.read_bytes() for run in all_runs(mine / "runs")}
    broken = [run for run in all_runs(mine / "runs") if status.read(run)["state"] == "crashed"]

    done = cmbench(*SWEEP)
    assert (done.code, done.err) == (0, "")
    runs = all_runs(mine / "runs")
    assert states(mine) == ["finished"] * 12
    names = {recipes.load(run.recipe).name for run in runs}
    lengths = ("lengths-0p9-0p5", "lengths-0p8-0p5")
    assert names == {f"mine_lr{lr}_seed{seed}_{own}" for lr in ("1e-2", "3e-3") for seed in range(3) for own in lengths}
    for run in runs:
        assert [step for step, _ in losses(run)] == list(range(1, 31))
        assert annotations.read(run).tags == (TAG,)
        if run.name in before and run not in broken:
            assert run.metrics.read_bytes() == before[run.name]
    assert done.out.splitlines()[0] == f"{len(before) - 2} of 12 runs exist already"
    again, resumed = recipes.load(broken[0].recipe), losses(broken[0])
    (mine / "again.toml").write_text(recipes.dumps(again))
    alone = runner.create(consent.named(mine / "again.toml"), mine / "alone", [])
    list(alone.records())
    assert losses(alone.run) == resumed
    assert f"{broken[0].name}  seed {again.seed}  resumed" in done.out

    monkeypatch.setattr(sys, "executable", "/nonexistent")  # all is there: nothing may be started
    told = cmbench(*SWEEP, "--json")
    assert told.code == 0
    ready = f"compare: cmbench compare --filter tag:{TAG}\n"
    assert told.err == ready
    answer = json.loads(told.out)
    assert (answer["name"], answer["metric"]) == (TAG, "sw_1step")
    assert answer["keys"] == ["optimizer.lr", "seed", "ema.lengths"]
    rows = answer["combinations"]
    assert len(rows) == 4
    assert [row["quality"] for row in rows] == sorted(row["quality"] for row in rows)
    for row in rows:
        finals = []
        for own in row["runs"]:
            last = [r for r in read_rows(mine / "runs" / own["run"] / "metrics.jsonl") if "sw_1step" in r][-1]
            finals.append(last["sw_1step"])
        assert [own["seed"] for own in row["runs"]] == [0, 1, 2]
        assert row["quality"] == pytest.approx(np.mean(finals))
        assert row["quality_std"] == pytest.approx(np.std(finals, ddof=1))
    assert rows[0]["values"].keys() == {"optimizer.lr", "ema.lengths"}

    shown = cmbench(*SWEEP).out.splitlines()
    assert shown[0].split()[:4] == ["optimizer.lr", "ema.lengths", "seeds", "sw_1step"]
    assert [line.split()[1] for line in shown[1:5]] == [
        str(row["values"]["ema.lengths"]).replace(" ", "") for row in rows
    ]
    assert shown[-1] == ready.strip()
    compared = json.loads(cmbench(*ready.split()[2:], "--json").out)
    assert len(compared["runs"]) == 12
    assert not cmbench("compare", "--filter", "tag:mine_by_lr").out


@pytest.mark.long
def test_a_sweep_stopped_by_ctrl_c_says_how_to_go_on(mine, cmbench):
    command = ["sweep", "mine.toml", "--set", "seed=0,1,2", "--jobs", "2", "--name", "study"]
    (mine / "held").touch()
    both = interrupt_when(lambda: sum(bool(read_rows(run.metrics)) for run in all_runs(mine / "runs")) == 2)
    stopped = cmbench(*command)
    both.join()
    assert stopped.code == 75, stopped
    assert stopped.out.splitlines()[-1] == f"stopped, 3 of 3 runs left; go on: cmbench {' '.join(command)}"
    for run in all_runs(mine / "runs"):
        now = status.read(run)
        assert (now["state"], steps_of_checkpoints(run)[-1]) == ("stopped", now["step"])
    (mine / "held").unlink()
    assert cmbench(*command).code == 0
    assert sorted(recipes.load(run.recipe).name for run in all_runs(mine / "runs")) == [
        f"study_seed{i}" for i in range(3)
    ]


@pytest.mark.long
def test_a_tag_of_a_reader_stays(mine, cmbench):
    command = ["sweep", "mine.toml", *set_options(["seed=0,1", "train.steps=2"])]
    assert cmbench(*command).code == 0
    run = all_runs(mine / "runs")[0]
    annotations.annotate(run, note="good", tags=["best"])
    assert cmbench(*command).code == 0
    assert annotations.read(run) == annotations.Annotations("good", ("best", "mine_by_seed"))


@pytest.mark.long
def test_another_recipe_of_this_name_is_refused(mine, cmbench):
    command = ["sweep", "mine.toml", *set_options(["seed=0,1", "train.steps=2"])]
    cmbench(*command)
    refused = cmbench(*command[:-1], "train.steps=3")
    assert refused.code == 5
    assert "train.steps is 2 there and 3 here; choose another --name, or the same recipe" in refused.err
    assert refused.err.count("\n") == 1
    more = cmbench("sweep", "mine.toml", *set_options(["seed=0,1,2", "train.steps=2"]))
    assert "2 of 3 runs exist already" in more.out
    assert len(all_runs(mine / "runs")) == 3


def test_combinations_are_listed_and_nothing_is_trained(mine, cmbench):
    listed = cmbench("sweep", "mine.toml", *set_options(TWELVE), "--list")
    assert listed.code == 0
    lines = listed.out.splitlines()
    assert lines[0].split() == ["run", "optimizer.lr", "ema.lengths", "seed"]
    assert lines[1].split() == ["mine_lr1e-2_seed0_lengths-0p9-0p5", "1e-2", "[0.9,0.5]", "0"]
    assert lines[-1] == "12 runs"
    told = json.loads(cmbench("sweep", "mine.toml", *set_options(TWELVE), "--list", "--json").out)
    assert len(told["combinations"]) == 12
    first = {"name": "mine_lr1e-2_seed0_lengths-0p9-0p5", "seed": 0}
    assert told["combinations"][0] == {**first, "values": {"optimizer.lr": 0.01, "ema.lengths": [0.9, 0.5]}}
    assert not (mine / "runs").exists()


REFUSALS = {
    "nothing to sweep": (["seed=1"], ["--set: found no key with several values", "table.key=value,value"]),
    "an unknown key": (["optimizer.lrr=1,2"], ["mine.toml: optimizer.lrr: unknown key", "did you mean 'lr'"]),
    "an unknown table": (["optimiser.lr=1,2"], ["mine.toml: optimiser: unknown key", "did you mean 'optimizer'"]),
    "equal values": (["optimizer.lr=1e-3,0.001"], ["--set optimizer.lr: found 0.001 twice"]),
    "equal combinations": (
        ["objective.mu_0=0.0,0.5", "objective={mu_0=0.5},{mu_0=0.25}"],
        ["--set", "come to the same recipe"],
    ),
    "a value that is missing": (["seed=1,,2"], ["--set seed: found a comma without a value beside it"]),
    "a value out of range": (["optimizer.lr=1e-3,-1"], ["mine.toml: optimizer.lr: found -1", "greater than 0"]),
    "a key twice": (["seed=1,2", "seed=3"], ["--set seed: found more than once"]),
    "names": (["name=a,b"], ["--set name", "--name NAME"]),
    "seeds that are none": (["seed=a,b"], ["seed", "found 'a'", "integer"]),
    "too many": (
        [f"seed={','.join(map(str, range(101)))}", "train.steps=1,2,3,4,5,6,7,8,9,10"],
        ["found 1,010 combinations, allowed: up to 1,000"],
    ),
    "no key": (["=1,2"], ["--set", "table.key=value"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_refused_before_anything_starts(mine, cmbench, case):
    overrides, mentions = REFUSALS[case]
    outcome = cmbench("sweep", "mine.toml", *set_options(overrides))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("cmbench: ")
    assert outcome.err.count("\n") == 1, outcome.err
    assert [part for part in mentions if part not in outcome.err] == [], outcome.err
    assert not (mine / "runs").exists()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-4,3e-4", [1e-4, 3e-4]),
        ("[0.9,0.99]", None),
        ("[0.9],[0.99]", [[0.9], [0.99]]),
        ("[[1,2],[3]],[[4]]", [[[1, 2], [3]], [[4]]]),
        ("{a=1,b=2},{a=3}", [{"a": 1, "b": 2}, {"a": 3}]),
        ("ct, ict", ["ct", "ict"]),
        ("'a,b',c", ["a,b", "c"]),
        ('"a,b"', None),
        ("it's,two", ["it's", "two"]),
        ("true,false", [True, False]),
        ("1,true", [1, True]),
        ("['a,b'],['c']", [["a,b"], ["c"]]),
    ],
)
def test_commas_part_values_outside_of_brackets_and_quotes(text, values):
    several, fixed = _combinations.read([f"x.y={text}", "seed=1,2"])
    if values is None:
        assert fixed == [f"x.y={text}"]
        assert [swept.key for swept in several] == ["seed"]
    else:
        assert list(several[0].values) == values


def planned(*overrides: str, name: str = "") -> list[str]:
    found = _combinations.planned(Path("mine.toml"), overrides, name, Path("runs"))
    return [task.recipe.name for task in found.tasks]


def test_names_tell_what_differs(mine):
    assert planned("optimizer.lr=1e-4,0.00015,0.5", "train.steps=2") == ["mine_lr1e-4", "mine_lr1p5e-4", "mine_lr0p5"]
    assert planned("optimizer.decay=none,cosine") == ["mine_decay-none", "mine_decay-cosine"]
    assert planned("objective.brake=true,false", name="x") == ["x_brake-true", "x_brake-false"]
    both = planned("snapshot.every=1,2", "log.every=1,2")
    assert both[0] == "mine_snapshot_every1_log_every1"


def test_names_that_would_be_too_long_end_in_a_digest_that_stays(mine):
    long = "n" * 55
    few = planned("optimizer.lr=1e-4,3e-4", "seed=0,1", name=long)
    more = planned("optimizer.lr=1e-4,1e-3,3e-4", "seed=1,0", name=long)
    assert len(set(more)) == 6
    assert set(few) < set(more)
    assert all(len(name) == 64 for name in more)
    with pytest.raises(UsageError, match="at most 64 characters"):
        planned("seed=0,1", name="n" * 60)


def test_the_best_comes_first_whichever_way_is_better():
    rows = [
        (Variant(name), {"quality": quality}) for name, quality in [("a", 0.2), ("b", None), ("c", 0.7), ("d", 0.1)]
    ]
    order = {
        metric: [variant.name for variant, _ in _outcomes._best_first(rows, metric)]
        for metric in ("sw_1step", "coverage_1step")
    }
    assert order == {"sw_1step": ["d", "a", "c", "b"], "coverage_1step": ["c", "a", "d", "b"]}


def test_each_run_is_what_was_planned(mine):
    found = _combinations.planned(Path("mine.toml"), ["seed=0,1", "train.steps=2"], "", Path("runs"))
    task = found.tasks[1]
    made = runner.create(consent.named(Path("mine.toml"), task.overrides), Path("runs"), [])
    list(made.records())
    assert recipes.load(made.run.recipe).tables() == task.recipe.tables()
    assert read_json(made.run.meta)["seed"] == 1


@pytest.mark.long
def test_a_sweep_that_is_terminated_stops_its_runs(mine):
    (mine / "held").touch()
    sweep = subprocess.Popen([*COMMAND, *SWEEP], stdout=subprocess.PIPE, text=True)
    until(lambda: [len(losses(run)) for run in all_runs(mine / "runs")].count(5) == 2)
    os.kill(sweep.pid, signal.SIGTERM)
    out, _ = sweep.communicate()
    assert sweep.returncode == 75
    assert "stopped, 12 of 12 runs left; go on: cmbench sweep mine.toml" in out
    assert states(mine) == ["stopped"] * 2
