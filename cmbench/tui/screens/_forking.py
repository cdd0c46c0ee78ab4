"""A child of a run, asked for on a screen: from which checkpoint, with which settings."""

import asyncio
from typing import Any

from textual.screen import Screen

from cmbench import steering
from cmbench.errors import CmbenchError
from cmbench.rundir import launch, parents
from cmbench.rundir.layout import RunDir
from cmbench.text import plain
from cmbench.tui.screens.confirm import Ask
from cmbench.views.run import RunView
from cmbench.words.signs import short


async def ask(screen: Screen[Any], view: RunView, step: int | None) -> RunDir | None:
    """Ask for settings and start a child; None where that is not wanted, or refused, which is said in a line.

    What was typed stays to be mended where it is refused.

    Args:
        screen: that asks.
        view: the run.
        step: from whose last checkpoint on; None for the newest.
    """
    run, text, why = view.run, "", ""
    if view.recipe is None:
        screen.notify(f"{short(run.name)}: recipe.toml cannot be read", severity="error", markup=False)
        return None
    try:
        found = parents.nearest_checkpoint(run, "latest" if step is None else str(step))
    except CmbenchError as error:
        screen.notify(plain(str(error)), severity="error", markup=False)
        return None
    text = f"optimizer.lr={view.recipe.optimizer.lr!r}"
    if found >= view.recipe.train.steps:
        text = f"train.steps={2 * found}"
    while True:
        refused = f"{why}. " if why else ""
        question = f"{refused}Fork {short(run.name)} at checkpoint {found:,} with TABLE.KEY=VALUE"
        answer = await screen.app.push_screen_wait(Ask(question, text))
        if answer is None:
            return None
        text = answer
        overrides = steering.words(answer)
        try:
            steering.check_fork(view.recipe, overrides, found, short(run.name))
            path = run.path.resolve()
            arguments = ["run", "--from", f"{path}@{found}", "--runs-dir", str(path.parent)]
            arguments += [part for override in overrides for part in ("--set", override)]
            screen.notify(f"{short(run.name)}: being forked …", markup=False)
            return await asyncio.to_thread(launch.start_detached, arguments)
        except CmbenchError as error:
            why = plain(str(error))
