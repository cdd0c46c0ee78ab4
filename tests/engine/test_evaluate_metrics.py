"""[evaluate] metrics: the rows that a run writes on its schedule, its floors, and what is best by them."""

import pytest
from fake_runs import read_rows

from cmbench import consent
from cmbench.engine import runner, trainer
from cmbench.engine.judge import labels_as_data
from cmbench.measures import OF_SAMPLES, row_key
from cmbench.rundir import status
from cmbench.rundir.files import read_json, to_json

pytestmark = pytest.mark.usefixtures("put_back")
CLOCK = {"time", "train_s", "images_per_s", "segment"}
MANY = ["precision", "nearest_neighbour", "frechet_distance", "energy_distance", "coverage", "sliced_wasserstein"]


def create(home, *overrides):
    few = ["evaluate.true_error_n=0", "snapshot.every=0", *overrides]
    return runner.create(consent.named(home / "tiny.toml", few), None, ["cmbench"])


def timeless(path):
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in read_rows(path)]


def test_rows_floors_and_bests(home):
    made = create(home, f"evaluate.metrics={MANY}")
    list(made.records())
    keys = {row_key(name, steps) for name in MANY for steps in (1, 2)}
    rows = [row for row in read_rows(made.run.metrics) if "fd_1step" in row]
    assert [row["step"] for row in rows] == [6, 12]
    assert all(keys <= set(row) for row in rows)
    assert set(read_json(made.run.meta)["floor"]) == {OF_SAMPLES[name].key for name in MANY}
    best = status.read(made.run)["best"]
    assert set(best) == {key for key in keys if not key.startswith("nn_")}
    for key, pick in (("precision_1step", max), ("coverage_2step", max), ("fd_1step", min), ("sw_2step", min)):
        assert best[key]["value"] == pick(row[key] for row in rows)


def test_the_usual_measure_is_what_it_was(home, trained):
    """And others beside it change neither its figures nor the training."""
    made = create(home, "evaluate.metrics=['sliced_wasserstein','recall']", "evaluate.true_error_n=128")
    list(made.records())
    mine, theirs = timeless(made.run.metrics), timeless(trained.metrics)
    assert [{k: v for k, v in row.items() if not k.startswith("recall_")} for row in mine] == theirs
    assert read_json(made.run.meta)["floor"]["sw"] == read_json(trained.meta)["floor"]["sw"]


def test_a_resumed_run_writes_the_same_figures(home):
    overrides = [f"evaluate.metrics={MANY}", "evaluate.every=2"]
    unbroken = create(home, *overrides)
    list(unbroken.records())
    made = create(home, *overrides)
    for record in made.records():
        if record.row["step"] >= 7:
            made.request_stop("test")
    assert made.exit_code == 75
    again = runner.resume(made.run)
    list(again.records())
    assert again.exit_code == 0
    assert timeless(made.run.metrics) == timeless(unbroken.run.metrics)
    assert status.read(made.run)["best"] == status.read(unbroken.run)["best"]


@pytest.mark.parametrize(("metric", "kept"), [("precision", 8), ("frechet_distance", 4)])
def test_the_first_metric_decides_which_checkpoint_stays(home, monkeypatch, metric, kept):
    """The highest precision, the lowest distance."""
    quality = iter([0.5, 0.1, 0.3, 0.9, 0.2, 0.6])
    made = create(home, f"evaluate.metrics=['{metric}']", "checkpoint.keep=1", "checkpoint.every=2", "evaluate.every=2")
    key = row_key(metric, 1)
    monkeypatch.setattr(type(made.trainer), "evaluate", lambda self: {key: next(quality)})
    list(made.records())
    assert [int(path.name) for path in sorted(made.run.checkpoints.iterdir())] == [kept, 12]
    assert status.read(made.run)["best"][key]["step"] == kept


def test_weights_that_are_not_finite_are_evaluated(home):
    built = trainer.from_file(home / "tiny.toml", [f"evaluate.metrics={MANY}"])
    for parameter in built.sampling_model.parameters():
        parameter.data.fill_(float("nan"))
    assert all(value != value for value in built.evaluate().values())


def test_a_measure_of_too_few_samples_is_no_row_but_a_line_in_the_journal(home):
    made = create(home, "evaluate.metrics=['sliced_wasserstein','recall']", "evaluate.n=3")
    list(made.records())
    assert all("recall_1step" not in row for row in read_rows(made.run.metrics))
    assert any("sw_1step" in row for row in read_rows(made.run.metrics))
    warned = [row["text"] for row in read_rows(made.run.events) if row["kind"] == "warning"]
    assert warned == ["evaluate.metrics: recall is not measured: it needs 4 or more samples, found 3"]
    assert set(read_json(made.run.meta)["floor"]) == {"sw"}


def test_a_conditional_run_is_measured_with_the_shares_of_its_data_and_an_earlier_one_as_it_began(home, monkeypatch):
    """What tells the earlier one is that its floor has no spread; the journal says so when it is resumed."""
    overrides = ["network.class_conditional=true", "evaluate.every=4"]
    seen = []
    monkeypatch.setattr(trainer, "labels_as_data", lambda *given: seen.append(given) or labels_as_data(*given))
    unbroken = create(home, *overrides)
    list(unbroken.records())
    assert len(seen) == 6  # two numbers of steps, three times
    made = create(home, *overrides)
    for record in made.records():
        if record.row["step"] >= 5:
            made.request_stop("test")
    meta = read_json(made.run.meta)
    del meta["floor_spread"], meta["floor_draws"]
    made.run.meta.write_bytes(to_json(meta))
    seen.clear()
    list(runner.resume(made.run).records())
    assert seen == []
    warned = [row["text"] for row in read_rows(made.run.events) if row["kind"] == "warning"]
    assert any(text.startswith("its rows measure equal shares of classes") for text in warned)
