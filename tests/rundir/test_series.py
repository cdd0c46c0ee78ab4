import json
import math

import numpy as np
import pytest
from fake_runs import read_rows

from cmbench.rundir import curve as curve_module
from cmbench.rundir import log as log_module
from cmbench.rundir import series
from cmbench.rundir.curve import Curve
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Log
from cmbench.rundir.series import Series


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path)


def log(run, rows, first_step=1, segment=1, stream="metrics"):
    writer = Log(getattr(run, stream))
    writer.open_segment(segment, first_step)
    for row in rows:
        writer.append(row)
    writer.close()


def row(step, **values):
    return {"step": step, "time": 1000.0 + step, "images": 8 * step, **values}


def read(run):
    read = Series(run)
    while read.read():
        pass
    return read


def test_curves_are_the_rows(run):
    log(run, [row(k, loss=1 / k, **({"sw_1step": 0.1 * k} if k % 3 == 0 else {})) for k in range(1, 11)])
    curves = read(run).metrics.curves
    assert sorted(curves) == ["loss", "sw_1step"]
    loss, quality = curves["loss"].points(), curves["sw_1step"].points()
    assert loss.step.tolist() == list(range(1, 11))
    np.testing.assert_allclose(loss.mean, [1 / k for k in range(1, 11)], rtol=1e-6)
    assert (loss.low == loss.high).all()
    assert quality.step.tolist() == [3, 6, 9]
    assert quality.time.tolist() == [1003.0, 1006.0, 1009.0]


def test_values_that_are_not_finite_are_marked_and_no_value(run):
    log(run, [row(1, loss=1.0, grad_norm=2.0), row(2, loss=math.nan, grad_norm=3.0), row(3, loss=-math.inf)])
    metrics = read(run).metrics
    loss = metrics.curves["loss"].points()
    assert loss.bad.tolist() == [0, 1, 1]
    assert loss.count.tolist() == [1, 0, 0]
    assert np.isnan(loss.mean[1:]).all()
    assert metrics.curves["grad_norm"].points().step.tolist() == [1, 2]
    assert metrics.last == {"loss": -math.inf, "grad_norm": 3.0}


@pytest.mark.parametrize("n", [15, 16, 17, 31, 32, 33, 1000, 1003])
def test_long_curves_keep_every_spike_in_bounded_memory(monkeypatch, n):
    monkeypatch.setattr(curve_module, "CAPACITY", 16)
    random = np.random.default_rng(0)
    value, curve = random.normal(size=n), Curve()
    value[n // 3] = 1e6
    step = np.arange(1, n + 1)
    for part in np.array_split(np.arange(n), 7):
        curve.extend(step[part], step[part] + 0.5, 2.0 * step[part], value[part], np.zeros(len(part), bool))
    points = curve.points()
    assert len(points) <= 17
    assert points.count.sum() == n
    ends = points.step.tolist()
    for i, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):  # rows start + 1 to end
        inside = value[start:end]
        assert (points.low[i], points.high[i]) == (np.float32(inside.min()), np.float32(inside.max()))
        np.testing.assert_allclose(points.mean[i], inside.mean(), rtol=1e-5, atol=1e-6)
    assert ends[-1] == n
    assert points.time[-1] == n + 0.5


def test_finite_values_beyond_float32_stay_finite(run, monkeypatch):
    monkeypatch.setattr(curve_module, "CAPACITY", 4)
    log(run, [row(k, loss=(-1) ** k * 1e300) for k in range(1, 17)])
    log(run, [row(1, loss=[1e300, None, -1e39, 1.0])], stream="profiles")
    found = read(run)
    points, (_, bins) = found.metrics.curves["loss"].points(), found.profiles.rows["loss"][0]
    assert points.count.tolist() == [4, 4, 4, 4]
    assert not points.bad.any()
    assert all(np.isfinite(part).all() for part in (points.low, points.high, points.mean))
    assert (points.low.min(), points.high.max()) == (-curve_module._LARGEST, curve_module._LARGEST)
    assert bins.dtype == points.low.dtype == np.float32
    np.testing.assert_array_equal(bins, np.float32([curve_module._LARGEST, np.nan, -curve_module._LARGEST, 1.0]))
    assert found.metrics.last == {"loss": 1e300}


def test_what_was_not_finite_is_counted_in_merged_buckets(monkeypatch):
    monkeypatch.setattr(curve_module, "CAPACITY", 4)
    curve, bad = Curve(), np.arange(16) % 5 == 0
    curve.extend(np.arange(16), np.arange(16.0), np.arange(16.0), np.ones(16), bad)
    points = curve.points()
    assert points.bad.sum() == bad.sum()
    assert points.count.sum() == 16 - bad.sum()
    assert np.nanmax(np.abs(points.mean - 1)) == 0


def test_rows_trained_again_are_dropped_as_other_readers_drop_them(run):
    log(run, [row(k, loss=float(k)) for k in range(1, 11)])
    follower = Series(run)
    follower.read()
    log(run, [row(k, loss=-float(k)) for k in range(7, 13)], first_step=7, segment=2)
    while follower.read():
        pass
    expected = read_rows(run.metrics)
    for found in (follower, read(run)):
        loss = found.metrics.curves["loss"].points()
        assert loss.step.tolist() == [r["step"] for r in expected]
        assert loss.mean.tolist() == [r["loss"] for r in expected]


def test_a_long_file_comes_in_pieces_and_a_half_written_line_later(run, monkeypatch):
    monkeypatch.setattr(log_module, "CHUNK", 300)
    log(run, [row(k, loss=float(k)) for k in range(1, 101)])
    text = run.metrics.read_bytes()
    run.metrics.write_bytes(text[:-20])
    follower = Series(run)
    assert follower.read()
    assert follower.behind > 0
    assert 1 <= len(follower.metrics.curves["loss"].points()) < 20
    while follower.read():
        pass
    assert follower.behind == 0
    assert len(follower.metrics.curves["loss"].points()) == 99
    run.metrics.write_bytes(text)
    assert follower.read()
    assert not follower.read()
    assert follower.metrics.curves["loss"].points().step.tolist() == list(range(1, 101))


def test_a_line_longer_than_a_piece_is_read(run, monkeypatch):
    monkeypatch.setattr(log_module, "CHUNK", 64)
    log(run, [{"step": 4, "time": 1.0, "loss": [0.5] * 100}], stream="profiles")
    assert read(run).profiles.rows["loss"][0][1].tolist() == [0.5] * 100


def test_a_torn_line_costs_itself_alone(run):
    lines = [json.dumps(row(k, loss=1.0)).encode() for k in (1, 2, 3)]
    run.metrics.write_bytes(lines[0] + b"\n" + lines[1][:30] + b"\n" + lines[2] + b"\n")
    assert read(run).metrics.curves["loss"].points().step.tolist() == [1, 3]


def test_profiles_of_a_long_run_are_thinned_and_the_newest_stays(run, monkeypatch):
    monkeypatch.setattr(series, "PROFILES", 8)
    log(run, [{"step": k, "time": 1.0, "loss": [float(k), None]} for k in range(1, 101)], stream="profiles")
    kept = read(run).profiles.rows["loss"]
    assert 8 <= len(kept) <= 17
    steps = [step for step, _ in kept]
    assert steps[-1] == 100
    assert steps == sorted(steps)
    assert all(bins[0] == step and np.isnan(bins[1]) for step, bins in kept)


def test_profiles_and_journal_drop_what_was_trained_again(run):
    for stream, values in (("profiles", {"loss": [1.0]}), ("events", {"kind": "checkpoint"})):
        log(run, [{"step": k, "time": 1.0, **values} for k in (2, 4, 6)], stream=stream)
        log(run, [{"step": 5, "time": 2.0, **values}], first_step=4, segment=2, stream=stream)
    found = read(run)
    assert [step for step, _ in found.profiles.rows["loss"]] == [2, 5]
    assert [r["step"] for r in found.journal.rows] == [2, 5]


def test_settings_stay_however_long_the_journal_becomes_unless_they_were_abandoned(run):
    made = {"kind": "request", "action": "set", "result": "done", "settings": {"optimizer.lr": 1e-3}}
    rows = [{"step": step, **made, "id": str(step)} for step in (1, 3)]
    log(run, [*rows, *({"step": 4, "kind": "checkpoint"} for _ in range(series.JOURNAL + 5))], stream="events")
    found = read(run).journal
    assert len(found.rows) == series.JOURNAL
    assert [row["id"] for row in found.settings] == ["1", "3"]
    log(run, [], first_step=3, segment=2, stream="events")
    assert [row["id"] for row in read(run).journal.settings] == ["1"]


def test_a_run_without_files_has_no_curves(run):
    empty = Series(run)
    assert not empty.read()
    assert (empty.metrics.curves, empty.profiles.rows, list(empty.journal.rows)) == ({}, {}, [])


def test_rows_of_other_bins_and_of_none_are_told_apart_in_one_piece(run):
    rows = [[1.0, 2.0], [3.0], "text", [4.0], [], [[5.0]], [6.0, None], ["x", 1.0], [7.0, 8.0]]
    log(run, [{"step": k, "time": 1.0, "loss": bins} for k, bins in enumerate(rows, start=1)], stream="profiles")
    kept = read(run).profiles.rows["loss"]
    assert str([(step, bins.tolist()) for step, bins in kept]) == "[(7, [6.0, nan]), (9, [7.0, 8.0])]"


def replaced_by_link(path, other):
    other.replace(path)


def written_over(path, other):
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("replace", [replaced_by_link, written_over])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_file_that_another_has_replaced_is_read_anew(tmp_path, replace, rows):
    """Shorter, or a longer one under another inode: nothing of the old one stays."""
    run, other = RunDir(tmp_path / "run"), RunDir(tmp_path / "other")
    for each in (run, other):
        each.path.mkdir()
    for stream, key, value in (("metrics", "loss", 1.0), ("profiles", "loss", [1.0, 2.0]), ("events", "kind", "a")):
        log(run, [row(k, **{key: value}) for k in range(1, 10)], stream=stream)
    for stream, key, value in (("metrics", "sw", 2.0), ("profiles", "sw", [3.0, 4.0]), ("events", "kind", "b")):
        log(other, [row(k, **{key: value}) for k in range(1, rows + 1)], stream=stream)
    seen = read(run)
    for name in ("metrics", "profiles", "events"):
        replace(getattr(run, name), getattr(other, name))
    while seen.read():
        pass
    assert {key: len(curve.points()) for key, curve in seen.metrics.curves.items()} == {"sw": rows}
    assert seen.metrics.last == {"sw": 2.0}
    assert {key: len(kept) for key, kept in seen.profiles.rows.items() if kept} == {"sw": rows}
    assert [each["kind"] for each in seen.journal.rows] == ["b"] * rows
    log(run, [row(20, sw=3.0)], segment=2, first_step=20)
    assert seen.read()
    assert seen.metrics.last == {"sw": 3.0}
