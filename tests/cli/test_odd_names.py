"""A run whose name is hostile is one run in the table, and every command finds it as it finds the others."""

import asyncio
import os
import shlex
import shutil

import orjson
import pytest

from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address, all_runs, select, select_many
from cmbench.tui.app import CmbenchApp
from cmbench.tui.screens.runs import RunsScreen

NAMES = [
    "a[1]",
    "[b]bold",
    "*",
    "a?",
    "-x",
    "--help",
    "two words",
    "a\nb",
    os.fsdecode(b"bad\xff"),
    "\u202eevil",
    "n" * 200,
]


@pytest.mark.parametrize("name", NAMES)
def test_commands_find_it(cmbench, trained, name):
    runs = trained.path.parent
    shutil.copytree(trained.path, runs / "a1")
    run = RunDir(trained.path.rename(runs / name))
    assert [found.name for found in all_runs(runs)].count(name) == 1
    assert select(name, runs).path.samefile(run.path)
    assert [found.name for found in select_many([name], runs)] == [name]
    (typed,) = shlex.split(address(run))
    assert not typed.startswith("-")
    assert select(typed, runs).path.samefile(run.path)
    listed = orjson.loads(cmbench("ls", "--json").out)["runs"]
    assert len(listed) == 2
    for command in ("show", "watch", "sample"):
        assert cmbench(command, "--json", "--", name).code == 0, command
    compared = cmbench("compare", "--json", "--", name, "a1")
    assert compared.code == 0
    assert orjson.loads(compared.out)["runs"][0]["name"] in {row["name"] for row in listed} - {"a1"}
    if name.isascii():
        assert cmbench("ls").code == cmbench("show", "--", name).code == 0
        assert cmbench("compare", "--plain", "--", name, "a1").code == 0


def test_the_browser_shows_all_of_them(home, trained):
    for name in NAMES:
        shutil.copytree(trained.path, trained.path.parent / name)

    async def browse() -> int:
        app = CmbenchApp(trained.path.parent)
        async with app.run_test(size=(160, 45)) as pilot:
            for _ in range(600):
                await pilot.pause(0.05)
                if isinstance(app.screen, RunsScreen) and app.screen.table.row_count == len(NAMES) + 1:
                    break
            for _ in NAMES:
                await pilot.press("down")
            return app.screen.table.row_count

    assert asyncio.run(browse()) == len(NAMES) + 1


@pytest.mark.parametrize("odd", ["²", "7", "9" * 200, "000000012", "٠٠٠٠٠٠١٢", "-0000012", "0000001x", "abandoned"])
def test_folders_that_are_no_checkpoints_of_ours_are_none(cmbench, trained, odd):
    before = cmbench("show", trained.name, "--json")
    (trained.checkpoints / odd).mkdir(exist_ok=True)
    after = cmbench("show", trained.name, "--json")
    assert after.code == before.code == 0
    assert orjson.loads(after.out)["checkpoints"] == orjson.loads(before.out)["checkpoints"]
    assert cmbench("sample", trained.name).code == cmbench("ls").code == 0
