import numpy as np
import pytest
from live_runs import BINS, CREATED, add, live_run, profile

from cmbench.rundir.files import to_json
from cmbench.tui.profile_lines import overlays
from cmbench.views.run import RunView

TIMES = [float(i) for i in range(BINS + 1)]
LEVELS = np.geomspace(0.01, 100, BINS + 1).tolist()
LOOKS = [(0, "solid", "A"), (1, "dashed", "B")]


@pytest.fixture
def found(tmp_path):
    """What gives the overlays of two runs by what their meta.json says."""

    def of(*metas, **rows):
        views = []
        for letter, meta in zip("ab", metas, strict=True):
            run = live_run(tmp_path, f"live-20260101-000000-000{letter}")
            run.meta.write_bytes(to_json({"created": CREATED, **meta}))
            add(run.profiles, profile(45, **rows))
            views.append(RunView(run))
            while views[-1].read():
                pass
        return overlays(views, LOOKS)

    return of


def meta(times=TIMES, levels=None):
    return {"profile_edges": times} | ({} if levels is None else {"profile_noise_levels": levels})


def test_they_lie_over_the_noise_level_where_all_runs_say_it(found):
    shown = found(meta(levels=LEVELS), meta([t / 9 for t in TIMES], LEVELS[::-1]), weight=[1.0, None, *[3.0] * 6])
    assert [each.title for each in shown][:3] == ["tangent norm over sigma", "weight over sigma", "loss over sigma"]
    loss, (first, second) = shown[2], shown[2].lines
    assert (loss.x_scale.kind, loss.ends) == ("log", pytest.approx((0.01, 100)))
    assert (first.label, second.label, second.dash, loss.note) == ("A", "B", "dashed", "step 45 45")
    np.testing.assert_allclose(first.x, np.sqrt(np.multiply(LEVELS[1:], LEVELS[:-1])))
    np.testing.assert_allclose(first.mean, [(i + 1) / 45 for i in range(BINS)], rtol=1e-6)
    np.testing.assert_allclose(second.x, first.x)
    np.testing.assert_allclose(second.mean, first.mean[::-1])
    assert not first.smooth
    assert len(shown[1].lines[0].x) == BINS - 1  # a bin without a sample is passed over


def test_they_lie_over_t_where_all_runs_have_the_same(found):
    shown = found(meta(), meta(levels=LEVELS))
    (loss,) = [each for each in shown if each.title == "loss over t"]
    np.testing.assert_allclose(loss.lines[1].x, np.arange(BINS) + 0.5)


@pytest.mark.parametrize(
    "second",
    [
        meta([t / 9 for t in TIMES]),
        {},
        meta([1.0] * (BINS + 1)),
        meta([t / 9 for t in TIMES], [0.0, *LEVELS[1:]]),
        meta([t / 9 for t in TIMES], ["x"]),
        meta([t / 9 for t in TIMES], 3),
    ],
)
def test_there_are_none_without_an_axis_in_common(found, second):
    assert found(meta(levels=LEVELS), second) == []


def test_a_profile_of_other_bins_is_left_out(found):
    shown = found(meta(levels=LEVELS), meta(levels=LEVELS[:-1]))
    assert {len(each.lines) for each in shown} == {1}
