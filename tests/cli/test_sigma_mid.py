"""`cmbench sigma-mid`, and the charts of `cmbench eval`."""

import json

import pytest

from cmbench.cli import _eval_charts
from cmbench.cli._figures import Subject
from cmbench.rundir import evaluations

FEW = ["--n", "32", "--repeats", "2", "--points", "4"]


def test_the_best_level_is_beside_the_recipes_and_kept(cmbench, trained, monkeypatch):
    first = cmbench("sigma-mid", *FEW, "--json")
    assert first.code == 0, first.err
    told = json.loads(first.out)
    values = {level["sigma"]: level["value"] for level in told["levels"]}
    assert told["better"] == "lower"
    assert values[told["best"]] == min(values.values())
    assert told["recipe"] in values
    assert told["difference"] == pytest.approx(values[told["best"]] - values[told["recipe"]])
    with monkeypatch.context() as patch:  # nothing is computed again
        patch.setattr("cmbench.engine.evaluate.Evaluation.at_levels", None)
        assert cmbench("sigma-mid", *FEW, "--json").out == first.out
    shown = cmbench("sigma-mid", *FEW, "--chart").out
    assert f"of {len(values)} levels from " in shown
    assert "over second noise level" in shown
    if told["best"] != told["recipe"]:
        best = f"{told['best']:g}"
        assert f"path.sigma_mid = {best}; this one: cmbench sample {trained.name} --sigmas 80,{best}" in shown
        assert cmbench("sample", trained.name, "--sigmas", f"80,{best}", "-n", "4").code == 0


def test_the_command_to_sample_names_the_weights_that_were_searched(cmbench, trained):
    for given, named in ((["--ema", "none"], " --ema none"), (["--checkpoint", "10"], " --checkpoint 10")):
        told = json.loads(cmbench("sigma-mid", *FEW, *given, "--json").out)
        assert told["best"] != told["recipe"]
        shown = cmbench("sigma-mid", *FEW, *given).out
        assert f"cmbench sample {trained.name}{named} --sigmas 80,{told['best']:g}" in shown


def test_higher_is_better_where_it_is(cmbench, trained):
    told = json.loads(cmbench("sigma-mid", *FEW, "--measure", "coverage", "--json").out)
    values = {level["sigma"]: level["value"] for level in told["levels"]}
    assert values[told["best"]] == max(values.values())


def test_a_recipes_level_is_one_of_those_that_are_looked_at(cmbench, trained):
    recipe = trained.recipe.read_text()
    trained.recipe.write_text(recipe.replace("sigma_mid = 0.0", "sigma_mid = 0.345"))
    told = json.loads(cmbench("sigma-mid", *FEW, "--json").out)
    assert told["recipe"] == 0.345
    assert 0.345 in [level["sigma"] for level in told["levels"]]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--measure", "nearest_neighbour"], "--measure: found 'nearest_neighbour', allowed: sliced_wasserstein,"),
        (["--measure", "slicedwasserstein"], "did you mean 'sliced_wasserstein'?"),
        (["--measure", "recall", "--n", "2"], "recall: "),
        (["--points", "2"], "--points"),
        (["--features", "no.safetensors"], "--features: no.safetensors cannot be read"),
        (["--ema", "0.7"], "--ema: found '0.7', allowed: 0.9, 0.5, none"),
        (["--set", "data.name=grid"], "--set: found data.name, allowed: data.root"),
    ],
)
def test_bad_input_is_one_line(cmbench, trained, given, says):
    outcome = cmbench("sigma-mid", *given)
    assert outcome.code == 2
    assert says in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_sampler_without_such_a_level_says_so(cmbench, teacher):
    outcome = cmbench("sigma-mid")
    assert outcome.code == 2
    assert "objective 'denoise' is not sampled with a second noise level" in outcome.err


ONE = ["--measures", "sliced_wasserstein", "--n", "16", "--repeats", "2"]


def test_figures_over_steps_are_drawn_and_written(cmbench, home, trained):
    outcome = cmbench("eval", *ONE, "--steps", "1,2,4,32", "--chart", "--png", "steps.png")
    assert outcome.code == 0, outcome.err
    assert "sliced_wasserstein (lower is better) over sampler steps" in outcome.out
    assert outcome.out.splitlines()[-1].split() == ["1", "2", "4", "32"]
    assert (home / "steps.png").read_bytes().startswith(b"\x89PNG")


def test_one_figure_is_no_chart(cmbench, home, trained):
    outcome = cmbench("eval", "--measures", "sliced_wasserstein", "--n", "10000000", "--steps", "1", "--chart")
    assert outcome.code == 2
    assert "found one figure of each measure, allowed: several --steps or averages" in outcome.err
    assert cmbench("eval", *ONE, "--steps", "1,2", "--png", "no/steps.png").code == 2


def subject(run, ema):
    return Subject(run, 12, ema, "", [1], 16, 8)


def figure(value, steps=1):
    about = {"metric": "sliced_wasserstein", "steps": steps, "better": "lower", "floor": 0.1, "floor_spread": 0.01}
    return [{**about, "value": value, "spread": 0.0}]


@pytest.mark.parametrize(
    ("profile", "lengths", "x"),
    [("power", ["0.2", "0.05"], [0.05, 0.2]), ("constant", ["0.9", "0.99"], [10, 100])],
)
def test_figures_over_lengths_stand_in_order(trained, profile, lengths, x):
    text = trained.recipe.read_text()
    trained.recipe.write_text(
        text.replace('profile = "constant"', f'profile = "{profile}"').replace(
            "    0.9,\n    0.5,", "    0.2,\n    0.1,"
        )
    )
    subjects = [subject(trained, length) for length in [*lengths, "none"]]
    (chart,) = _eval_charts.found(subjects, [figure(1.0), figure(2.0), figure(3.0)])
    (curve,) = chart.curves
    assert curve.x == pytest.approx(x)
    assert curve.y == [dict(zip(lengths, [1.0, 2.0], strict=True))[name] for name in curve.names]
    assert chart.floor == (0.1, 0.01)
    assert chart.log_y


@pytest.mark.parametrize(("values", "is_seen"), [((0.2, 0.4), True), ((0.5, 0.51), False)])
def test_a_floor_far_away_does_not_press_the_values_together(trained, values, is_seen):
    figures = [[*figure(values[0], 1), *figure(values[1], 2)]]
    (chart,) = _eval_charts.found([subject(trained, "0.9")], figures)
    assert (chart.seen_floor is not None) == is_seen


def test_what_has_no_value_leaves_a_gap(trained):
    subjects = [subject(trained, "0.9")]
    figures = [[*figure(1.0, 1), *figure(None, 2), *figure(2.0, 4)]]
    (chart,) = _eval_charts.found(subjects, figures)
    assert chart.curves[0].x == [1, 4]


def test_answers_at_levels_are_answers_of_eval(cmbench, trained):
    """Of the same format: views that list them read them."""
    cmbench("sigma-mid", *FEW)
    for path in trained.evaluations.glob("sliced_wasserstein-*.json"):
        stored = json.loads(path.read_text())
        assert evaluations.read(trained, stored["question"]) == stored["answer"]
        assert len(stored["question"]["sigmas"]) == 2
