"""`cmbench eval`: its figures, what it keeps, what it refuses."""

import json
import statistics
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from fake_runs import read_rows
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
from tiny import DISTILL

from cmbench import consent
from cmbench.engine import build, judge, runner
from cmbench.engine.asking import Place
from cmbench.engine.evaluate import Evaluation
from cmbench.evaluation.frechet_distance import frechet_distance
from cmbench.evaluation.sliced_wasserstein import sliced_wasserstein
from cmbench.features.classifier import Classifier
from cmbench.measures import MEASURES, OF_SAMPLES
from cmbench.progress import Progress
from cmbench.rundir import floors

FEW = ["--n", "32", "--repeats", "2"]
MOONS = "data={kind='points', name='moons', size=200}"


def figures(outcome) -> dict:
    assert outcome.code == 0, outcome.err
    (run,) = json.loads(outcome.out)["runs"]
    return {(figure["metric"], figure["steps"]): figure for figure in run["figures"]}


@pytest.fixture
def distilled(home, put_back):
    """A run with a teacher."""
    overrides = [*DISTILL[:2], "teacher.kind=oracle", "evaluate.every=0", "snapshot.every=0"]
    made = runner.create(consent.named(home / "tiny.toml", overrides), None, [])
    list(made.records())
    return made.run


def test_every_measure_with_spread_and_floor(cmbench, distilled):
    found = figures(cmbench("eval", distilled.name, *FEW, "--steps", "1,3", "--json"))
    functions = set(MEASURES) - set(OF_SAMPLES)
    assert set(found) == {(name, k) for name in OF_SAMPLES for k in (1, 3)} | {(name, None) for name in functions}
    for (name, _), figure in found.items():
        assert figure["better"] == (MEASURES[name].better or None)
        assert figure["cached"] is False
        assert figure["spread"] >= 0
        if name in OF_SAMPLES:
            assert figure["value"] == pytest.approx(statistics.fmean(figure["values"]))
            assert figure["spread"] == pytest.approx(statistics.stdev(figure["values"]))
            assert figure["floor_draws"] == 20
            assert figure["floor_spread"] > 0
        else:
            assert min(figure["bins"]) < figure["value"] < max(figure["bins"])
            assert len(figure["noise_levels"]) == len(figure["bins"]) + 1
            assert figure["floor"] is None
    constancy = found["self_consistency", None]
    assert constancy["value"] == pytest.approx(statistics.fmean(constancy["bins"]), rel=1e-5)
    levels = constancy["noise_levels"]
    assert [levels[0], levels[-1]] == pytest.approx([0.02, 5])
    assert [b / a for a, b in pairwise(levels)] == pytest.approx([250 ** (1 / 32)] * 32)
    text = cmbench("eval", distilled.name, *FEW, "--steps", "1,3").out
    assert text.startswith(f"{distilled.name}, checkpoint 12, ema 0.9: 2 sets of 32 samples, seed 0, features pixels\n")
    assert text.splitlines()[1].split() == ["metric", "steps", "value", "spread", "floor", "better"]
    rows, notes = text.splitlines()[2 : 2 + len(found)], text.splitlines()[2 + len(found) :]
    for row, figure in zip(rows, found.values(), strict=True):
        if figure["steps"]:
            assert f"{figure['floor']:.4g} ± {figure['floor_spread']:.2g}" in row
        assert ("≈" in row) == is_as_good_as_perfect(figure)
    assert notes[-1] == "floor: mean and deviation of 20 draws of real data in the place of samples"
    assert notes[:-1] == [floors.legend()] * any(map(is_as_good_as_perfect, found.values()))


def is_as_good_as_perfect(figure) -> bool:
    if figure["floor"] is None:
        return False
    beyond = {"lower": 1, "higher": -1}.get(figure["better"])
    off = figure["value"] - figure["floor"]
    return (abs(off) if beyond is None else beyond * off) <= figure["floor_spread"]


def test_the_first_set_is_that_of_the_evaluation_while_it_trained(cmbench, trained):
    """Same seed, number, average and checkpoint: the row of metrics.jsonl, and its true error."""
    found = figures(cmbench("eval", trained.name, "--repeats", "2", "--seed", "3", "--json"))
    row = next(row for row in reversed(read_rows(trained.metrics)) if "sw_1step" in row)
    for steps in (1, 2):
        assert found["sliced_wasserstein", steps]["values"][0] == pytest.approx(row[f"sw_{steps}step"], rel=1e-6)
    assert found["consistency_error", None]["value"] == pytest.approx(row["true_error"], rel=1e-4)
    assert found["consistency_error", None]["at_sigma_max"] == pytest.approx(row["true_error_1step"], rel=1e-4)


def test_self_consistency_is_measured_on_a_schedule(cmbench, home, put_back):
    overrides = [*DISTILL[:2], "teacher.kind=oracle", "evaluate.self_error_n=128", "snapshot.every=0"]
    made = runner.create(consent.named(home / "tiny.toml", overrides), None, [])
    list(made.records())
    rows = [row["self_error"] for row in read_rows(made.run.metrics) if "self_error" in row]
    assert len(rows) == 2
    found = figures(cmbench("eval", made.run.name, *FEW, "--seed", "3", "--measures", "self_consistency", "--json"))
    assert found["self_consistency", None]["value"] == pytest.approx(rows[-1], rel=1e-4)


def test_the_floor_is_training_data_drawn_anew_in_the_place_of_samples(cmbench, home, put_back):
    """Mean and deviation over twenty draws, each sample from all: by other draws, to four standard errors."""
    made = runner.create(consent.named(home / "tiny.toml", [MOONS, "evaluate.every=0", "snapshot.every=0"]), None, [])
    list(made.records())
    data = made.trainer.data
    found = figures(cmbench("eval", made.run.name, "--n", "150", "--repeats", "2", "--steps", "1", "--json"))
    train, test = data.train_sample(200), data.held_out(150)
    generator = torch.Generator().manual_seed(7)
    draws = [train[torch.randint(200, (150,), generator=generator)] for _ in range(80)]
    for name, measure in (("sliced_wasserstein", sliced_wasserstein), ("frechet_distance", frechet_distance)):
        figure, own = found[name, 1], [measure(x, test) for x in draws]
        error = statistics.stdev(own) * (1 / 20 + 1 / 80) ** 0.5
        assert figure["floor"] == pytest.approx(statistics.fmean(own), abs=4 * error)
        assert 0.5 < figure["floor_spread"] / statistics.stdev(own) < 2
    away = torch.cdist(test.double(), data.train.double()).amin(dim=1)  # of the whole training set
    copied = found["nearest_neighbour", 1]
    assert copied["floor"] == pytest.approx(float(away.mean()), abs=4 * float(away.std()) / (20 * 150) ** 0.5)
    assert copied["floor_spread"] == pytest.approx(float(away.std()) / 150**0.5, rel=0.6)


def test_a_question_that_was_asked_costs_nothing(cmbench, trained, monkeypatch):
    ask = ("eval", trained.name, *FEW, "--steps", "1", "--json")
    first = figures(cmbench(*ask))
    kept = {path: path.read_bytes() for path in trained.evaluations.iterdir()}
    monkeypatch.setattr(Evaluation, "__init__", lambda *given: pytest.fail("computed again"))
    again = figures(cmbench(*ask))
    assert {key: {**figure, "cached": False} for key, figure in again.items()} == first
    assert all(figure["cached"] for figure in again.values())
    assert {path: path.read_bytes() for path in trained.evaluations.iterdir()} == kept


@pytest.mark.parametrize(
    "other",
    [["--seed", "1"], ["--n", "33"], ["--repeats", "3"], ["--ema", "none"], ["--checkpoint", "10"], ["--steps", "2"]],
    ids=lambda other: other[0],
)
def test_another_question_is_computed(cmbench, trained, other):
    ask = ("eval", trained.name, *FEW, "--steps", "1", "--measures", "energy_distance", "--json")
    (first,) = figures(cmbench(*ask)).values()
    (second,) = figures(cmbench(*ask, *other)).values()
    assert second["cached"] is False
    assert second["value"] != first["value"]
    (third,) = figures(cmbench(*ask)).values()
    assert third["cached"]


def test_so_is_one_of_another_version_or_whose_file_is_broken(cmbench, trained, monkeypatch):
    ask = ("eval", trained.name, *FEW, "--steps", "1", "--measures", "recall", "--json")
    (first,) = figures(cmbench(*ask)).values()
    (path,) = trained.evaluations.iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    assert list(figures(cmbench(*ask)).values()) == [first]
    monkeypatch.setitem(MEASURES, "recall", MEASURES["recall"]._replace(version=3))
    assert list(figures(cmbench(*ask)).values()) == [first]
    assert len(list(trained.evaluations.iterdir())) == 2


@pytest.mark.parametrize("answer", [5, [], {}, "text", {"value": 1.0}, {"value": "1", "spread": 0.1, "floor": 0}])
def test_a_broken_answer_is_computed_again(cmbench, trained, answer):
    ask = ("eval", trained.name, *FEW, "--steps", "1", "--measures", "recall", "--json")
    (first,) = figures(cmbench(*ask)).values()
    (path,) = trained.evaluations.iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), "answer": answer}))
    assert list(figures(cmbench(*ask)).values()) == [first]


def test_a_floor_of_fewer_samples_says_so(cmbench, home, put_back):
    """There are 200 moons to train on and 200 others: sets of 300 repeat some."""
    made = runner.create(consent.named(home / "tiny.toml", [MOONS, "evaluate.every=0", "snapshot.every=0"]), None, [])
    list(made.records())
    names = "sliced_wasserstein,nearest_neighbour"
    ask = ("eval", made.run.name, "--repeats", "2", "--steps", "1", "--measures", names)
    found = figures(cmbench(*ask, "--n", "300", "--json"))
    assert [figure["floor_from"] for figure in found.values()] == [200, 200]
    note = cmbench(*ask, "--n", "300", "--markdown", "page.md").out.splitlines()[-1]
    assert note.startswith("floor: drawn from all real samples that there are, 200 for sliced_wasserstein, nearest_")
    assert note in (home / "page.md").read_text()
    assert "floor: drawn" not in cmbench(*ask, "--n", "30").out


def test_fewer_samples_than_a_measure_needs_are_a_reason(cmbench, trained, tmp_path):
    """In every form of the table, and no floor stands beside it."""
    ask = ("eval", trained.name, "--n", "3", "--repeats", "2", "--steps", "1")
    outcome = cmbench(*ask, "--json", "--markdown", tmp_path / "page.md")
    assert "NaN" not in outcome.out
    found = figures(outcome)
    missing = {name: figure["why"] for (name, _), figure in found.items() if figure["value"] is None}
    assert missing == {
        "precision": "it needs 4 or more real samples, found 3",
        "recall": "it needs 4 or more samples, found 3",
        "density": "it needs 6 or more real samples, found 3",
        "coverage": "it needs 6 or more real samples, found 3",
    }
    assert all(found[name, 1]["floor"] is None for name in missing)
    text, page = cmbench(*ask).out, (tmp_path / "page.md").read_text()
    assert "nan" not in text + page
    for name, reason in missing.items():
        assert f"{name} has no figure: {reason}" in text
        assert f"{name} has no figure: {reason}" in page


def test_a_conditional_run_has_figures_of_each_class(cmbench, conditional, tmp_path):
    """In JSON and as a table of their own; their samples are those of the whole."""
    ask = (
        "eval",
        conditional.name,
        "--n",
        "64",
        "--repeats",
        "2",
        "--steps",
        "1",
        "--measures",
        "energy_distance,recall",
    )
    found = figures(cmbench(*ask, "--json"))
    for (name, _), figure in found.items():
        assert [own["label"] for own in figure["classes"]] == list(range(8))
        assert sum(own["samples"] for own in figure["classes"]) == 64
        assert sum(own["real"] for own in figure["classes"]) == 64
        for own in figure["classes"]:
            assert (own["value"] is None) == bool(own.get("why")), name
    text = cmbench(*ask).out.splitlines()
    (head,) = [i for i, line in enumerate(text) if line.startswith("class ")]
    assert [line.split()[0] for line in text[head + 1 : head + 9]] == [str(label) for label in range(8)]
    for own in found["energy_distance", 1]["classes"]:
        assert f"{own['value']:.4g}" in text[head + 1 + own["label"]]


def test_a_kept_answer_is_read_without_torch(cmbench, trained, home):
    ask = ["eval", str(trained.path), *FEW, "--steps", "1"]
    shown = cmbench(*ask).out
    script = "import sys; from cmbench.cli import main; main.exit_code(); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script, *ask], capture_output=True, text=True, check=True)
    assert done.stdout == shown


def test_several_runs_and_what_they_have_no_figure_of(cmbench, trained, teacher):
    """A diffusion model is no consistency function; a run without a teacher has no trajectories of one."""
    outcome = cmbench("eval", trained.name, teacher.name, *FEW, "--steps", "2", "--json")
    one, two = ({f["metric"] for f in run["figures"]} for run in json.loads(outcome.out)["runs"])
    assert one == {*OF_SAMPLES, "consistency_error"}
    assert two == set(OF_SAMPLES)


def test_best_is_the_checkpoint_that_the_journal_calls_so(cmbench, trained):
    best = [row for row in read_rows(trained.events) if row.get("best")][-1]["step"]
    outcome = cmbench("eval", trained.name, *FEW, "--checkpoint", "best", "--measures", "precision", "--json")
    assert json.loads(outcome.out)["runs"][0]["checkpoint"] == best


def test_samples_that_are_not_finite_have_no_figure(cmbench, trained, monkeypatch):
    monkeypatch.setattr("cmbench.engine.asking.draw", lambda *given: torch.full((32, 2), torch.nan))
    for figure in figures(cmbench("eval", trained.name, *FEW, "--measures", "frechet_distance", "--json")).values():
        assert figure["value"] is None
        assert figure["floor"] is not None
        assert figure["why"].startswith("the samples of 2 of 2 sets are not finite")
    text = cmbench("eval", trained.name, *FEW, "--measures", "frechet_distance").out
    assert "nan" not in text
    assert "frechet_distance has no figure: the samples of 2 of 2 sets are not finite" in text


class Noted(Progress):
    def __init__(self):
        self.expected, self.begun = 0, []

    def expect(self, figures):
        self.expected += figures

    def begin(self, what):
        self.begun.append(what)


def test_every_figure_that_takes_time_is_told_of(trained):
    """Floors take most of the time: a bar that counts sets alone would stand still meanwhile."""
    noted, wanted = Noted(), [("sliced_wasserstein", 1), ("recall", 1), ("recall", 2)]
    evaluation = Evaluation(Place(trained, 12, "0.9", "cpu"))
    answers = list(evaluation.of_samples(wanted, 64, 0, 2, noted))
    draws = sum(answer["floor_draws"] for name, steps, answer in answers if steps == 1)
    assert noted.expected == len(noted.begun) == draws + 2 * len(wanted)
    assert {"floor of recall", "recall, 2-step", "sliced_wasserstein, 1-step"} <= set(noted.begun)


@pytest.fixture
def digits(home, put_back):
    overrides = ["data={kind='digits'}", "network={kind='unet',width=8,multipliers=[1],depth=1}", "train.steps=2"]
    made = runner.create(
        consent.named(home / "tiny.toml", [*overrides, "evaluate.every=0", "snapshot.every=0"]), None, []
    )
    list(made.records())
    return made.run


def test_features_of_a_classifier_that_was_trained_here(cmbench, home, digits):
    trained = cmbench("classifier", digits.recipe, "--out", "c.safetensors", "--steps", "60", "--json")
    assert json.loads(trained.out)["accuracy"] > 0.5  # one in ten by chance
    ask = ("eval", digits.name, *FEW, "--steps", "1", "--measures", "frechet_distance", "--json")
    (found,) = figures(cmbench(*ask, "--features", "c.safetensors")).values()
    (pixels,) = figures(cmbench(*ask)).values()
    assert found["cached"] is False
    assert found["value"] != pixels["value"]
    classifier = Classifier.load(home / "c.safetensors")
    data = build.data(build.complete(build.recipe.load(digits.recipe), "x"), torch.device("cpu"))
    train, test = (classifier.features(x) for x in (data.train_sample(32), data.held_out(32)))
    assert train.shape == (32, 64)
    assert torch.allclose(classifier.net[-1](train), classifier(data.train_sample(32)))
    draws = [classifier.features(judge.real_draw(data, 32, 0, i)[0]) for i in range(20)]
    assert found["floor"] == pytest.approx(statistics.fmean(frechet_distance(x, test) for x in draws), rel=1e-6)
    (again,) = figures(cmbench(*ask, "--features", "c.safetensors")).values()
    assert again["cached"]
    retrained = cmbench("classifier", digits.recipe, "--out", "c.safetensors", "--steps", "1")
    assert retrained.code == 0
    (other,) = figures(cmbench(*ask, "--features", "c.safetensors")).values()
    assert other["cached"] is False


def test_inception_says_plainly_that_it_cannot_be_had(cmbench, digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    outcome = cmbench("eval", digits.name, *FEW, "--features", "inception", "--measures", "frechet_distance")
    assert outcome.code == 2
    assert outcome.err == (
        "cmbench: --features: 'inception' needs the torch-fidelity package: pip install 'cmbench[inception]'\n"
    )
    assert not digits.evaluations.exists()


def test_classifier_files_that_are_none(cmbench, home, trained, digits):
    (home / "text.safetensors").write_text("no tensors")
    save_file({}, home / "empty.safetensors")
    layers = '{"shape":[1,8,8],"features":1,"layers":[["%s",{}]]}'
    save_tensors({}, home / "unknown.safetensors", {"classifier": layers % "LSTM"})
    save_tensors({}, home / "arguments.safetensors", {"classifier": layers % "Linear"})
    save_tensors({}, home / "fits.safetensors", {"classifier": layers % "Flatten"})
    save_tensors({"0.weight": torch.ones(1)}, home / "more.safetensors", {"classifier": layers % "ReLU"})
    beyond = '{"shape":[1,8,8],"features":2,"layers":[["ReLU",{}]]}'
    save_tensors({}, home / "beyond.safetensors", {"classifier": beyond})
    mentions = {
        "nothing": ["cannot be read", "No such file"],
        "text": ["cannot be read"],
        "empty": ["no classifier", "shape", "`cmbench classifier`"],
        "unknown": ["no classifier", "'LSTM'", "Conv2d"],
        "arguments": ["no classifier", "in_features"],
        "more": ["no classifier", "0.weight"],
        "beyond": ["no classifier", "features: found 2", "up to 1"],
    }
    for stem, wanted in mentions.items():
        outcome = cmbench("eval", digits.name, *FEW, "--features", f"{stem}.safetensors", "--measures", "precision")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome.err
        assert all(text in outcome.err for text in [f"{stem}.safetensors", *wanted]), outcome.err
    outcome = cmbench("eval", trained.name, *FEW, "--features", "fits.safetensors", "--measures", "precision")
    assert outcome.code == 2
    assert "[1, 8, 8]" in outcome.err
    assert "[2]" in outcome.err
    assert not digits.evaluations.exists()


def test_a_page_of_several_runs(cmbench, distilled, trained, tmp_path):
    """Every figure that --json has stands in the row of its run and steps, below the floors."""
    names, page = "consistency_error,recall,sliced_wasserstein", tmp_path / "table.md"
    asked = ["eval", distilled.name, trained.name, *FEW, "--steps", "1,3", "--measures", names]
    outcome = cmbench(*asked, "--json", "--markdown", page)
    assert outcome.code == 0, outcome.err
    table, _, below = page.read_text().partition("\n\n")
    head, rule, floor, *rows = table.splitlines()
    made, *notes = below.splitlines()
    assert cells(head) == ["run", "steps", "consistency_error ↓", "recall ↑", "sliced_wasserstein ↓"]
    assert set(cells(rule)) == {"---"}
    assert made == "2 sets of 32 samples, seed 0, features pixels."
    assert notes[-1] == "floor: mean and deviation of 20 draws of real data in the place of samples"
    found = json.loads(outcome.out)["runs"]
    assert [cells(row)[:2] for row in rows] == [[f"`{name}`", k] for name in ("cd", "tiny") for k in ("1", "3")]
    for run, (first, second) in zip(found, batched(rows), strict=True):
        for figure in run["figures"]:
            row = cells(second if figure["steps"] == 3 else first)
            text = row[2 + sorted(names.split(",")).index(figure["metric"])]
            assert text.endswith(" ≈") == is_as_good_as_perfect(figure)
            value, spread = text.removesuffix(" ≈").split(" ± ")
            assert float(value) == pytest.approx(figure["value"], rel=5e-3)
            assert float(spread) == pytest.approx(figure["spread"], rel=0.5)  # one digit
            if figure["steps"]:
                mean, deviation = cells(floor)[2 + sorted(names.split(",")).index(figure["metric"])].split(" ± ")
                assert float(mean) == pytest.approx(figure["floor"], rel=1e-3)
                assert float(deviation) == pytest.approx(figure["floor_spread"], rel=0.05)
    assert cells(rows[1])[2] == ""
    cmbench(*asked, trained.name, "--markdown", page)
    assert [cells(row)[0] for row in page.read_text().splitlines()[7:9]] == [f"`{trained.name}`"] * 2
    renamed = trained.path.rename(trained.path.with_name("ring-lr-1e-4"))
    cmbench("eval", renamed, *asked[3:], "--markdown", page)
    assert cells(page.read_text().splitlines()[3])[0] == "`ring-lr-1e-4`"
    refused = cmbench("eval", renamed, *asked[3:], "--markdown", tmp_path)
    assert refused.code == 2
    assert refused.err.startswith(f"cmbench: --markdown {tmp_path}: cannot be written: ")
    assert refused.err.count("\n") == 1


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def batched(rows: list[str]) -> list[list[str]]:
    return [rows[i : i + 2] for i in range(0, len(rows), 2)]
