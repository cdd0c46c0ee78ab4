"""The screen while a trainer starts: importing torch and building the model takes seconds."""

import asyncio
import threading
import time
from contextlib import suppress

from textual import work
from textual.app import ComposeResult
from textual.widgets import Static

from cmbench.rundir.launch import RefusedError, Start
from cmbench.text import plain
from cmbench.tui.screens.base import BenchScreen
from cmbench.tui.text import content
from cmbench.tui.widgets.key_bar import KeyBar
from cmbench.tui.widgets.line import Lines
from cmbench.words import signs
from cmbench.words.times import duration

_STARTING, _KEYS = "importing torch, building the model", " · q leaves, the run starts · ^c cancels"


class StartingScreen(BenchScreen):
    """Shown until the run's dashboard replaces it. If the trainer refuses, the application ends.

    Args:
        start: the trainer that is starting.
    """

    DEFAULT_CSS = """
    StartingScreen #starting { width: 1fr; height: 1fr; content-align: center middle; color: $text-muted; }
    """

    def __init__(self, start: Start) -> None:
        super().__init__()
        self.start, self._began = start, time.monotonic()

    def compose(self) -> ComposeResult:
        """Lay out what is starting, under a header like the dashboard's."""
        yield Lines(id="header", whole=True)
        yield Static(content(_STARTING + _KEYS), id="starting")
        yield KeyBar()

    def step_back(self) -> bool:
        """Stay on this screen until the dashboard comes."""
        return True

    def on_mount(self) -> None:
        """Wait for the trainer's answer, and count the seconds until it comes."""
        self.call_after_refresh(self._count)
        self.set_interval(1.0, self._count)
        self._wait()

    @work
    async def _wait(self) -> None:
        answered, loop = asyncio.Event(), asyncio.get_running_loop()

        def listen() -> None:
            with suppress(RefusedError):
                self.start.wait()
            with suppress(RuntimeError):  # the application has ended
                loop.call_soon_threadsafe(answered.set)

        threading.Thread(target=listen, daemon=True).start()  # a daemon, so that the application can end first
        await answered.wait()
        try:
            run = self.start.wait()
        except RefusedError as error:
            self.bench.refuse(error)
        else:
            self.bench.started(run)

    def _count(self) -> None:
        if said := self.start.said():  # e.g. how many pictures are decoded
            self.query_one("#starting", Static).update(content(plain(said) + _KEYS))
        sign, _ = signs.sign("starting", self.bench.ascii)
        passed = duration(time.monotonic() - self._began)
        name = (f" {plain(self.start.subject)} ", "strong")
        self.query_one("#header", Lines).show([[name, (f" {sign} starting", "good"), (f"  {passed}", "")]])
