"""The first seconds: a sign of life until the trainer answers, and until its first row."""

import asyncio
import re
import threading
from pathlib import Path

import pytest
from bench import settle, use
from live_runs import RECIPE, add, live_run, metrics
from tui_host import picture, until

from cmbench.rundir.launch import RefusedError
from cmbench.rundir.layout import RunDir
from cmbench.tui.app import CmbenchApp
from cmbench.tui.screens.dashboard import DashboardScreen
from cmbench.tui.screens.starting import StartingScreen
from cmbench.tui.widgets.chart import Chart
from cmbench.tui.widgets.line import Lines


class Trainer:
    """Stands for `launch.Start`: answers when it is told to."""

    subject = "ct_edm.toml"

    def __init__(self):
        self.answers, self.answer, self.cancelled = threading.Event(), None, False
        self.line = ""

    def said(self) -> str:
        return self.line

    def say(self, answer):
        self.answer = answer
        self.answers.set()

    @property
    def is_answered(self) -> bool:
        return self.answers.is_set()

    def wait(self) -> RunDir:
        self.answers.wait()
        if isinstance(self.answer, RefusedError):
            raise self.answer
        return self.answer

    def cancel(self):
        self.cancelled = True
        self.say(RefusedError("the trainer ended without a word"))


@pytest.fixture
def trainer():
    each = Trainer()
    yield each
    each.say(RefusedError("over"))


def start(trainer, steps, size=(160, 45)) -> CmbenchApp:
    async def main():
        app = CmbenchApp(Path(), start=trainer)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: isinstance(app.screen, StartingScreen))
            await pilot.pause()
            await steps(app, pilot)
        return app

    return asyncio.run(main())


def words(widget) -> str:
    return "\n".join(row.rstrip() for row in picture(widget))


@pytest.mark.parametrize("size", [(160, 45), (60, 20)])
def test_the_dashboard_follows_once_the_trainer_has_accepted(tmp_path, trainer, size):
    run = live_run(tmp_path)

    async def steps(app, pilot):
        await until(pilot, lambda: re.search(r" starting  \d+s", words(app.screen.query_one("#header", Lines))))
        trainer.say(run)
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        assert app.screen.run == run
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, DashboardScreen))
        assert app.screen.runs_dir == tmp_path

    app = start(trainer, steps, size)
    assert not app.refusal
    assert not trainer.cancelled


def test_what_the_trainer_says_meanwhile_is_shown(tmp_path, trainer):
    async def steps(app, pilot):
        trainer.line = "decoding pictures: 12,800 of 200,000"
        await until(pilot, lambda: trainer.line in words(app.screen.query_one("#starting")))
        trainer.say(live_run(tmp_path))
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        await pilot.press("ctrl+c")

    start(trainer, steps)


def test_escape_and_the_palette_leave_the_start_where_it_is(tmp_path, trainer):
    async def steps(app, pilot):
        await pilot.press("escape")
        assert isinstance(app.screen, StartingScreen)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: not isinstance(app.screen, StartingScreen))
        trainer.say(live_run(tmp_path))
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))
        assert not [screen for screen in app.screen_stack if isinstance(screen, StartingScreen)]
        await pilot.press("ctrl+c")

    app = start(trainer, steps)
    assert not trainer.cancelled
    assert not app.is_cancelled


def test_a_refusal_ends_the_application_and_is_told_by_whoever_opened_it(trainer):
    async def steps(app, pilot):
        trainer.say(RefusedError("train.steps: found 0, allowed: more", 2))
        await until(pilot, lambda: app.refusal)

    app = start(trainer, steps)
    assert (str(app.refusal), app.refusal.exit_code) == ("train.steps: found 0, allowed: more", 2)
    assert not app.is_cancelled


def test_ctrl_c_leaves_no_trainer_behind_and_q_leaves_it_to_start(trainer):
    async def leave(app, pilot):
        await pilot.press("q")

    async def cancel(app, pilot):
        await pilot.press("ctrl+c")

    left = start(trainer, leave)
    assert not trainer.cancelled
    assert not left.is_cancelled
    cancelled = start(trainer, cancel)
    assert trainer.cancelled
    assert cancelled.is_cancelled
    assert not cancelled.refusal


@pytest.mark.parametrize("size", [(160, 45), (80, 24), (60, 20)])
def test_before_the_first_row_one_chart_says_when_it_comes(tmp_path, size):
    run = live_run(tmp_path, rows=0)
    run.metrics.write_bytes(b"")
    run.recipe.write_text(RECIPE + "[log]\nevery = 50\n")

    async def steps(app, pilot):
        await settle(app, pilot)
        (chart,) = [chart for chart in app.screen.query(Chart) if chart.region]
        assert words(chart).count("first row at step 50") == 1
        add(run.metrics, metrics(50))
        await settle(app, pilot)
        assert "first row" not in words(next(chart for chart in app.screen.query(Chart) if chart.region))
        assert not app.screen.has_class("waiting")

    use([run], steps, size=size)
