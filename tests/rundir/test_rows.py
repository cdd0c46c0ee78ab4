"""Rows as tables: those that count, with what was not finite, and the place of each evaluation."""

import math

from fake_runs import fake_run

from cmbench.rundir import evaluations, rows
from cmbench.rundir.checkpoints import sealed
from cmbench.rundir.files import to_json


def line(**fields):
    return to_json(fields) + b"\n"


def test_rows_that_were_trained_again_are_left_out(tmp_path):
    run = fake_run(tmp_path, "a")
    run.metrics.write_bytes(
        line(segment=1, first_step=1)
        + line(segment=1, step=1, time=1.0, loss=1.0)
        + line(segment=1, step=2, time=2.0, loss=2.0)
        + line(segment=2, first_step=2)
        + line(segment=2, step=2, time=9.0, loss=None, nonfinite={"loss": "inf"}, sw_1step=0.5)
    )
    first, second = rows.metrics(run)
    assert list(first) == list(second) == ["step", "time", "segment", "loss", "sw_1step"]
    assert (first["loss"], first["sw_1step"]) == (1.0, None)
    assert (second["loss"], second["segment"], second["time"]) == (math.inf, 2, 9.0)


def test_each_bin_of_a_profile_has_its_ends(tmp_path):
    run = fake_run(tmp_path, "a")
    run.meta.write_bytes(to_json({"profile_edges": [0.0, 1.0, 2.0], "profile_noise_levels": [0.0, 10.0, 20.0]}))
    run.profiles.write_bytes(
        line(segment=1, first_step=1)
        + line(segment=1, step=4, time=1.0, loss=[3.0, None], count=[5, 0], nonfinite={"loss": {"1": "nan"}})
    )
    low, high = rows.profiles(run)
    assert (low["bin"], low["t_low"], low["t_high"], low["noise_level_high"]) == (0, 0.0, 1.0, 10.0)
    assert (low["loss"], low["count"]) == (3.0, 5.0)
    assert (high["bin"], high["noise_level_low"], high["count"]) == (1, 10.0, 0.0)
    assert math.isnan(high["loss"])


def test_rows_of_an_earlier_version_have_the_columns_of_later_ones(tmp_path):
    """As a run has that an earlier version began and a later one resumed."""
    run = fake_run(tmp_path, "a")
    early, late = {"step": 4, "time": 1.0, "loss": [3.0, 4.0]}, {"step": 5, "time": 2.0, "loss": [1.0, 2.0]}
    run.profiles.write_bytes(
        line(segment=1, first_step=1) + line(segment=1, **early) + line(segment=1, **late, train_s=0.5, images=320)
    )
    found = rows.profiles(run)
    assert {tuple(row) for row in found} == {tuple(found[0])}
    assert [(row["images"], row["train_s"]) for row in found] == [(None, None)] * 2 + [(320, 0.5)] * 2


def test_an_evaluation_knows_the_checkpoint_of_its_weights(tmp_path):
    run = fake_run(tmp_path, "a")
    folder = run.checkpoint(7)
    folder.mkdir(parents=True)
    groups = {"model": "a" * 64, "ema_0.9": "b" * 64}
    (folder / "state.json").write_bytes(to_json(sealed({"schema": 2, "step": 7, "sha256": groups})))
    answer = {"value": 0.5, "spread": 0.1, "floor": None}
    for weights in ("b" * 64, "c" * 64):
        evaluations.write(run, {"metric": "recall", "weights": weights, "n": 10, "steps": 1}, answer)
    (run.evaluations / "recall-0000000000000000.json").write_text("{")
    found = {own["weights"][0]: (own["step"], own["ema"], own["value"], own["n"]) for own in rows.of_evaluations(run)}
    assert found == {"b": (7, "0.9", 0.5, 10), "c": (None, None, 0.5, 10)}


def test_a_run_without_rows_has_empty_tables(tmp_path):
    run = fake_run(tmp_path, "a")
    assert rows.of_run(run) == {"metrics": [], "profiles": [], "evaluations": []}
