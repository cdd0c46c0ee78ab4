"""What runs came to: figures of one run and over several."""

import math

import pytest
from fake_runs import read_rows

from cmbench.rundir import figures
from cmbench.rundir.files import to_json
from cmbench.rundir.log import Log


@pytest.fixture
def rows(tmp_path):
    log = Log(tmp_path / "metrics.jsonl")
    log.open_segment(1, first_step=1)
    for step, norm in ((1, 2.0), (2, 90.0), (3, 4.0)):
        log.append({"step": step, "tangent_norm": norm})
    log.append({"step": 3, "sw_1step": 0.5})
    log.open_segment(2, first_step=2)  # step 2 and 3 are trained again
    log.append({"step": 2, "tangent_norm": 7.0})
    log.append({"step": 3, "tangent_norm": 3.0})
    log.append({"step": 3, "sw_1step": 0.25})
    log.append({"step": 4, "loss": 1.0})
    log.close()
    return read_rows(log.path)


def test_last_and_largest_pass_over_what_was_trained_again(rows):
    assert figures.newest(reversed(rows), "sw_1step") == 0.25
    assert figures.largest(rows, "tangent_norm") == 7.0


def test_a_metric_that_no_row_has(rows):
    assert figures.newest(reversed(rows), "true_error") is None
    assert figures.largest(rows, "true_error") is None
    assert figures.newest([], "loss") is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_hidden(tmp_path, value):
    log = Log(tmp_path / "metrics.jsonl")
    log.open_segment(1, first_step=1)
    log.append({"step": 1, "x": 1.0})
    log.append({"step": 2, "x": value})
    log.close()
    assert str(figures.newest(reversed(read_rows(log.path)), "x")) == str(value)
    assert figures.largest(read_rows(log.path), "x") == math.inf


def test_mean_and_sample_deviation():
    mean, deviation = figures.mean_and_deviation([1.0, 2.0, 6.0])
    assert mean == 3.0
    assert deviation == pytest.approx(math.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 2))
    assert figures.mean_and_deviation([4.0]) == (4.0, None)
    assert figures.mean_and_deviation([]) == (None, None)
    assert figures.mean_and_deviation([1.5e308, 1.0e308, 0.5e308]) == pytest.approx((1e308, 0.5e308))
    assert all(map(math.isnan, figures.mean_and_deviation([1.0, math.inf])))
    assert to_json(figures.mean_and_deviation([math.nan, 1.0])) == b"[null,null]"
