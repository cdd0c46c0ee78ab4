"""`cmbench bench`: what is printed, what programs read, and that nothing stays."""

import json
import tempfile

import pytest
from torchrun import cmbench_on

FEW = ("bench", "tiny.toml", "--rounds", "2")


@pytest.fixture(autouse=True)
def temporary(home, monkeypatch):
    """A folder for what is temporary, in which nothing may stay."""
    folder = home.with_name(f"{home.name}-tmp")
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []
    assert [path.name for path in home.iterdir()] == ["tiny.toml"]


def test_figures_fit_together(cmbench):
    outcome = cmbench(*FEW, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    answer = json.loads(outcome.out)
    assert (answer["schema"], answer["rounds"], answer["ranks"], answer["ratio"]) == (1, 2, 1, None)
    (own,) = answer["recipes"]
    assert own["images_per_s"] == pytest.approx(8 * own["steps_per_s"])
    assert own["share_of_product"] == pytest.approx(own["flop"] * own["steps_per_s"] / own["product"])
    assert own["passes"] == pytest.approx(4 / 3)
    assert own["middle"][0] <= own["seconds"] <= own["middle"][1]
    assert (own["alone"], own["efficiency"], own["differs"]) == (None, None, [])
    names = [phase["name"] for phase in own["phases"]]
    assert names == [
        *("data", "student", "target", "loss", "backward", "optimiser", "averages", "diagnostics", "recording")
    ]
    assert all(phase["seconds"] > 0 for phase in own["phases"])
    assert own["peak"] == own["kept"] + max(phase["bytes"] or 0 for phase in own["phases"])


def test_two_recipes_in_words(cmbench):
    more = ("--set", "train.batch_size=16", "--device", "cpu", "--compare-with", "tiny.toml")
    lines = cmbench(*FEW, *more).out.splitlines()
    assert lines[0].startswith("tiny, train.batch_size=16, train.device=cpu: cpu, float32, ")
    assert any(line.startswith("tiny, train.device=cpu: cpu, float32, ") for line in lines)
    assert sum(line.split()[:1] == ["backward"] for line in lines) == 2
    assert lines[-1].startswith("the first to the second: ")


def test_a_machine_with_other_work_is_said(cmbench, monkeypatch):
    clocks = iter([(0.0, 0.0), (3.0, 10.0), (10.0, 20.0), (20.5, 30.0)])
    monkeypatch.setattr("cmbench.engine.bench.measure._clocks", lambda: next(clocks))
    assert "this process ran 30% of the time" in cmbench(*FEW).out
    assert "of the time" not in cmbench(*FEW).out


def test_mistakes_are_one_line(cmbench):
    for arguments, code, says in [
        (("bench", "tinny.toml"), 2, "no such recipe"),
        ((*FEW, "--compare-with", "tinny.toml"), 2, "no such recipe"),
        ((*FEW, "--set", "network.widht=1"), 2, "network.widht"),
        ((*FEW, "--device", "gpu"), 2, "--device: found 'gpu'"),
        (("bench", "tiny.toml", "--rounds", "0"), 2, "--rounds"),
        ((*FEW, "--gpus", "x"), 2, "--gpus: found 'x'"),
        ((*FEW, "--set", "optimizer.lr=1e30"), 1, "the training step fails"),
    ]:
        outcome = cmbench(*arguments)
        assert (outcome.code, outcome.out) == (code, ""), outcome
        assert outcome.err.count("\n") == 1
        assert says in outcome.err


@pytest.mark.long
def test_two_ranks_beside_one(home):
    ended = cmbench_on(2, *FEW, "--compare-with", "tiny.toml", "--set", "train.micro_batch_size=2", "--json")
    assert ended.returncode == 0, ended.stderr[-2000:]
    answer = json.loads(ended.stdout)
    assert answer["ranks"] == 2
    for own in answer["recipes"]:
        assert own["efficiency"] == pytest.approx(own["images_per_s"] / own["alone"] / 2)
    alone, joined = (own["flop"] for own in answer["recipes"])
    assert alone == joined


@pytest.mark.long
def test_a_recipe_that_no_rank_can_build_is_one_line(home):
    ended = cmbench_on(2, *FEW, "--set", "train.batch_size=1")
    lines = [line for line in ended.stderr.splitlines() if line.startswith("cmbench: ")]
    assert len(lines) == 1, ended.stderr[-3000:]
    assert "train.batch_size" in lines[0]
    assert ended.stdout == ""
