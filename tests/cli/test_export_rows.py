"""`cmbench export --metrics`: the rows of a run as other tools read them."""

import csv
import errno
import math
import warnings

import pytest
from fake_runs import fake_run, read_rows
from live_runs import add

from cmbench.rundir import files
from cmbench.rundir.files import read_json


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_every_row_and_bin(cmbench, trained, home):
    assert cmbench("export", trained.path, "--metrics", "csv", "--out", "x").code == 0
    found, rows = table(home / "x" / "metrics.csv"), read_rows(trained.metrics)
    assert [int(own["step"]) for own in found] == [row["step"] for row in rows]
    for own, row in zip(found, rows, strict=True):
        assert {key: float(own[key]) for key in own if own[key]} == {k: v for k, v in row.items() if k in own}
    bins = table(home / "x" / "profiles.csv")
    assert len(bins) == 4 * len(read_rows(trained.profiles))
    edges = read_json(trained.meta)["profile_edges"]
    assert [float(own["t_low"]) for own in bins[:4]] == edges[:4]
    assert not (home / "x" / "evaluations.csv").exists()


def test_a_name_that_a_spreadsheet_would_compute_is_text(cmbench, trained, home):
    add(trained.metrics, {"segment": 1, "step": 13, "time": 1.0, "=1+1": 2.0})
    assert cmbench("export", trained.path, "--metrics", "csv", "--out", "x").code == 0
    assert "'=1+1" in (home / "x" / "metrics.csv").read_text().splitlines()[0].split(",")


def test_parquet_has_types_and_keeps_what_was_not_finite(cmbench, trained, home):
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {"segment": 1, "step": 13, "time": 1.0, "loss": None, "nonfinite": {"loss": "inf"}}
    add(trained.metrics, row)
    assert cmbench("export", trained.path, "--metrics", "parquet", "--out", "x").code == 0
    found = parquet.read_table(home / "x" / "metrics.parquet")
    assert str(found.schema.field("step").type) == "int64"
    last = found.to_pylist()[-1]
    assert (last["step"], last["loss"], last["sw_1step"]) == (13, math.inf, None)


def test_tensorboard_shows_each_metric_at_its_step(cmbench, trained, home):
    pytest.importorskip("tensorboard")
    assert cmbench("export", trained.path, "--metrics", "tensorboard", "--out", "x").code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(home / "x"), size_guidance={"scalars": 0}).Reload()
    rows = [row for row in read_rows(trained.metrics) if "loss" in row]
    points = found.Scalars("loss")
    assert [point.step for point in points] == [row["step"] for row in rows]
    assert [point.value for point in points] == pytest.approx([row["loss"] for row in rows], rel=1e-6)
    assert [point.wall_time for point in points] == pytest.approx([row["time"] for row in rows])
    assert "profile/loss/bin 03" in found.Tags()["scalars"]


def test_a_full_disk_leaves_no_events(cmbench, trained, home, monkeypatch):
    pytest.importorskip("tensorboard")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left")

    monkeypatch.setattr(files, "write_all", full)
    done = cmbench("export", trained.path, "--metrics", "tensorboard", "--out", "a/b")
    assert (done.code, done.err) == (2, "cmbench: --out a/b: cannot be written: No space left\n")
    assert not (home / "a").exists()


def test_a_run_without_rows_is_refused(cmbench, home):
    fake_run(home / "runs", "empty")
    done = cmbench("export", "empty", "--metrics", "csv", "--out", "x")
    assert (done.code, done.err) == (2, "cmbench: empty: no rows yet\n")
    assert not (home / "x").exists()


def test_evaluations_come_too(cmbench, trained, home):
    arguments = ("--measures", "sliced_wasserstein", "--n", 64, "--repeats", 2, "--steps", 1)
    assert cmbench("eval", trained.path, *arguments).code == 0
    assert cmbench("export", trained.path, "--metrics", "csv", "--out", "x").code == 0
    (own,) = table(home / "x" / "evaluations.csv")
    assert (own["metric"], own["step"], own["ema"], own["steps"]) == ("sliced_wasserstein", "12", "0.9", "1")
    assert float(own["value"]) > 0
