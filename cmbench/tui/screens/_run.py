"""Control of a live run: requests go to its control folder, the answers come in its journal."""

from typing import Any

from textual import work
from textual.binding import Binding

from cmbench import steering
from cmbench.errors import CmbenchError
from cmbench.recipe import Recipe
from cmbench.rundir import control, settings, status
from cmbench.rundir.layout import RunDir
from cmbench.text import plain
from cmbench.tui.screens.base import ReadingScreen
from cmbench.tui.screens.confirm import Confirm, ask_until
from cmbench.words.signs import short


class RunScreen(ReadingScreen):
    """A screen of one run, with keys to pause, save, change and stop it."""

    BINDINGS = [
        Binding("space", "pause", "Pause / continue", id="run.pause"),
        Binding("c", "request('checkpoint')", "Checkpoint", id="run.checkpoint"),
        Binding("n", "request('snapshot')", "Snapshot", id="run.snapshot", show=False),
        Binding("e", "set", "Change a setting", id="run.set", show=False),
        Binding("S", "stop", "Stop", id="run.stop"),
    ]

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self.run = run

    @property
    def recipe(self) -> Recipe | None:
        """The run's recipe, if it can be read."""
        raise NotImplementedError

    def action_pause(self) -> None:
        """Pause the run, or let it continue."""
        self.action_request("continue" if status.read(self.run)["state"] == "paused" else "pause")

    def action_request(self, action: str) -> None:
        """Send a request that needs no confirmation."""
        if self._is_live():
            self._send(action)

    def action_stop(self) -> None:
        """Stop the run with a checkpoint, after a confirmation."""
        if self._is_live():
            question = f"Stop {short(self.run.name)}? It writes a checkpoint and can be resumed."
            self.app.push_screen(Confirm(question, yes="Stop"), lambda yes: self._send("stop") if yes else None)

    @work
    async def action_set(self) -> None:
        """Ask for settings, check them, and send them."""
        if not self._is_live():
            return
        recipe, name = self.recipe, short(self.run.name)
        if recipe is None:
            self._complain(f"{name}: recipe.toml cannot be read")
            return
        question = f"Change {name}: {', '.join(steering.steerable(recipe))}"
        lr = settings.in_force(settings.read(self.run)).get("optimizer.lr", recipe.optimizer.lr)

        def take(text: str) -> dict[str, Any]:
            return steering.parse(recipe, steering.words(text), name, "set") if text else {}

        if wanted := await ask_until(self.app, question, f"optimizer.lr={lr!r}", take):
            self._send("set", settings=wanted)

    def _send(self, action: str, **details: object) -> None:
        try:
            control.request(self.run, action, **details)
        except CmbenchError as error:
            self._complain(str(error))
        else:
            self.notify(f"{action}: requested; the journal will show the answer", timeout=3)

    def _is_live(self) -> bool:
        state = status.read(self.run)["state"]
        if state not in status.LIVE:
            self._complain(f"{short(self.run.name)} is not live: {state}")
        return state in status.LIVE

    def _complain(self, text: str) -> None:
        self.notify(plain(text), severity="error", markup=False)
