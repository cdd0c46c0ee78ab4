"""Metrics as columns: the rows that count, exactly."""

import math

import numpy as np
import pytest
from compared_runs import CREATED, compared_run
from fake_runs import read_rows

from cmbench.rundir import columns
from cmbench.rundir import log as log_module
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Log


def test_columns_are_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(log_module, "CHUNK", 700)  # many pieces
    run = compared_run(tmp_path, "a", {"loss": [1 / 3, 0.25, 1e-300], "lr": [1.0, 2.0, 3.0]}, steps=[5, 9, 20])
    found = columns.read(run, CREATED)
    assert sorted(found) == ["loss", "lr"]
    assert found["loss"].value.tolist() == [1 / 3, 0.25, 1e-300]
    assert found["loss"].step.tolist() == [5, 9, 20]
    assert found["lr"].images.tolist() == [40, 72, 160]
    assert found["lr"].seconds.tolist() == [1, 2, 3]


@pytest.mark.parametrize("chunk", [100, 1 << 20])
def test_segments_gaps_and_values_that_are_not_finite(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(log_module, "CHUNK", chunk)
    (tmp_path / "a").mkdir()
    log = Log(tmp_path / "a" / "metrics.jsonl")
    log.open_segment(1, first_step=1)
    for step, loss in ((1, 1.0), (2, math.nan), (3, 3.0), (4, 4.0)):
        log.append({"step": step, "time": 10.0 * step, "images": step, "loss": loss})
    log.append({"step": 4, "time": 41.0, "images": 4, "sw_1step": 0.5})
    log.open_segment(2, first_step=4)
    for step, loss in ((4, -math.inf), (5, 5.0)):
        log.append({"step": step, "time": 1000.0 + 10 * step, "images": step, "loss": loss, "bins": [1.0, 2.0]})
    log.close()
    found = columns.read(RunDir(tmp_path / "a"), created=0.0)
    assert sorted(found) == ["loss"]  # the only sw_1step was trained again
    assert found["loss"].step.tolist() == [1, 2, 3, 4, 5]
    assert [row["step"] for row in read_rows(log.path)] == [1, 2, 3, 4, 5]
    assert str(found["loss"].value.tolist()) == "[1.0, nan, 3.0, -inf, 5.0]"
    assert found["loss"].seconds.tolist() == [10, 20, 30, 30, 40]  # nobody trained between 30 and 1040
    assert found["loss"].finite().step.tolist() == [1, 3, 5]


def test_rows_that_no_trainer_writes(tmp_path):
    run = RunDir(tmp_path)
    run.metrics.write_bytes(
        b'{"segment":1,"first_step":1}\n{"step":"x","loss":1}\n[1]\n{"step":3,"loss":"many","lr":null}\n{"loss":2}\n'
        b'{"step":2,"loss":0.5,"nonfinite":"what"}\n{"step":4,"loss":[1],"nonfinite":{"loss":7}}\n{"step":9,"lo'
    )
    found = columns.read(run)
    assert found["loss"].value.tolist() == [0.5]
    assert found["loss"].step.tolist() == [2]
    assert sorted(found) == ["loss"]


def test_steps_ascend_though_the_rows_do_not(tmp_path):
    run = compared_run(tmp_path, "a", {"loss": [3.0, 1.0, 2.0]}, steps=[30, 10, 20])
    assert columns.read(run)["loss"].value.tolist() == [1, 2, 3]


@pytest.mark.parametrize("chunk", [300, 1 << 20])
def test_rows_of_other_keys_among_them(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(log_module, "CHUNK", chunk)
    random = np.random.default_rng(0)
    rows = [
        {
            "step": k,
            "time": float(k),
            **{key: random.normal() for key in random.permutation(["a", "b", "c"]).tolist()[: k % 4]},
        }
        for k in range(1, 80)
    ]
    log = Log(tmp_path / "metrics.jsonl")
    log.open_segment(1, first_step=1)
    for row in rows:
        log.append(row)
    log.close()
    found = columns.read(RunDir(tmp_path))
    for key in "abc":
        assert found[key].step.tolist() == [row["step"] for row in rows if key in row]
        assert found[key].value.tolist() == [row[key] for row in rows if key in row]
        assert np.isnan(found[key].images).all()


def test_profiles_are_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(log_module, "CHUNK", 200)
    log = Log(tmp_path / "profiles.jsonl")
    log.open_segment(1, first_step=1)
    for step in (2, 4, 6, 8):
        log.append({"step": step, "time": 1.0, "loss": [step, 0.5, None], "weight": [1.0] if step == 4 else "none"})
    log.open_segment(2, first_step=5)
    for bins in ([7, 1, 2], [[1]], ["x", 2, 3], [], [9, None, 3]):
        log.append({"step": 6, "time": 1.0, "loss": bins})
    log.close()
    found = columns.profiles(RunDir(tmp_path))
    assert sorted(found) == ["loss", "weight"]
    assert found["loss"].step.tolist() == [2, 4, 6]  # the last row of a step counts
    assert str(found["loss"].bins.tolist()) == "[[2.0, 0.5, nan], [4.0, 0.5, nan], [9.0, nan, 3.0]]"
    assert found["weight"].bins.tolist() == [[1.0]]
    assert columns.profiles(RunDir(tmp_path / "nowhere")) == {}


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b'{"segment":1,"first_step":1}\n', b"\x00\xff"])
def test_a_run_without_metrics(tmp_path, content):
    run = RunDir(tmp_path)
    if content is not None:
        run.metrics.write_bytes(content)
    assert columns.read(run) == {}


def test_forty_thousand_rows_are_all_there(tmp_path):
    values = np.random.default_rng(0).normal(size=40_000)
    run = compared_run(tmp_path, "a", {"loss": values})
    assert np.array_equal(columns.read(run)["loss"].value, values)
