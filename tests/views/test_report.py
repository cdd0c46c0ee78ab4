import time
from types import SimpleNamespace

import numpy as np
import pytest

from cmbench import quantities
from cmbench.measures import Floor
from cmbench.views import report
from cmbench.views.lines import Line


def text(rows):
    return ["".join(part for part, _ in row) for row in rows]


def a_view(best=None, floors=None, **status):
    last = {"loss": 0.25, "sw_1step": 0.0123456, "sw_2step": float("nan")}
    return SimpleNamespace(
        status=status,
        run=SimpleNamespace(name="ct_edm-20261122-221503-a3f9"),
        series=SimpleNamespace(behind=0),
        alerts=0,
        last_alert="",
        is_still=status.get("state") != "running",
        last=last,
        best=(best or {}).get,
        floors=floors or {},
    )


def test_every_metric_has_one_chart_the_usual_first():
    keys = sorted(["loss", "lr", "weight", "zeta", "sw_1step", "sw_2step", "alpha", "grad_norm", "images_per_s"])
    groups = quantities.charts(keys)
    assert sorted(key for group in groups for key in group) == keys
    assert groups[:3] == [["loss"], ["grad_norm"], ["weight"]]
    assert ["sw_1step", "sw_2step"] in groups
    assert groups[-2:] == [["alpha"], ["zeta"]]
    assert quantities.charts([]) == []


def test_titles():
    assert quantities.title_of(["grad_norm"]) == "gradient norm"
    assert quantities.title_of(["zeta"]) == "zeta"
    assert quantities.title_of(["sw_1step", "sw_2step"]) == "sliced W2 1 2-step"
    assert quantities.title_of([]) == ""


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], "linear"),
        ([1.0, np.nan, 2.0], "linear"),
        (np.logspace(-3, 0, 50), "log"),
        (np.append(np.logspace(-3, 0, 50), -1), "linear"),
        (np.append(np.ones(1000), 1e6), "linear"),  # one spike
        ([np.nan], "linear"),
        ([1.0, np.inf], "linear"),
    ],
)
def test_log_axes_are_for_positive_values_that_are_far_apart(values, kind):
    assert report.scale_of([Line.of("a", np.arange(len(values)), values)]) == kind


def test_an_axis_suits_all_of_its_lines():
    near, far = (Line.of("a", np.arange(5), np.full(5, value)) for value in (1.0, 1e6))
    assert report.scale_of([near]) == report.scale_of([far]) == report.scale_of([]) == "linear"
    assert report.scale_of([near, far]) == "log"


@pytest.mark.parametrize(("width", "end"), [(None, "jumped in 1 of 32 time bins"), (200, "32 time bins"), (90, "…")])
def test_the_header_tells_the_last_warning_where_there_is_room(width, end):
    view = a_view(state="finished", step=5000, of=5000)
    view.alerts, view.last_alert = 25, "step 2450 tangent norm jumped in 1 of 32 time bins"
    (row,) = text(report.header(view, None, False, False, width=width))
    assert "⚠ 25" in row
    assert "last: step 2450 tangent" in row
    assert row.endswith(end)
    assert width is None or len(row) <= width
    (row,) = text(report.header(view, None, False, False, width=60))
    assert "last" not in row


@pytest.mark.parametrize("ascii", [False, True])
def test_the_header(ascii):
    view = a_view(state="running", step=1500, of=3000, images_per_s=912.3, eta_s=4000, checkpoint=1000)
    view.alerts, view.series.behind = 2, 5_000_000
    (row,) = text(report.header(view, 4100.0, False, ascii))
    for part in ("ct_edm", "running", "1,500/3,000 50%", "910 images/s", "eta 1h07m", "ckpt 1000", "5 MB", "4.1 kB/s"):
        assert part in row
    assert not ascii or row.replace("·", "").isascii()
    (row,) = text(report.header(a_view(), None, False, ascii))
    assert "starting" in row
    assert "step 0" in row
    (row,) = text(report.header(a_view(state="finished", step=5, of=0, images_per_s=9, eta_s=9), None, False, ascii))
    assert "images/s" not in row
    assert "eta" not in row


def test_the_header_says_what_matters_first():
    view = a_view(state="running", step=214, of=100_000, images_per_s=912.3, eta_s=4000, checkpoint=200)
    view.alerts = 2
    (row,) = text(report.header(view, 4100.0, False, False, width=80))
    assert row == " ct_edm·a3f9  ● running  ⚠ 2  214/100k  eta 1h07m  ckpt 200  910 images/s  4.1 kB/s"
    (row,) = text(report.header(view, 4100.0, False, False, width=100))
    assert "  step 214/100,000 0%  eta 1h07m" in row
    assert row.endswith("  screen 4.1 kB/s")
    view.status["train_s"] = 3700.0
    (row,) = text(report.header(view, None, False, False, width=100))
    assert "  eta 1h07m  trained 1h02m  ckpt 200" in row


def test_the_header_tells_of_several_ranks():
    view = a_view(state="running", step=214, of=100_000, images_per_s=9120.0, ranks=8)
    for width in (80, 160, None):
        (row,) = text(report.header(view, None, False, False, width=width))
        assert "  8 ranks  " in row
        assert row.endswith("  9120 images/s")
    view.status["ranks"] = 1
    assert "rank" not in text(report.header(view, None, False, False))[0]


@pytest.mark.parametrize(("ascii", "gap"), [(False, "…"), (True, "~")])
def test_a_long_name_keeps_the_letters_by_which_runs_differ(ascii, gap):
    view = a_view(state="running", step=214, of=100_000)
    view.run.name = "a_name_that_says_very_much_of_its_settings-20261122-221503-a3f9"
    (row,) = text(report.header(view, None, False, ascii, width=80))
    assert row.startswith(f" a_name_that_says_very{gap}a3f9  ")
    assert "running  214/100k" in row


@pytest.mark.parametrize(("state", "is_frozen"), [("paused", False), ("stopped", False), ("running", True)])
def test_no_rate_is_told_where_nothing_is_sent(state, is_frozen):
    (row,) = text(report.header(a_view(state=state), 86_100.0, is_frozen, False))
    assert "kB/s" not in row
    assert ("frozen" in row) == is_frozen


def test_notes_and_best():
    view = a_view(best={"sw_1step": (0.01, 1200)})
    assert report.note_of(view, ["loss"]) == "0.25"
    assert report.note_of(view, ["sw_1step", "sw_2step"]) == "0.01235 nan  best 0.01 @1200"
    view.last = {"sw_1step": 0.05, "sw_2step": 0.03}
    assert report.note_of(view, ["sw_1step", "sw_2step"]) == "0.05 0.03  best 0.01 @1200  gap 0.02"
    assert report.note_of(view, []) == report.note_of(view, ["unknown"]) == ""


@pytest.mark.parametrize(("ascii", "signs"), [(False, "≈±"), (True, ["~", "+-"])])
def test_notes_beside_a_floor_mark_what_is_within(ascii, signs):
    view = a_view(best={"sw_1step": (0.01, 1200)}, floors={"sw": Floor(0.011, 0.001, 20)})
    mark, plus_minus = signs
    expected = f"0.01235 nan  floor 0.011 {plus_minus} 0.001  best 0.01 {mark} @1200"
    assert report.note_of(view, ["sw_1step", "sw_2step"], ascii) == expected


def test_the_journal_in_words():
    rows = [
        {"kind": "warning", "step": 3, "text": "odd", "time": 0},
        {"kind": "checkpoint", "step": 4, "folder": "checkpoints/00000004", "best": True},
        {"kind": "request", "step": 5, "action": "set", "settings": {"lr": 0.1}, "result": "done"},
        {"kind": "request", "step": 5, "action": "pause", "result": "refused: no"},
        {"kind": "diverged", "step": 6, "what": "loss"},
        {"kind": "failed", "error": None, "replayed": True},
        {},
    ]
    lines = ["".join(parts[1:]) for parts in [[part for part, _ in row] for row in report.journal(rows)]]
    assert lines == [
        "3 warning: odd",
        "4 checkpoint 00000004 (best)",
        "5 set: done (lr=0.1)",
        "5 pause: refused: no",
        "6 diverged: the loss of the next step is not finite",
        "? failed: None",
        "? ?",
    ]
    shown = report.journal(rows)
    assert text(shown)[0] == time.strftime("%m-%d %H:%M:%S ", time.localtime(0)) + lines[0]
    assert [row[1][1] for row in shown] == ["warning", "", "strong", "strong", "error", "error", ""]


def test_long_lines_go_on_under_their_own_beginning():
    rows = [[("12:00:00 ", "muted"), ("30 warning of many words\n", "warning")], [("short", "")], [("x" * 25, "")]]
    assert text(report.wrapped(rows, 20)) == [
        "12:00:00 30 warning ",
        "         of many ",
        "         words␊",
        "short",
        "x" * 20,
        "x" * 5,
    ]
    assert report.wrapped(rows, 200) == rows
    assert {pen for row in report.wrapped(rows, 20)[:3] for _, pen in row} == {"muted", "warning", ""}
    assert all(len(line) <= 10 for line in text(report.wrapped(rows, 1)))


def test_a_filter_is_told_in_few_columns():
    (row,) = text(report.header(a_view(state="running"), None, False, False, 80, "^(loss|tangent_norm|weight)$"))
    assert "  /^(loss|tangent_nor../" in row
