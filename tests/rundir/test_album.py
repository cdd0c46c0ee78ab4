import os

import pytest

from cmbench.rundir.layout import create
from cmbench.rundir.log import Log
from cmbench.rundir.snapshots import Album, AlbumReader


@pytest.fixture
def run(tmp_path):
    return create(tmp_path, "digits")


def draw(run, step, *sampler_steps, ending="png"):
    for k in sampler_steps:
        (run.snapshots / f"{step:08d}_{k}step.{ending}").write_bytes(b"x")


def journal(path, *rows):
    log = Log(path)
    log.open_segment(log.last_segment() + 1, rows[0]["step"])
    for row in rows:
        log.append(row)
    log.close()


def test_a_run_without_snapshots_has_an_empty_album(run):
    assert AlbumReader(run).read() == Album()
    run.snapshots.rmdir()
    assert AlbumReader(run).read().steps == []
    assert Album().best is Album().nearest(5) is None


def test_files_are_found_by_step_and_sampler_steps(run):
    draw(run, 1000, 4, 1)
    draw(run, 500, 1)
    draw(run, 500, 1, ending="safetensors")
    (run.snapshots / ".00000700_1step.png.12.tmp").write_bytes(b"half")
    (run.snapshots / "notes.png").write_bytes(b"x")
    (run.snapshots / "00000600_1step.png").mkdir()
    os.mkfifo(run.snapshots / "00000700_1step.png")
    album = AlbumReader(run).read()
    assert album.steps == [500, 1000]
    assert album.sampler_steps == [1, 4]
    assert album.files[500][1].points == run.snapshots / "00000500_1step.safetensors"
    assert album.files[1000][4].picture == run.snapshots / "00001000_4step.png"
    assert album.files[1000][4].points is None


def test_an_album_differs_only_if_something_changed(run):
    draw(run, 500, 1)
    reader = AlbumReader(run)
    album = reader.read()
    assert reader.read() == album
    os.utime(album.files[500][1].picture, ns=(1, 1))  # written again
    assert reader.read() != album


def test_quality_is_read_as_it_grows_and_of_the_newest_segment(run):
    reader = AlbumReader(run)
    journal(run.metrics, {"step": 500, "loss": 1.0}, {"step": 500, "sw_1step": 0.3, "sw_2step": 0.2, "true_error": 9.0})
    assert reader.read().quality == {500: {1: 0.3, 2: 0.2}}
    journal(run.metrics, {"step": 400, "sw_1step": 0.5}, {"step": 600, "sw_1step": float("nan")})
    assert reader.read().quality == {400: {1: 0.5}}
    with run.metrics.open("ab") as file:
        file.write(b'{"sw_1step":1}\n{"step":"x","sw_1step":1}\n{"step":700,"sw_1st')
    assert reader.read().quality == {400: {1: 0.5}}


def test_best_is_the_journals_or_the_lowest_quality_of_a_snapshot(run):
    for step in (1, 2, 3):
        draw(run, step, 1)
    journal(run.metrics, *({"step": s, "sw_1step": v} for s, v in ((1, 0.3), (2, 0.1), (3, 0.2), (4, 0.01))))
    reader = AlbumReader(run)
    assert reader.read().best == 2
    rows = ({"step": s, "kind": "checkpoint", "best": best} for s, best in ((1, True), (3, True), (4, False)))
    journal(run.events, *rows)
    assert reader.read().best == 3


def test_what_f_answered_is_found_beside_the_places_where_it_was_asked(run):
    draw(run, 500, 1)
    for name in ("00000500_film", "00000500_plane", "00000700_film", "500_other"):
        (run.snapshots / f"{name}.safetensors").write_bytes(b"x")
    reader = AlbumReader(run)
    assert reader.read().films == reader.read().planes == {}
    (run.snapshots / "fixed.safetensors").write_bytes(b"x")
    album = reader.read()
    assert list(album.films) == [500, 700]
    assert list(album.planes) == album.steps == [500]
    assert album.films[500].answers == run.snapshots / "00000500_film.safetensors"
    os.utime(run.snapshots / "fixed.safetensors", ns=(1, 1))  # written again
    assert reader.read() != album


def test_nearest():
    album = Album({10: {}, 20: {}, 40: {}})
    assert [album.nearest(step) for step in (0, 15, 16, 29, 99)] == [10, 10, 20, 20, 40]


@pytest.mark.parametrize(("key", "best"), [("fd_1step", 1), ("precision_1step", 2)])
def test_best_is_by_what_is_better_for_its_measure(run, key, best):
    for step in (1, 2):
        draw(run, step, 1)
    journal(run.metrics, *({"step": s, key: v, "nn_1step": 9 - s} for s, v in ((1, 0.25), (2, 0.5))))
    album = AlbumReader(run).read()
    assert (album.measure, album.best) == (key.removesuffix("_1step"), best)
    assert album.quality == {1: {1: 0.25}, 2: {1: 0.5}}
