"""`cmbench compare`: which runs, in which form, and as a gate."""

import csv
import io
import json
import math

import numpy as np
import pytest
from compared_runs import EDGES, compared_run, losses, write_rows
from live_runs import live_run
from scipy.integrate import trapezoid

from cmbench.cli import _dashboard
from cmbench.rundir import annotations

HOSTILE = "<script>alert(1)</script> [bold]x[/] \x1b[31mred\x1b[0m =1+1 $\\frac{$ \u202eevil"


@pytest.fixture
def runs(home):
    """Three runs: b is another seed of a; c learns faster for some time, and logs at other steps."""
    folder = home / "runs"
    bins = {step: {"loss": [4.0, 3.0, 2.0, 1.0], "count": [1, 2, 3, 4]} for step in (10, 20, 30, 40)}
    return [
        compared_run(folder, "a-run", {"loss": losses(40, 1), "sw_1step": np.linspace(1, 0.5, 40)}, profiles=bins),
        compared_run(
            folder,
            "b-run",
            {"loss": losses(40, 2), "sw_1step": np.linspace(1, 0.6, 40)},
            recipe={"seed = 3": "seed = 4"},
            meta={"host": "there"},
        ),
        compared_run(
            folder,
            "c-run",
            {"loss": np.array(losses(30, 3)) - 3, "sw_1step": [*np.linspace(1, 0.4, 29), math.nan]},
            steps=range(2, 61, 2),
            recipe={"lr = 1e-2": "lr = 3e-2"},
            tags=["fast"],
        ),
    ]


def test_everything_as_json(cmbench, runs):
    outcome = cmbench("compare", "a-run", "b-run", "c-run", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    assert [run["name"] for run in found["runs"]] == ["a-run", "b-run", "c-run"]
    assert found["recipe"] == {"seed": {"a": 3, "b": 4, "c": 3}, "optimizer.lr": {"a": 0.01, "b": 0.01, "c": 0.03}}
    assert found["environment"] == {"host": {"a": "here", "b": "there", "c": "here"}}
    loss = found["metrics"]["loss"]
    assert (loss["start"], loss["ends"]) == (2, {"step": 40, "images": 320, "seconds": 30, "forwards": None})
    a, c = np.array(losses(40, 1)), np.array(losses(30, 3)) - 3
    assert loss["runs"]["a"]["area"] == pytest.approx(trapezoid(a[1:], np.arange(2, 41)))
    assert loss["runs"]["c"]["area"] == pytest.approx(trapezoid(c[:20], np.arange(2, 41, 2)))
    assert loss["runs"]["a"]["at_seconds"] == pytest.approx(a[29])
    assert loss["runs"]["c"]["at_step"] == pytest.approx(c[19])
    assert loss["runs"]["c"]["at_seconds"] == pytest.approx(c[29])
    assert loss["runs"]["a"]["best"] is None
    quality = found["metrics"]["sw_1step"]["runs"]
    assert (quality["a"]["best"], quality["a"]["step_of_best"]) == (0.5, 40)
    assert (quality["c"]["last"], quality["c"]["nonfinite"]) == (None, {"last": "nan"})
    (goal,) = found["goals"]
    assert (goal["metric"], goal["level"]) == ("sw_1step", 0.6)
    assert goal["runs"]["a"]["step"] == 1 + next(i for i, x in enumerate(np.linspace(1, 0.5, 40)) if x <= 0.6)
    assert found["apart"]["b"]["metrics"].get("loss") is None
    assert found["apart"]["c"]["earliest"] == "loss"
    assert found["apart"]["c"]["metrics"]["loss"]["step"] <= 4
    assert found["profiles"]["loss"]["a"] == {"step": 40, "bins": [4.0, 3.0, 2.0, 1.0]}
    assert found["profile_edges"]["a"] == EDGES
    (group,) = found["groups"]
    assert (group["runs"], group["seeds"]) == (["a", "b"], [3, 4])
    assert group["values"]["sw_1step"]["mean"] == pytest.approx(0.55)


def test_csv_tells_the_same(cmbench, runs):
    found = json.loads(cmbench("compare", "*-run", "--json").out)
    rows = list(csv.DictReader(io.StringIO(cmbench("compare", "*-run", "--csv=-").out)))
    table = {(row["section"], row["name"], row["figure"], row["letter"]): row["value"] for row in rows}
    for letter, figures in found["metrics"]["loss"]["runs"].items():
        assert float(table["metric", "loss", "last", letter]) == figures["last"]
        assert float(table["metric", "loss", "area", letter]) == figures["area"]
    assert table["metric", "sw_1step", "last", "c"] == "nan"
    assert table["recipe", "optimizer.lr", "", "c"] == "0.03"
    assert table["until", "sw_1step <= 0.6", "step", "a"] == str(found["goals"][0]["runs"]["a"]["step"])
    assert len(table) == len(rows)


def test_tables(cmbench, runs):
    outcome = cmbench("compare", "a-run", "c-run", "--plain")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert [line.split() for line in lines if line.startswith("optimizer.lr")] == [["optimizer.lr", "0.01", "0.03"]]
    assert not any(line.startswith("seed") for line in lines)
    assert "the environments are equal" in lines
    assert "loss" in lines
    assert "until sw_1step <= 0.5" in lines
    assert "profile of loss over time" in lines
    assert cmbench("compare", "a-run", "c-run").out == outcome.out  # here is no terminal
    assert cmbench("compare", "a-run", "c-run", "--plain", "--ascii").out.isascii()


def test_in_a_terminal_the_screen(cmbench, runs, home, monkeypatch):
    shown = []
    monkeypatch.setattr(_dashboard, "can_be_shown", lambda: True)
    monkeypatch.setattr(_dashboard, "show", lambda *args: shown.append(args))
    assert cmbench("compare", "a-run", "c-run") == (0, "", "")
    (arguments,) = shown
    assert (arguments[0], [run.name for run in arguments[1]], arguments[2]) == (
        home / "runs",
        ["a-run", "c-run"],
        False,
    )
    assert "the environments are equal" in cmbench("compare", "a-run", "c-run", "--plain").out
    assert len(shown) == 1


def test_which_runs(cmbench, runs, home):
    def named(*args):
        return [run["name"] for run in json.loads(cmbench("compare", *args, "--json").out)["runs"]]

    (home / "runs" / "latest").symlink_to("b-run")
    assert named("c-run", "a") == ["c-run", "a-run"]
    assert named("[ab]-*", "runs/c-run", "runs/latest") == ["a-run", "b-run", "c-run"]
    assert named("runs/*-run", "a-run") == ["a-run", "b-run", "c-run"]
    assert named("--filter", "tag:fast") == ["c-run"]
    assert named("*", "--filter", "state:fin sw<.1") == ["a-run", "b-run", "c-run"]
    assert named("a-run", "c-run", "--filter", "tag:fast") == ["c-run"]


def test_levels_that_are_asked_for(cmbench, runs):
    outcome = cmbench("compare", "a-run", "c-run", "--json", "--reach", "sw1=0.8", "--reach", "loss=-2")
    goals = json.loads(outcome.out)["goals"]
    assert [(goal["metric"], goal["level"]) for goal in goals] == [("sw_1step", 0.8), ("loss", -2)]
    assert goals[1]["runs"]["a"] is None
    assert goals[1]["runs"]["b"]["step"] >= 2


@pytest.mark.parametrize(
    ("wanted", "metrics", "profiles"),
    [
        (["loss"], ["loss"], ["loss"]),
        (["sw1"], ["sw_1step"], []),
        (["sw_*"], ["sw_1step"], []),
        (["s*", "l?ss"], ["sw_1step", "loss"], ["loss"]),
        (["*"], ["sw_1step", "loss"], ["loss"]),
    ],
)
def test_metrics_that_are_asked_for(cmbench, runs, wanted, metrics, profiles):
    options = [part for name in wanted for part in ("--metric", name)]
    found, whole = (json.loads(cmbench("compare", "*-run", "--json", *more).out) for more in (options, []))
    assert list(found["metrics"]) == metrics
    assert found["metrics"] == {name: whole["metrics"][name] for name in metrics}
    assert list(found["profiles"]) == profiles
    assert [goal["metric"] for goal in found["goals"]] == [name for name in metrics if name == "sw_1step"]
    assert set(found["apart"]["c"]["metrics"]) == set(whole["apart"]["c"]["metrics"]) & set(metrics)
    assert list(found["groups"][0]["values"]) == metrics
    assert found["recipe"] == whole["recipe"]
    rows = list(csv.DictReader(io.StringIO(cmbench("compare", "*-run", "--csv=-", *options).out)))
    assert {row["name"] for row in rows if row["section"] in ("metric", "apart", "seeds")} == set(metrics)
    assert {row["name"] for row in rows if row["section"] == "profile"} == set(profiles)
    lines = cmbench("compare", "*-run", *options).out.splitlines()
    assert [name for name in ("sw_1step", "loss") if name in lines] == metrics


def test_a_gate_and_a_level_may_ask_for_other_metrics(cmbench, runs):
    options = ("--metric", "loss", "--reach", "sw1=0.8", "--fail-if", "sw1 > 1.05 * a.sw1")
    outcome = cmbench("compare", "a-run", "b-run", "--json", *options)
    assert (outcome.code, outcome.err.count("holds of b")) == (1, 1)
    found = json.loads(outcome.out)
    assert (list(found["metrics"]), [goal["metric"] for goal in found["goals"]]) == (["loss"], ["sw_1step"])


def test_a_gate(cmbench, runs):
    outcome = cmbench("compare", "a-run", "b-run", "--fail-if", "sw1 > 1.05 * a.sw1")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "sw1 > 1.05 * a.sw1: holds of b (b-run): b.sw1 = 0.6, a.sw1 = 0.5\n"
    assert cmbench("compare", "a-run", "b-run", "--fail-if", "sw1 > 1.25 * a.sw1") == (0, "", "")
    outcome = cmbench("compare", "a-run", "c-run", "--fail-if", "sw1 > 9", "--json")
    assert outcome.code == 1  # its last value is not finite
    assert json.loads(outcome.out)["schema"] == 1
    assert cmbench("compare", "a-run", "--fail-if", "sw1 > 0.4").code == 1


def test_a_run_that_was_steered_is_no_other_seed_and_says_how(cmbench, home):
    """Three seeds, of which one was given another learning rate, and the same rate again."""
    folder = home / "runs"
    for i, name in enumerate("abc"):
        run = compared_run(folder, name, {"loss": losses(20, i)}, recipe={"seed = 3": f"seed = {i}"})
    rows = [(1, 0.01), (6, 0.002), (9, 0.002), (12, 0.001)]
    made = {"segment": 1, "kind": "request", "action": "set", "result": "done"}
    write_rows(
        run.events,
        [{**made, "id": f"{step}", "step": step, "settings": {"optimizer.lr": lr}} for step, lr in rows],
    )
    found = json.loads(cmbench("compare", "a", "b", "c", "--json").out)
    course = "0.01, 0.002 from step 7, 0.001 from step 13"
    assert found["recipe"]["optimizer.lr"] == {"a": 0.01, "b": 0.01, "c": course}
    assert [group["runs"] for group in found["groups"]] == [["a", "b"]]


def test_a_recipe_that_cannot_be_read_is_not_called_equal(cmbench, runs):
    runs[1].recipe.write_text("seed = 'no'")
    lines = cmbench("compare", "a-run", "b-run", "--plain").out.splitlines()
    assert "not known: no recipe of b can be read" in lines
    assert "the recipes are equal" not in lines
    assert [run["has_recipe"] for run in json.loads(cmbench("compare", "a-run", "b-run", "--json").out)["runs"]] == [
        True,
        False,
    ]


def test_runs_are_compared_at_equal_compute(cmbench, home):
    """b costs twice as much a step: where both have cost 40 forward passes, it stands at step 5."""
    for name, cost in (("a", 4.0), ("b", 8.0)):
        steps = np.arange(1, 11)
        compared_run(home / "runs", name, {"sw_1step": 1 / steps, "forwards": cost * steps})
    found = json.loads(cmbench("compare", "a", "b", "--json").out)
    quality = found["metrics"]["sw_1step"]
    assert quality["ends"]["forwards"] == 40
    assert [quality["runs"][letter]["at_forwards"] for letter in "ab"] == pytest.approx([1 / 10, 1 / 5])
    (goal,) = found["goals"]
    assert [goal["runs"][letter]["forwards"] for letter in "ab"] == [40, 80]
    assert "at 40 forwards" in cmbench("compare", "a", "b", "--plain").out


def test_levels_of_what_is_better_higher_say_so(cmbench, home):
    for name in "ab":
        compared_run(home / "runs", name, {"precision_1step": [0.1, 0.5, 0.7]})
    assert "until precision_1step >= 0.7" in cmbench("compare", "a", "b", "--plain").out.splitlines()
    assert "precision_1step >= 0.7" in cmbench("compare", "a", "b", "--csv=-").out


def test_whether_there_are_rows_enough_to_tell_runs_apart(cmbench, home):
    """Measures are not judged by their rows: two seeds differ smoothly in them."""
    for n in (5, 40):
        for i, name in enumerate("ab"):
            compared_run(home / f"runs{n}", name, {"loss": losses(n, i), "sw_1step": np.full(n, i + 1.0)})
        arguments = ("compare", "a", "b", "--runs-dir", f"runs{n}")
        lines = cmbench(*arguments, "--plain").out.splitlines()
        assert ("too few rows" in lines[lines.index("apart from a beyond the noise of their rows") + 2]) is (n == 5)
        assert json.loads(cmbench(*arguments, "--json").out)["apart"]["b"] == {
            "earliest": None,
            "judged": [] if n == 5 else ["loss"],
            "metrics": {},
            "profiles_judged": [],
            "band": None,
        }


def test_of_quality_alone_no_rows_are_missed(cmbench, home):
    """With --metric sw1 there is nothing to judge by rows, however many there are."""
    rows = {step: {"loss": [1.0, 2.0, 3.0, 4.0]} for step in range(1, 13)}
    for i, name in enumerate("ab"):
        compared_run(home / "runs", name, {"loss": losses(seed=i), "sw_1step": losses(seed=i)}, profiles=rows)
    for metric, why in (("sw1", "quality is not judged here"), ("lo*", "none")):
        out = cmbench("compare", "a", "b", "--plain", "--metric", metric).out
        lines = out.splitlines()
        assert why in lines[lines.index("apart from a beyond the noise of their rows") + 2]
        assert "too few rows" not in out


def test_why_no_times_are_named(cmbench, home):
    """Other bins and too few rows are not taken for no difference."""
    rows = {step: {"loss": [1.0, 2.0, 3.0, 4.0]} for step in range(1, 13)}
    compared_run(home / "runs", "a", {"loss": losses()}, profiles=rows)
    compared_run(home / "runs", "b", {"loss": losses()}, profiles=rows)
    compared_run(home / "runs", "c", {"loss": losses()}, profiles={1: rows[1]})
    compared_run(home / "runs", "d", {"loss": losses()}, profiles=rows, meta={"profile_edges": [1.0, 2, 3, 4, 5]})
    outcome = json.loads(cmbench("compare", "a", "b", "c", "d", "--json").out)
    assert [outcome["apart"][letter]["profiles_judged"] for letter in "bcd"] == [["loss"], [], []]
    lines = cmbench("compare", "a", "b", "c", "d", "--plain").out.splitlines()
    below = lines[lines.index("apart from a beyond the noise of their rows") + 2 :][:3]
    assert [why in line for why, line in zip(("none ", "too few rows", "time bins"), below, strict=True)] == [True] * 3


def test_seeds_are_compared_after_as_many_steps(cmbench, home):
    """One seed stopped early: its last value is no draw of what the others came to."""
    compared_run(home / "runs", "a", {"loss": [4.0, 3.0, 2.0, 1.0]})
    compared_run(home / "runs", "b", {"loss": [5.0, 4.0]}, recipe={"seed = 3": "seed = 4"})
    found = json.loads(cmbench("compare", "a", "b", "--json").out)
    assert found["metrics"]["loss"]["ends_together"] is False
    assert found["groups"][0]["values"]["loss"]["mean"] == pytest.approx(3.5)
    assert "loss at step 2" in cmbench("compare", "a", "b", "--plain").out


def test_snapshots_of_equal_latents_stand_together(cmbench, runs):
    for run, steps in zip(runs, ((10, 20, 40), (10, 20), (20, 30)), strict=True):
        run.snapshots.mkdir()
        for step in steps:
            (run.snapshots / f"{step:08d}_1step.png").touch()
    (runs[2].snapshots / "00000030_2step.png").touch()
    rows = json.loads(cmbench("compare", "*-run", "--json").out)["snapshots"]
    steps = [(row["sampler_steps"], {k: p["step"] for k, p in row["runs"].items()}) for row in rows]
    assert steps == [(1, {"a": 20, "c": 30}), (1, {"b": 20}), (2, {"c": 30})]  # b has another seed; a has no 30
    assert rows[0]["runs"]["a"]["path"] == str(runs[0].snapshots / "00000020_1step.png")


def test_one_run(cmbench, runs):
    found = json.loads(cmbench("compare", "a-run", "--json").out)
    assert (found["recipe"], found["apart"], found["groups"]) == ({}, {}, [])
    assert found["metrics"]["sw_1step"]["runs"]["a"]["last"] == 0.5
    assert "recipe keys" not in cmbench("compare", "a-run", "--plain").out


def test_runs_without_metrics_recipe_or_sense(cmbench, home):
    folder = home / "runs"
    first = compared_run(folder, "empty", {})
    compared_run(folder, "full", {"loss": losses(20)})
    broken = compared_run(folder, "broken", {"loss": [math.nan] * 20, "sw_1step": [math.inf] * 20})
    broken.recipe.write_text("seed = 'no'")
    for file in (broken.meta, broken.status, broken.events, broken.profiles, broken.annotations):
        file.write_bytes(b'{"step": [null], "loss": ["x"], "profile_edges": [1, "two"]}\n')
    first.metrics.unlink()
    for form in ("--plain", "--json", "--csv=-"):
        outcome = cmbench("compare", "empty", "full", "broken", form)
        assert (outcome.code, outcome.err) == (0, ""), form
    found = json.loads(cmbench("compare", "empty", "full", "broken", "--json").out)
    assert found["recipe"] == {}
    assert sorted(found["metrics"]["loss"]["runs"]) == ["b", "c"]
    assert found["metrics"]["loss"]["runs"]["c"]["nonfinite"] == {"last": "nan"}


def test_huge_values_are_no_cause_of_warnings(cmbench, home):
    for letter in "ab":
        compared_run(home / "runs", f"{letter}-run", {"loss": [1.7e308, -1.7e308] * 20})
    for form in ("--plain", "--json", "--csv=-"):
        outcome = cmbench("compare", "*", form)
        assert (outcome.code, outcome.err) == (0, "")


def test_names_and_notes_are_shown_and_not_obeyed(cmbench, home):
    folder = home / "runs"
    for letter in "ab":
        run = compared_run(folder, f"{letter}{HOSTILE.replace('/', '|')}", {HOSTILE: [1.0, 2.0], "loss": losses(2)})
        annotations.annotate(run, HOSTILE, ["=cmd|' /C calc'!A0", "<b>"])
    for form in ("--plain", "--csv=-"):
        out = cmbench("compare", "*", form).out
        assert "\x1b" not in out
        assert "\u202e" not in out
    outcome = cmbench("compare", "*", "--fail-if", "loss > 0")
    assert (outcome.code, outcome.err.count("\n"), "\x1b" in outcome.err) == (1, 1, False)
    error = cmbench("compare", "*", "--fail-if", "los > 0").err
    assert "'loss'?" in error
    assert "\x1b" not in error
    cells = [cell for row in csv.reader(io.StringIO(cmbench("compare", "*", "--csv=-").out)) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "@"))] == []
    assert "'=cmd|' /C calc'!A0 <b>" in "\n".join(cells).replace("-", " ")
    assert HOSTILE in json.loads(cmbench("compare", "*", "--json").out)["metrics"]


def test_forty_runs(cmbench, home):
    for i in range(40):
        recipe = {"seed = 3": f"seed = {i // 2}", "lr = 1e-2": f"lr = {1 + i % 2}.0"}
        compared_run(
            home / "runs", f"run{i:02}", {"loss": losses(20, i), "sw_1step": losses(20, -i - 1 & 0xFF)}, recipe=recipe
        )
    outcome = cmbench("compare", "run*", "--plain")
    assert (outcome.code, outcome.err) == (0, "")
    assert "n1" in outcome.out.split()
    keys = [line.split() for line in outcome.out.splitlines() if line.startswith(("optimizer.lr", "seed"))]
    assert [(key, value, runs[:2]) for key, value, *runs in keys] == [
        ("optimizer.lr", "1", ["a", "c"]),
        ("optimizer.lr", "2", ["b", "d"]),
    ]
    assert len(json.loads(cmbench("compare", "run*", "--json").out)["groups"]) == 2


MISTAKES = {
    "no runs": ([], 2, ["compare", "RUN", "--filter"]),
    "unknown run": (["nobody"], 4, ["nobody", "no such run"]),
    "pattern of no run": (["nobod*"], 4, ["nobod*", "no such run"]),
    "filter of no run": (["--filter", "tag:none"], 4, ["tag:none", "no such run"]),
    "filter that is none": (["--filter", "colour:red"], 2, ["--filter", "colour:red", "state:WORD"]),
    "two forms": (["a-run", "--json", "--csv=-"], 2, ["--json", "--csv", "one of them"]),
    "level without a metric": (["a-run", "--reach", "sw9=1"], 2, ["--reach 'sw9=1'", "'sw9'", "'sw_1step'?"]),
    "level that is no number": (["a-run", "--reach", "sw1=low"], 2, ["--reach", "'low'", "sw1=0.06"]),
    "level without a number": (["a-run", "--reach", "sw1"], 2, ["--reach", "METRIC=LEVEL"]),
    "unknown metric": (["a-run", "--metric", "los"], 2, ["--metric", "'los'", "allowed: sw_1step, loss", "'loss'?"]),
    "pattern of no metric": (["a-run", "--metric", "loss", "--metric", "x*"], 2, ["--metric", "'x*'", "allowed"]),
    "gate of an unknown metric": (["a-run", "--fail-if", "los > 1"], 2, ["--fail-if", "'los'", "'loss'?"]),
    "gate of an unknown run": (["a-run", "--fail-if", "loss > b.loss"], 2, ["--fail-if", "'b'", "allowed: a"]),
    "gate that is code": (["a-run", "--fail-if", "open('x')"], 2, ["--fail-if", "open('x')", "allowed"]),
    "gate and files": (["a-run", "--html", "x.html", "--fail-if", "los > 1"], 2, ["--fail-if"]),
    "gate that is empty": (["a-run", "b-run", "--fail-if", ""], 2, ["--fail-if", "allowed"]),
    "gate of a run against itself": (["a-run", "a-run", "--fail-if", "sw1 > a.sw1"], 2, ["only runs", "a.sw1", "two"]),
    "level that is not finite": (["a-run", "--reach", "sw1=nan"], 2, ["--reach", "'nan'", "sw1=0.06"]),
    "page that is a folder": (["a-run", "--html", "."], 2, [".: cannot be written: Is a directory"]),
    "page in no folder": (["a-run", "--html", "nowhere/x.html"], 2, ["nowhere/x.html"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line_and_write_nothing(cmbench, runs, home, case):
    arguments, code, mentions = MISTAKES[case]
    if "--html" in arguments:
        pytest.importorskip("matplotlib")
    before = sorted(home.rglob("*"))
    outcome = cmbench("compare", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith("cmbench: ")
    assert outcome.err.count("\n") == 1
    assert [part for part in mentions if part not in outcome.err] == [], outcome.err
    assert sorted(home.rglob("*")) == before


def test_csv_goes_into_a_file_or_is_printed(cmbench, home):
    for name in ("a-run", "b-run"):
        live_run(home / "runs", name)
    printed = cmbench("compare", "a-run", "b-run", "--csv", "-").out
    written = cmbench("compare", "a-run", "b-run", "--csv", "table.csv")
    assert (written.code, written.out) == (0, "")
    assert (home / "table.csv").read_text() == printed
    refused = cmbench("compare", "--csv", "a-run", "b-run")
    assert refused.code == 2
    assert refused.err == "cmbench: --csv: found 'a-run', allowed: a file whose name ends in .csv, or - to print it\n"
