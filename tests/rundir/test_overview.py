"""A glance tells what status and annotations say, and is the same object until they say something else."""

import time

import pytest
from fake_runs import fake_run, write_status

from cmbench.rundir import overview, status
from cmbench.rundir.annotations import annotate
from cmbench.rundir.fields import number_of
from cmbench.rundir.overview import Overview
from cmbench.rundir.trash import trash


def test_a_glance_tells_of_a_run(tmp_path):
    before = time.time()
    run = fake_run(tmp_path, "a-1", age=50, step=7, of=90, loss=-0.25, sw=0.125, note="n", tags=["t"])
    (glance,) = Overview(tmp_path).read()
    assert (glance.run, glance.name, glance.state, glance.is_live) == (run, "a-1", "finished", False)
    assert (glance.step, glance.of, glance.loss, glance.quality) == (7, 90, -0.25, 0.125)
    assert (glance.written.note, glance.written.tags) == ("n", ("t",))
    assert before <= glance.heartbeat + 50 <= time.time()


@pytest.mark.parametrize(
    ("best", "quality"),
    [
        ({}, None),
        ({"true_error": {"value": 0.1}}, None),
        ({"true_error": {"value": 0.1}, "sw_4step": {"value": 0.2}, "sw_2step": {"value": 0.3}}, 0.3),
        ({"coverage_1step": {"value": 0.8}, "precision_1step": {"value": 0.7}}, 0.7),
        ({"sw_2step": {"value": 0.3}, "sw_1step": {"value": 0.4}}, 0.4),
        ({"sw_1step": {"value": None}, "sw_2step": {"value": 0.3}}, 0.3),
    ],
)
def test_quality_is_that_of_the_first_measure_and_the_fewest_steps(tmp_path, best, quality):
    fake_run(tmp_path, "a-1", best=best)
    assert Overview(tmp_path).read()[0].quality == quality


def test_only_what_changed_is_read_again(tmp_path, monkeypatch):
    changed, same = fake_run(tmp_path, "a-1", age=20), fake_run(tmp_path, "b-2", age=10)
    seen = Overview(tmp_path)
    first = seen.read()
    read, asked = overview.read_json, []
    monkeypatch.setattr(overview, "read_json", lambda path: (asked.append(path), read(path))[1])
    assert all(a is b for a, b in zip(first, seen.read(anew=True), strict=True))
    assert asked == []
    write_status(changed, step=55)
    second = seen.read(anew=True)
    assert asked == [str(changed.status)]
    assert second[0].step == 55
    assert second[1] is first[1]
    annotate(same, note="new")
    assert seen.read(anew=True)[1].written.note == "new"


def test_live_runs_are_looked_at_each_time_and_others_with_the_list(tmp_path):
    live, dead = fake_run(tmp_path, "a-1", age=20, state="running"), fake_run(tmp_path, "b-2", age=10)
    seen = Overview(tmp_path, list_every=1000)
    seen.read()
    for run in (live, dead):
        write_status(run, state="running", step=55)
    assert [glance.step for glance in seen.read()] == [55, 100]
    assert [glance.step for glance in seen.read(anew=True)] == [55, 55]


def test_runs_come_and_go_with_the_next_list(tmp_path):
    first = fake_run(tmp_path, "a-1", age=20)
    seen = Overview(tmp_path, list_every=1000)
    assert [glance.run for glance in seen.read()] == [first]
    second = fake_run(tmp_path, "b-2")
    assert [glance.run for glance in seen.read()] == [first]
    assert [glance.run for glance in seen.read(anew=True)] == [first, second]
    trash(first)
    assert [glance.run for glance in seen.read(anew=True)] == [second]
    assert [glance.run for glance in Overview(tmp_path, list_every=0).read()] == [second]


def test_a_run_that_is_moved_away_while_it_is_read_is_gone(tmp_path, monkeypatch):
    kept, moved = fake_run(tmp_path, "a-1"), fake_run(tmp_path, "b-1")
    seen = Overview(tmp_path)
    assert len(seen.read()) == 2
    listed = overview.all_runs(tmp_path)
    trash(moved)
    monkeypatch.setattr(overview, "all_runs", lambda folder: listed)
    assert [glance.run for glance in seen.read(anew=True)] == [kept]


def test_a_trainer_that_dies_without_a_word_is_seen(tmp_path, monkeypatch):
    fake_run(tmp_path, "a-1", state="running")
    seen = Overview(tmp_path)
    (glance,) = seen.read()
    assert (glance.state, glance.is_live) == ("running", True)
    monkeypatch.setattr(status, "_is_running", lambda now: False)
    (glance,) = seen.read()
    assert (glance.state, glance.is_live) == ("crashed", False)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"state": 3, "step": "x", "of": [], "last": [1], "best": 2, "heartbeat": "now"}',
        b'{"state": "running", "pid": "x", "host": "HOST"}',
        b'{"state": "running", "pid": -1, "pid_start": 0, "host": "HOST"}',
        b'{"state": "running", "pid": 18446744073709551615, "pid_start": 0, "host": "HOST"}',
        b'{"state": "finished", "last": {"loss": "x"}, "best": {"sw_1step": 3, "sw_2step": {"value": "x"}}}',
        b'{"state": "finished", "step": 1e999}',
    ],
)
def test_a_damaged_status_is_a_row_all_the_same(tmp_path, content):
    run = fake_run(tmp_path, "a-1")
    run.status.write_bytes(content.replace(b"HOST", status.owner()["host"].encode()))
    (glance,) = Overview(tmp_path).read()
    assert glance.state in ("starting", "crashed", "finished", "unreadable")
    assert (glance.step, glance.of, glance.loss, glance.quality) == (0, None, None, None)
    assert status.read(run)["state"] == glance.state


def test_numbers_are_finite_numbers():
    assert [number_of(v) for v in (1, 2.5, None, "1", float("nan"), float("inf"), [])] == [1, 2.5] + 5 * [None]


def test_a_folder_that_is_not_there_has_no_runs(tmp_path):
    assert Overview(tmp_path / "gone").read() == []
