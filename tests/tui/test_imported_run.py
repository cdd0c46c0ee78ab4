"""Screens of a run that was imported: weights, one row of the journal, and nothing else."""

import pytest
import torch
from bench import use
from tui_host import SIZES, drive, shown, until

from cmbench.networks import mlp
from cmbench.rundir.layout import RunDir
from cmbench.tui.screens.runs import RunsScreen

at_both_sizes = pytest.mark.parametrize("size", SIZES)


@pytest.fixture
def run(cmbench, home) -> RunDir:
    torch.save(mlp.Network(mlp.Config(), (2,), 0).state_dict(), home / "x.pt")
    assert cmbench("import", "x.pt", "--network", "mlp", "--set", "data.shape=[2]", "--out", "theirs").code == 0
    return RunDir(home / "runs" / "theirs")


@at_both_sizes
def test_every_screen_stands_it(run, size):
    async def look(app, pilot):
        await until(pilot, lambda: "theirs" in shown(app))
        for key in "psjRf":  # profile, snapshots, journal, recipe, fork
            await pilot.press(key)
            await pilot.pause()
            await pilot.press("escape")

    use([run], look, size)


@at_both_sizes
def test_it_is_listed_and_not_resumed(run, size):
    async def resume(app, pilot):
        await until(pilot, lambda: "theirs" in shown(app))
        await pilot.press("r")
        further = "cmbench run RECIPE --set start.run=theirs"
        assert app.said == [f"theirs: was imported, and is not trained further; {further} starts from it"]

    drive(lambda: RunsScreen(run.path.parent), resume, size)
