"""Fork a child of a run from a screen: from which checkpoint and with which settings."""

from typing import Any

from textual.screen import Screen

from cmbench import steering
from cmbench.errors import CmbenchError
from cmbench.rundir import launch, parents, settings
from cmbench.rundir.layout import RunDir
from cmbench.text import plain
from cmbench.tui.screens.confirm import ask_until
from cmbench.views.run import RunView
from cmbench.words.signs import short


async def ask(screen: Screen[Any], view: RunView, step: int | None) -> RunDir | None:
    """Ask for settings and start a child. None if the user cancels, or if it is refused, which a message reports.

    Refused settings stay in the input to be corrected.

    Args:
        screen: the screen that asks.
        view: the run.
        step: the child starts from the last checkpoint up to this step; None for the newest.
    """
    run, recipe = view.run, view.recipe
    if recipe is None:
        screen.notify(f"{short(run.name)}: recipe.toml cannot be read", severity="error", markup=False)
        return None
    try:
        found = parents.nearest_checkpoint(run, "latest" if step is None else str(step))
    except CmbenchError as error:
        screen.notify(plain(str(error)), severity="error", markup=False)
        return None
    text = f"optimizer.lr={recipe.optimizer.lr!r}"
    lasts = settings.steps(run, recipe.train.steps)
    if found >= lasts:
        text = f"train.steps={2 * found}"

    def start(text: str) -> RunDir:
        overrides, path = steering.words(text), run.path.resolve()
        steering.check_fork(recipe, overrides, found, short(run.name), lasts)
        arguments = ["run", "--from", f"{path}@{found}", "--runs-dir", str(path.parent)]
        arguments += [part for override in overrides for part in ("--set", override)]
        screen.notify(f"{short(run.name)}: forking …", markup=False)
        return launch.start_detached(arguments)

    question = f"Fork {short(run.name)} at checkpoint {found:,} with TABLE.KEY=VALUE"
    return await ask_until(screen.app, question, text, start)
