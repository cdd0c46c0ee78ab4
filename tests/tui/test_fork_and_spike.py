"""From a spike's mark to what is known of it, and from a step to a child run with its parent behind it."""

import re

import pytest
from bench import settle, use
from live_runs import add, event, live_run, metrics
from snapshot_runs import add_picture
from textual.widgets import Input
from tui_host import shown, until

from cmbench.rundir import launch
from cmbench.rundir.files import read_json, to_json
from cmbench.tui.screens.confirm import Ask
from cmbench.tui.screens.dashboard import DashboardScreen
from cmbench.tui.screens.spike import SpikeScreen, facts, fitting
from cmbench.tui.widgets.picture import Picture
from cmbench.views.lines import GREY
from cmbench.views.run import RunView


def checkpointed(run, *steps):
    for step in steps:
        run.checkpoint(step).mkdir()
        (run.checkpoint(step) / "state.json").write_text("{}")
    return run


def test_enter_on_a_spike_tells_its_bins_and_shows_the_pictures_around_it(tmp_path):
    run = live_run(tmp_path)
    add(run.events, event(20, "warning", text="the tangent norm jumped", bins=["2", 5, 99]))
    for step in (10, 20, 30, 40):
        add_picture(run, step, 1)

    async def steps(app, pilot):
        app.focused.set_cursor(20.0)
        await pilot.press("enter")
        assert isinstance(app.screen, SpikeScreen)
        await until(pilot, lambda: "after: step 30" in shown(app))
        text = shown(app)
        assert "before: step 20, 1-step" in text
        assert "bin 5: t from 5 to 6" in text
        assert "bin 99: its times are not known" in text
        assert len(app.screen.query(Picture)) == 2
        await pilot.press("escape")
        app.focused.set_cursor(35.0)
        await pilot.press("enter")
        assert app.screen.has_class("enlarged")

    use([run], steps)


def test_facts_of_a_row_that_says_nothing(tmp_path):
    view = RunView(live_run(tmp_path))
    assert facts(view, {"step": "x", "kind": "diverged", "bins": 3, "times": [None]})[-1] == (
        "the row names no bin and no time"
    )


@pytest.mark.parametrize("size", [(160, 45), (110, 30), (80, 24)])
@pytest.mark.parametrize("bins", [list(range(32)), list(range(0, 32, 2)), [3, 4, 9]])
def test_every_bin_of_a_spike_is_shown_or_counted(tmp_path, size, bins):
    run = live_run(tmp_path)
    meta = read_json(run.meta) | {"profile_edges": [float(i) for i in range(33)]}
    run.meta.write_bytes(to_json(meta))
    text = f"the tangent norm jumped in {len(bins)} of 32 time bins, which takes two rows on a narrow screen"
    add(run.events, event(20, "warning", text=text, bins=bins))

    async def steps(app, pilot):
        app.focused.set_cursor(20.0)
        await pilot.press("enter")
        await until(pilot, lambda: "no snapshot" in shown(app))
        box = shown(app).split("no snapshot")[0]
        ranges = [tuple(map(float, pair)) for pair in re.findall(r"t from ([0-9.]+) to ([0-9.]+) *\W", box)]
        told = [place for place in bins if any(low <= place < high for low, high in ranges)]
        left = re.search("and ([0-9]+) more bins?", box)
        assert told
        assert len(told) + (int(left[1]) if left else 0) == len(bins)

    use([run], steps, size)


def test_bins_side_by_side_are_one_fact(tmp_path):
    view = RunView(live_run(tmp_path))
    view.read()
    row = {"step": 7, "kind": "warning", "text": "x", "bins": [4, 2, 3, 5, 0, 99]}
    assert facts(view, row)[1:] == [
        "bin 0: t from 0 to 1",
        "bins 2 to 5: t from 2 to 6",
        "bin 99: its times are not known",
    ]
    assert facts(view, row, 1)[1:] == ["bin 0: t from 0 to 1", "and 5 more bins"]
    assert len(fitting(view, row, 80, 3)) == 3


def test_a_fork_is_asked_for_at_the_cursor_and_what_is_refused_stays(tmp_path, monkeypatch):
    run, asked = checkpointed(live_run(tmp_path), 10, 20), []
    child = live_run(tmp_path, "live-20260101-000000-000b")
    monkeypatch.setattr(launch, "start_detached", lambda arguments: asked.append(arguments) or child)

    async def steps(app, pilot):
        app.focused.set_cursor(19.0)
        await pilot.press("K")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        assert "at checkpoint 10 with" in shown(app)
        app.screen.query_one(Input).value = "network.width=8"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, Ask) and "the checkpoint depends" in shown(app))
        assert app.screen.query_one(Input).value == "network.width=8"
        app.screen.query_one(Input).value = "optimizer.lr=1e-4 ema.lengths=[0.5, 0.6]"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and app.screen.run == child)
        sets = ["--set", "optimizer.lr=1e-4", "--set", "ema.lengths=[0.5, 0.6]"]
        path = run.path.resolve()
        assert asked == [["run", "--from", f"{path}@10", "--runs-dir", str(path.parent), *sets]]

    use([run], steps)


def test_what_has_no_checkpoint_is_refused_in_a_line(tmp_path):
    async def steps(app, pilot):
        await pilot.press("K")
        await until(pilot, lambda: app.said)
        assert "no checkpoint" in app.said[-1]
        assert isinstance(app.screen, DashboardScreen)

    use([live_run(tmp_path)], steps)


def test_the_parent_stands_behind_its_child_in_grey(tmp_path):
    parent = live_run(tmp_path)
    child = live_run(tmp_path, "live-20260101-000000-000b", rows=0)
    add(child.metrics, *(metrics(i, loss=9.0) for i in range(21, 30)))
    meta = read_json(child.meta) | {"parent": {"run": parent.name, "step": 20}}
    child.meta.write_bytes(to_json(meta))

    async def steps(app, pilot):
        await settle(app, pilot)
        behind, own = app.focused.lines
        assert (behind.label, behind.colour, behind.x[-1]) == ("parent loss", GREY, 40)
        assert (own.label, own.x[-1], own.mean[-1]) == ("loss", 29, 9.0)

    use([child], steps)
