"""Acting on a live run: requests left in its control folder, answered in its journal."""

from textual.binding import Binding

from cmbench import steering
from cmbench.errors import CmbenchError
from cmbench.recipe import Recipe
from cmbench.rundir import control, settings, status
from cmbench.rundir.layout import RunDir
from cmbench.text import plain
from cmbench.tui.screens.base import ReadingScreen
from cmbench.tui.screens.confirm import Ask, Confirm
from cmbench.words.signs import short


class RunScreen(ReadingScreen):
    """A screen on one run, with keys that pause it, save it, change it and stop it."""

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
        """Pause, or go on."""
        self.action_request("continue" if status.read(self.run)["state"] == "paused" else "pause")

    def action_request(self, action: str) -> None:
        """Ask for something that needs no confirmation."""
        if self._is_live():
            self._send(action)

    def action_stop(self) -> None:
        """Stop with a checkpoint, if that is meant."""
        if self._is_live():
            question = f"Stop {short(self.run.name)}? It writes a checkpoint and can be resumed."
            self.app.push_screen(Confirm(question, yes="Stop"), lambda yes: self._send("stop") if yes else None)

    def action_set(self) -> None:
        """Ask for settings, check them, and send them."""
        if not self._is_live():
            return
        if self.recipe is None:
            self._complain(f"{short(self.run.name)}: recipe.toml cannot be read")
            return
        question = f"Change {short(self.run.name)}: {', '.join(steering.steerable(self.recipe))}"
        in_force = settings.in_force(settings.read(self.run))
        lr = in_force.get("optimizer.lr", self.recipe.optimizer.lr)
        self._ask_for_settings(question, f"optimizer.lr={lr!r}")

    def _ask_for_settings(self, question: str, text: str, wrong: str = "") -> None:
        self.app.push_screen(Ask(question, text, wrong), lambda typed: self._set(question, typed))

    def _set(self, question: str, text: str | None) -> None:
        """Send settings; those that are not allowed are asked for again as they were typed."""
        if not text or self.recipe is None:
            return
        try:
            wanted = steering.parse(self.recipe, steering.words(text), short(self.run.name), "set")
        except CmbenchError as error:
            self._ask_for_settings(question, text, str(error))
            return
        self._send("set", settings=wanted)

    def _send(self, action: str, **details: object) -> None:
        try:
            control.request(self.run, action, **details)
        except CmbenchError as error:
            self._complain(str(error))
        else:
            self.notify(f"{action}: asked for; the answer comes in the journal", timeout=3)

    def _is_live(self) -> bool:
        state = status.read(self.run)["state"]
        if state not in status.LIVE:
            self._complain(f"{short(self.run.name)} is not live: {state}")
        return state in status.LIVE

    def _complain(self, text: str) -> None:
        self.notify(plain(text), severity="error", markup=False)
