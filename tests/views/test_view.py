"""A view of a run never raises, whatever its files hold, and shows what makes sense of them."""

import os
import shutil
import sys
import threading

import numpy as np
import pytest
from live_runs import BINS, CREATED, RECIPE, add, event, live_run, metrics, profile, write_status

from cmbench import quantities
from cmbench.rundir.files import to_json
from cmbench.views import report
from cmbench.views.axes import OF_RUNS
from cmbench.views.run import RunView


@pytest.fixture
def run(tmp_path):
    return live_run(tmp_path)


def read(run) -> RunView:
    view = RunView(run)
    while view.read():
        pass
    return view


def everything(view: RunView) -> str:
    """Ask for all that screens ask for."""
    rows = [*report.header(view, 1.0, False, False, 80), *report.journal(list(view.series.journal.rows))]
    rows += report.sparks(view, quantities.charts(view.keys), False)
    for axis in OF_RUNS:
        view.marks(axis)
        view.x_end(axis)
        view.x_start(axis)
        for key in [*view.keys, "nothing"]:
            view.line(key, axis)
            report.note_of(view, [key])
    return "\n".join("".join(text for text, _ in row) for row in rows) + "\n".join(view.console())


def test_what_changed_is_told_once(run):
    view = RunView(run)
    assert view.read() == {"recipe", "status", "rows", "console"}
    assert view.read() == set()
    add(run.metrics, metrics(41))
    assert view.read() == {"rows"}
    run.console.write_text("more\n")
    assert view.read() == {"console"}
    write_status(run, step=41)
    assert view.read() == {"status"}
    write_status(run, step=41)  # a heartbeat alone
    assert view.read() == set()


def test_axes(run):
    view = read(run)
    assert view.line("loss", "step").x[-1] == 40
    assert view.line("loss", "images").x[-1] == 40 * 32
    assert view.line("loss", "time").x[-1] == 40
    assert (view.x_start("time"), view.x_start("wall")) == (0, CREATED)
    assert view.line("loss", "wall").x[-1] == CREATED + 40
    assert (view.x_end("step"), view.x_end("images"), view.x_end("time")) == (1000, 32_000, None)
    add(run.events, event(40, "request", action="pause", result="done"))
    view.read()
    assert [(mark.x, mark.sign, mark.is_bad) for mark in view.marks("images")] == [
        (640, "c", False),
        (1280, "!", False),
        (960, "w", True),
    ]


def test_of_marks_in_one_place_the_one_that_says_most_comes_last(run):
    stop = event(40, "request", action="stop", result="done")
    add(run.events, event(40, "diverged"), stop, event(40, "checkpoint"), event(40, "resumed"), event(40, "snapshot"))
    marks = [mark for mark in read(run).marks("step") if mark.x == 40]
    assert "".join(mark.sign for mark in marks) == "c!rx"
    assert [mark.is_quiet for mark in marks] == [True, False, False, False]


def test_of_many_checkpoints_some_are_marked_and_always_the_same(run):
    view, before = read(run), {20}
    for step in range(41, 1000):
        add(run.events, event(step, "checkpoint"))
        view.read()
        marks = {mark.x for mark in view.marks("step") if mark.sign == "c"}
        assert 8 <= len(marks) <= 16 or step < 60
        assert marks <= before | {step}
        before = marks


def test_a_recipe_that_was_half_written_is_read_again(run):
    run.recipe.write_bytes(b"\xff\xfe[train")
    view = read(run)
    assert view.recipe is None
    assert view.line("loss", "images").x[-1] == 40
    run.recipe.write_text(RECIPE)
    assert "recipe" in view.read()
    assert view.recipe.train.batch_size == 32


def test_a_recipe_is_read_beside_a_damaged_meta(run):
    run.meta.write_bytes(b"{")
    view = read(run)
    assert view.recipe.train.batch_size == 32
    assert view.edges == []


@pytest.mark.parametrize(
    "now",
    [
        b"",
        b"[]",
        b"{",
        to_json({"state": [], "step": "many", "of": "all", "best": 3, "last": [], "eta_s": {}, "checkpoint": "x"}),
        to_json({"state": "running", "of": {}, "images_per_s": "fast", "best": {"sw_1step": 3, "loss": {"value": []}}}),
        to_json({"state": "unheard", "pid": 2**62, "pid_start": 0.0, "host": 5, "best": {"sw_1step": {"value": 1}}}),
        to_json({"state": "running", "pid": 2**62, "pid_start": 0.0, "host": os.uname().nodename}),
    ],
)
def test_a_status_that_is_none(run, now):
    run.status.write_bytes(now)
    view = read(run)
    assert "live·000a" in everything(view)
    assert view.best("sw_1step") is None
    assert view.keys  # the curves do not depend on it


@pytest.mark.parametrize("meta", [b"", b"7", b'{"profile_edges": {}}', b'{"profile_edges": ["a"], "created": "now"}'])
def test_a_meta_that_is_none(run, meta):
    run.meta.write_bytes(meta)
    view = read(run)
    everything(view)
    assert view.edges == []
    assert view.line("loss", "time").x[-1] == 39  # since the first row, for nothing is known of a start
    assert view.x_start("wall") == CREATED + 1


BROKEN = [
    b"\x00\xff\n",
    b"17\n",
    {},
    {"step": 50},
    {"step": "50", "time": CREATED, "loss": 1.0, "kind": "warning"},
    {"step": 2**63, "time": CREATED, "loss": 1.0, "kind": "snapshot", "files": 3},
    {"step": None, "time": None, "kind": ["list"]},
    {"first_step": "soon"},
    {"first_step": None},
    metrics(51, loss="high", grad_norm=[1, 2], lr={"a": 1}, weight=[[1]], nonfinite=3, kind="request", settings=7),
    metrics(52, loss=None, nonfinite={"loss": "strange"}, kind="failed"),
    profile(53, tangent_norm=["a"], loss=[[1.0]], anatomy_stable=[], kind={}),
    event(54, "snapshot", files=None, folder=3, best=3),
    event(55, "warning", time="noon"),
    event(56, "diverged", time=1e300),
    event(57, "request", time=None),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_rows_that_are_none_are_passed_over(run, broken):
    for path, row in ((run.metrics, metrics(60)), (run.profiles, profile(60)), (run.events, event(60, "finished"))):
        add(path, broken, row)
    view = read(run)
    text = everything(view)
    assert view.line("loss", "step").x[-1] == 60
    assert view.series.profiles.rows["tangent_norm"][-1][0] == 60
    assert len(view.series.profiles.rows["tangent_norm"][-1][1]) == BINS
    assert "60 finished" in text
    assert 50 not in view.line("loss", "step").x


def test_a_value_beyond_the_floats_of_a_curve_is_finite_all_the_same(run):
    add(run.metrics, metrics(41, loss=1e300), metrics(42, loss=None, nonfinite={"loss": "inf"}), metrics(43))
    view = read(run)
    line = view.line("loss", "step")
    assert line.bad[-3:].tolist() == [False, True, False]
    assert line.low[-3] == line.high[-3] == line.mean[-3] > 1e38
    assert np.isfinite(line.high[-3:]).tolist() == [True, False, True]
    assert report.scale_of([line])
    assert everything(view)


def test_a_resumed_run_has_no_row_twice(run):
    add(run.metrics, {"segment": 2, "first_step": 21}, metrics(21, loss=7.0))
    add(run.events, {"segment": 2, "first_step": 21}, {"kind": "resumed"}, {"first_step": 1}, event(1, "started"))
    view = read(run)
    assert view.line("loss", "step").x[-1] == 21
    assert [row["kind"] for row in view.series.journal.rows] == ["resumed", "started"]


def test_bins_of_another_length_begin_anew(run):
    add(run.profiles, profile(45, bins=3))
    view = read(run)
    (row,) = view.series.profiles.rows["tangent_norm"]
    assert row[0] == 45
    assert len(row[1]) == 3


def test_a_run_that_vanishes_stays_as_it_was_seen(run):
    view = read(run)
    shutil.rmtree(run.path)
    assert view.read() == {"status"}
    assert view.read() == set()
    assert view.line("loss", "step").x[-1] == 40
    for words in ("✖ folder is gone", "40/1k", "ckpt 20"):
        assert words in everything(view)
    assert (view.is_here, view.is_still, view.best("sw_1step")) == (True, True, (0.04, 20))


def test_a_run_that_comes_back_is_seen_again(run):
    view, elsewhere = read(run), run.path.with_name("elsewhere")
    run.path.rename(elsewhere)
    view.read()
    elsewhere.rename(run.path)
    assert "status" in view.read()
    assert "running" in everything(view)


def test_nothing_is_waited_for_in_a_file_that_vanishes_half_read(run):
    view = RunView(run)
    reader = view.series.metrics.reader
    reader._size = 10**9  # as if it had been seen long
    run.metrics.unlink()
    view.read()
    assert view.series.behind == 0


@pytest.fixture
def often():
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_reader_goes_on_while_it_is_drawn(run, often):
    """Both in one file: what is drawn is of one moment, however often the buckets are halved meanwhile."""
    view, stop, wrong = read(run), threading.Event(), []
    text = b"".join(to_json(metrics(i, loss=float(i))) + b"\n" for i in range(41, 60_000))

    def look() -> None:
        try:
            while not stop.is_set():
                line = view.line("loss", "step")
                sizes = {len(line.x), len(line.low), len(line.high), len(line.mean), len(line.count), len(line.bad)}
                if len(sizes) > 1 or (np.diff(line.x) <= 0)[41:].any():
                    wrong.append(sizes)
                view.marks("step"), view.alerts, view.keys, view.last
        except Exception as error:
            wrong.append(error)

    drawing = threading.Thread(target=look)
    drawing.start()
    add(run.metrics, text)
    while view.read():
        pass
    stop.set()
    drawing.join()
    assert wrong == []
    assert view.line("loss", "step").x[-1] == 59_999


def test_a_line_waits_for_the_piece_that_is_read(run, monkeypatch):
    view, begun, go, drawn = read(run), threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(view.series, "read", lambda: begun.set() or (go.wait() and False))
    threads = [
        threading.Thread(target=view.read),
        threading.Thread(target=lambda: view.line("loss", "step") and drawn.set()),
    ]
    threads[0].start()
    begun.wait()
    threads[1].start()
    assert not drawn.wait(0.2)
    go.set()
    assert drawn.wait(60)
    for thread in threads:
        thread.join()


def test_forward_passes_are_an_axis(tmp_path):
    """32 images a step, 4 forward passes an image: steps of 128."""
    run = live_run(tmp_path, rows=0)
    add(run.metrics, *(metrics(step, forwards_per_image=4.0) for step in (1, 2)))
    view = RunView(run)
    view.read()
    assert view.line("loss", "forwards").x.tolist()[-2:] == [128, 256]
    assert view.x_end("forwards") == 128_000


def test_schedules_have_no_average(run):
    add(
        run.metrics, metrics(41, N=10, mu=0.9, stage=1, forwards=9.0, forwards_with_teacher=9.0, forwards_per_image=4.0)
    )
    view = read(run)
    averaged = {key for key in view.keys if view.line(key, "step").smooth}
    assert averaged == {"loss", "tangent_norm", "grad_norm", "weight", "images_per_s", "sw_1step", "sw_2step"}


def test_training_time_goes_on_over_a_night_and_wall_time_tells_it(run):
    night = 1e5
    add(run.metrics, {"segment": 2, "first_step": 41})
    add(run.metrics, *(metrics(k, time=CREATED + night + k, train_s=30.0 + k, segment=2) for k in range(41, 44)))
    add(run.events, {"segment": 2, "first_step": 41}, {**event(42, "checkpoint"), "train_s": 72.5})
    add(run.events, {**event(43, "warning"), "time": CREATED + night + 43})
    view = read(run)
    assert view.line("loss", "time").x[-4:].tolist() == [40, 71, 72, 73]
    assert view.line("loss", "wall").x[-2:].tolist() == [CREATED + night + 42, CREATED + night + 43]
    assert [mark.x for mark in view.marks("time")] == [20, 72.5, 30, 73]  # told, or that of the step
    assert view.marks("wall")[-1].x == CREATED + night + 43
    assert view.x_end("time") is view.x_end("wall") is None


def test_a_clock_that_is_set_back_moves_no_row_from_its_time(run):
    add(run.metrics, *(metrics(40 + k, time=CREATED + 20.5 + k, loss=100.0 + k) for k in range(1, 4)))
    line = read(run).line("loss", "wall")
    assert (np.diff(line.x) >= 0).all()
    for k in range(1, 4):
        assert line.mean[line.x == CREATED + 20.5 + k].tolist() == [100.0 + k]
