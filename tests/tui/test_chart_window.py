"""What part of its lines a chart shows, without a widget."""

import numpy as np
import pytest

from cmbench.tui.widgets.chart_window import Smoothing, Window, XAxis
from cmbench.views.axes import Scale
from cmbench.views.lines import Line
from cmbench.views.smoothing import SMOOTHINGS, USUAL

RNG = np.random.default_rng(0)


def window_of(n=1000, **axis):
    window = Window("loss", Scale(), XAxis(**axis), Smoothing())
    x = np.arange(n, dtype=float)
    window.lines = [Line.of("a", x, RNG.normal(size=n))]
    return window


def test_zoom_and_pan_stay_within_the_axis():
    window = window_of()
    start, end = window.whole_x()
    for _ in range(100):
        match RNG.integers(3):
            case 0:
                window.zoom(float(RNG.choice([0.5, 2.0])))
            case 1:
                window.pan(float(RNG.choice([-0.25, 0.25])))
            case 2:
                window.cursor = window.row_beside(int(RNG.choice([-10, 10, 500, -500])), 50)
        low, high = window.x_ends()
        assert start <= low < high <= end
    for _ in range(40):
        before = window.x_ends()
        window.zoom(0.5)
        low, high = window.x_ends()
        assert high - low <= before[1] - before[0]  # zooming in never zooms out
    window.cursor, window.x_zoom = 0.5 * end, (0.5 * end, 0.9 * end)
    window.zoom(2.0)
    low, high = window.x_ends()
    assert high - low == pytest.approx(0.8 * end)
    assert high <= end
    for _ in range(40):
        window.zoom(2.0)
    assert window.x_zoom is None
    assert not window.pan(0.25)


def test_a_still_run_fills_the_width_and_all_charts_of_it_end_together():
    window = window_of(101, end=1000.0)
    assert window.x_ends() == (0, 150)
    window.x = XAxis(end=120.0, is_still=True)
    assert window.x_ends() == (0, 120)
    window.x = XAxis(is_still=True)
    assert window.x_ends() == (0, 100)


def test_averages_go_round_for_all_or_for_one_title():
    shared = Smoothing()
    one, other = (Window(title, Scale(), XAxis(), shared) for title in ("one", "other"))
    assert one.strength == other.strength == USUAL
    seen = []
    for _ in SMOOTHINGS:
        shared.next_alone("one")
        seen.append(one.strength)
        assert other.strength == USUAL
    assert sorted(seen) == sorted(SMOOTHINGS)
    assert shared.alone == {}  # that of all again
    shared.next_alone("one")
    shared.next_of_all("other")
    assert one.strength != USUAL
    shared.next_of_all("one")
    assert one.strength == other.strength == shared.of_all
    assert Window("none", Scale(), XAxis(), None).strength == 0


def test_a_linear_axis_becomes_a_log_one_unless_the_user_chose_it():
    window = Window("loss", Scale(), XAxis(), None)
    window.widen("linear")
    assert window.scale.kind == "linear"
    window.widen("log")
    window.widen("linear")
    assert window.scale.kind == "log"
    for _ in range(2):
        window.next_scale()
    window.widen("log")
    assert window.scale.kind == "linear"
    window.begin("other", Scale())
    window.widen("log")
    assert window.scale.kind == "log"
