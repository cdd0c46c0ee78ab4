"""Long work shows how far it is: a bar on a terminal, lines now and then elsewhere."""

import sys

import pytest

from cmbench import progress
from cmbench.cli import _progress


def on_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")


def test_figures_are_shown_on_a_terminal_alone(capsys):
    with _progress.shown("reading") as told:
        told.expect(2)
        told.begin("recall")
    assert capsys.readouterr().err == ""


def test_a_bar_names_the_figure_at_work_and_counts_those_before_it(monkeypatch, capsys):
    on_terminal(monkeypatch)
    with _progress.shown("reading") as told:
        assert progress.told() is told
        told.expect(2)
        told.begin("recall")
        told.begin("floor of recall")
    seen = capsys.readouterr().err
    assert "floor of recall" in seen
    assert "1/2" in seen
    assert progress.told() is not told


def test_a_bar_counts_what_there_is_much_of(monkeypatch, capsys):
    on_terminal(monkeypatch)
    with _progress.shown(), progress.told().counting("decoding pictures", 200) as count:
        count(120)
    seen = capsys.readouterr().err
    assert "decoding pictures" in seen
    assert "120/200" in seen


def test_nothing_is_shown_where_nothing_is_told(monkeypatch, capsys):
    on_terminal(monkeypatch)
    with _progress.shown():
        pass
    assert "decoding" not in capsys.readouterr().err


@pytest.mark.parametrize(("pause", "lines"), [(0.0, ["decoding: 30 of 200", "decoding: 200 of 200"]), (600.0, [])])
def test_elsewhere_a_line_comes_after_a_pause(monkeypatch, capsys, pause, lines):
    monkeypatch.setattr(_progress, "_PAUSE", pause)
    with _progress.shown(), progress.told().counting("decoding", 200) as count:
        count(30)
        count(170)
    assert capsys.readouterr().err.splitlines() == lines


def test_a_detached_trainer_says_so_more_often(monkeypatch, capsys):
    monkeypatch.setenv("CMBENCH_HANDSHAKE", "9:/nowhere")
    monkeypatch.setattr(_progress, "_PAUSE_SEEN", 0.0)
    with _progress.shown(), progress.told().counting("decoding", 2) as count:
        count(1)
    assert capsys.readouterr().err == "decoding: 1 of 2\n"
