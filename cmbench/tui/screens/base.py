"""What screens have in common: the application by its own type, and files read beside it."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, cast, runtime_checkable

from textual import work
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.worker import get_current_worker

if TYPE_CHECKING:
    from cmbench.tui.app import CmbenchApp

P = ParamSpec("P")

unless_gone = suppress(NoMatches)  # around what shows what was read: its screen may have been left meanwhile
_SELDOM = 1.9  # seconds: every fourth look of two a second


def close_help(screen: Screen[Any]) -> bool:
    """Close the list of keys, and return whether it was open: what lies on top goes before the screen does."""
    panels = screen.query("HelpPanel")
    is_open = bool(panels)
    panels.remove()
    return is_open


@runtime_checkable
class CanStepBack(Protocol):
    """A screen on which something may lie that escape closes before it."""

    def step_back(self) -> bool:
        """Close it, and return whether there was something."""


class BenchScreen(Screen[None]):
    """A screen of the workbench."""

    @property
    def bench(self) -> "CmbenchApp":
        """The application: how often to look, which characters to use, where to go."""
        return cast("CmbenchApp", self.app)


class ReadingScreen(BenchScreen):
    """A screen that looks at files again and again, in a thread, while it is seen."""

    _next_look = 0.0

    @property
    def is_still(self) -> bool:
        """Whether no news are expected."""
        return False

    def follow(self) -> None:
        """Begin to look."""
        self.poll()
        self.set_interval(self.bench.poll_seconds, self._look_again)

    def _look_again(self) -> None:
        """Look, but seldom where nothing moves: a look takes two milliseconds of a processor."""
        if not self.is_still or time.monotonic() > self._next_look:
            self._next_look = time.monotonic() + _SELDOM
            self.poll()

    def poll(self) -> None:
        """Look at the files, unless the last look still goes on or nobody sees this screen."""
        if self.is_active and all(w.is_finished for w in self.workers if w.group == "read"):
            self._read_on()

    @work(thread=True, exclusive=True, group="read")
    def _read_on(self) -> None:
        while not get_current_worker().is_cancelled and self.read_piece():
            pass

    def read_piece(self) -> bool:
        """Read for a moment, in a thread. Return whether there is more."""
        raise NotImplementedError

    def tell(self, show: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Let the application's thread show what was read, unless the screen has gone meanwhile."""
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(lambda: show(*args, **kwargs) if self.is_attached else None)
