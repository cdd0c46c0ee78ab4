"""The course of a loss, whole or looked at in places, is that of the rows that count."""

import pytest
from fake_runs import fake_run

from cmbench.rundir import losses
from cmbench.rundir.files import to_json
from cmbench.rundir.losses import course


def write(run, rows):
    run.metrics.write_bytes(b"".join(to_json(row) + b"\n" for row in rows))


@pytest.fixture
def run(tmp_path):
    return fake_run(tmp_path, "a-1")


def test_a_short_course_is_every_loss(run):
    write(run, [{"step": 1, "loss": 3.0}, {"step": 1, "sw_1step": 9.0}, {"step": 2, "loss": 1.0}])
    assert course(run, 8) == [3.0, 1.0]


def test_a_longer_one_is_means_of_parts(run):
    write(run, [{"step": i, "loss": float(i)} for i in range(1, 9)])
    assert course(run, 4) == [1.5, 3.5, 5.5, 7.5]
    assert course(run, 3) == [1.5, 4.0, 7.0]


def test_what_was_trained_again_does_not_count(run):
    write(
        run,
        [{"segment": 1, "first_step": 1}]
        + [{"step": i, "loss": 100.0} for i in (1, 2, 3, 4)]
        + [{"segment": 2, "first_step": 3}]
        + [{"step": i, "loss": 1.0} for i in (3, 4)],
    )
    assert course(run, 8) == [100.0, 100.0, 1.0, 1.0]


def test_a_loss_that_was_not_finite_is_a_gap(run):
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None, "nonfinite": {"loss": "nan"}}, {"step": 3, "loss": 4.0}]
    write(run, rows)
    assert course(run, 8) == [2.0, None, 4.0]
    assert course(run, 2) == [2.0, 4.0]


def test_of_a_long_log_a_few_blocks_are_read(run):
    write(run, [{"step": i, "loss": float(i), "filling": "x" * 300} for i in range(1, 4001)])
    found = course(run, 10)
    assert found == pytest.approx([400.0 * i for i in range(1, 11)], abs=30)
    assert found == sorted(found)


def test_half_a_line_is_no_row(run, monkeypatch):
    """A block may begin within a line, whose rest may be a row of its own."""
    monkeypatch.setattr(losses, "_BLOCK", 100)
    monkeypatch.setattr(losses, "_LARGEST_BLOCK", 100)
    inner = to_json({"step": 1, "loss": 99.0})
    run.metrics.write_bytes(b"x" * 140_000 + b"\n" + b" " * 90 + inner + b"\n")
    assert course(run, 1) == []


def test_damage_is_passed_over(run):
    run.metrics.write_bytes(b'{"loss": 1}\n{"step": 1, "loss": 2}\n{"step": 2, "loss": "x"}\n[3]\nxx\n{"step": 3, "lo')
    assert course(run, 8) == [2.0, None]
    run.metrics.write_bytes(b"x" * 300_000)
    assert course(run, 8) == []
    run.metrics.unlink()
    assert course(run, 8) == []
