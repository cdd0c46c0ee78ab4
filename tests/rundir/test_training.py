"""The time of training at rows, told or not."""

import numpy as np
import pytest

from cmbench.rundir import columns
from cmbench.rundir.columns import Column
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Log
from cmbench.rundir.series import Series
from cmbench.rundir.training import KEYS, Seconds

NIGHT = 36_000.0


def row(step, time, **values):
    return {"step": step, "time": time, "images": 8 * step, "loss": 1.0 / step, **values}


def written(folder, *segments):
    """Write segments of rows: the first step of each, and its rows."""
    log = Log(RunDir(folder).metrics)
    for i, (first_step, rows) in enumerate(segments):
        log.open_segment(i + 1, first_step)
        for each in rows:
            log.append(each)
    log.close()
    return RunDir(folder)


def read(run, created=None) -> Column:
    """The loss, after both readers have told the same."""
    if created is not None:
        run.meta.write_text(f'{{"created": {created}}}')
    exact, series = columns.read(run, created)["loss"], Series(run)
    while series.read():
        pass
    points = series.metrics.curves["loss"].points()
    assert points.step.tolist() == exact.step.tolist()
    assert points.seconds == pytest.approx(exact.seconds)
    return exact


def test_what_rows_say_counts_whatever_the_clock_says(tmp_path):
    times = [5e4, 10.0, 7e8, 3.0, 4.0]
    rows = [row(k, times[k - 1], train_s=2.0 * k, images_per_s=900.0) for k in range(1, 6)]
    assert read(written(tmp_path, (1, rows[:3]), (4, rows[3:]))).seconds.tolist() == [2, 4, 6, 8, 10]


def test_rows_that_were_trained_again_count_as_in_the_last_segment(tmp_path):
    first = [row(k, 100.0 + k, train_s=5.0 * k) for k in range(1, 7)]
    again = [row(k, NIGHT + k, train_s=15.0 + 2.0 * (k - 3)) for k in range(4, 8)]
    assert read(written(tmp_path, (1, first), (4, again))).seconds.tolist() == [5, 10, 15, 17, 19, 21, 23]


def test_speeds_tell_it_where_rows_do_not(tmp_path):
    """A step of 8 images at 4 images a second takes two seconds: neither pause, night nor clock counts."""
    jumps = iter([0.0, 3600.0, -5e5, NIGHT, NIGHT + 1, -1e9])
    first = [row(k, next(jumps), images_per_s=4.0) for k in (2, 4, 6)]
    again = [row(k, next(jumps), images_per_s=8.0) for k in (6, 8, 10)]
    found = read(written(tmp_path, (1, first), (5, again)), created=-50.0)
    assert found.step.tolist() == [2, 4, 6, 8, 10]
    assert found.seconds.tolist() == [4, 8, 10, 12, 14]


def test_rows_without_a_speed_take_that_of_the_next(tmp_path):
    rows = [row(1, 1.0), row(3, 2.0), row(4, 3.0, images_per_s=4.0), row(4, 3e3, sw_1step=1.0), row(6, 9e3)]
    assert read(written(tmp_path, (1, rows))).seconds.tolist() == [2, 6, 8, 8, 12]


def test_without_speeds_the_clock_stands_in(tmp_path):
    first = [row(k, 110.0 + k) for k in (1, 2, 3)]
    again = [row(k, NIGHT + 10 * k) for k in (3, 4)]
    assert read(written(tmp_path, (1, first), (3, again)), created=100.0).seconds.tolist() == [11, 12, 12, 22]


def test_a_run_that_goes_on_with_a_newer_version(tmp_path):
    """What rows say comes after what is estimated of those before, which a resume has counted in."""
    old = [row(k, 1.0 * k, images_per_s=4.0) for k in (2, 4)]
    new = [row(k, NIGHT + k, images_per_s=8.0, train_s=8.0 + (k - 4)) for k in (6, 8)]
    assert read(written(tmp_path, (1, old), (5, new))).seconds.tolist() == [4, 8, 10, 12]


def test_it_never_falls_whatever_rows_hold():
    random = np.random.default_rng(0)
    odd = np.array([np.nan, np.inf, -np.inf, -1.0, 0.0, 1e300, 5e-324, 3.0])
    for _ in range(200):
        seconds, last = Seconds(random.choice([None, 0.0, 1e9])), 0.0
        for _ in range(4):
            rows = {key: random.choice([*odd, *random.normal(size=8)], size=random.integers(0, 6)) for key in KEYS[:1]}
            n = len(rows["step"])
            rows = {key: random.choice([*odd, *random.normal(size=8)], size=n) for key in KEYS}
            found = seconds.at({**rows, "step": np.abs(np.nan_to_num(rows["step"], posinf=7.0, neginf=1.0))})
            assert len(found) == n
            assert (np.diff(found, prepend=last) >= 0).all()
            last = found[-1] if n else last
