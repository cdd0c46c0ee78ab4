"""What screens have in common: the application by its own type, and files read beside it."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, runtime_checkable

from textual import work
from textual.css.query import NoMatches
from textual.screen import Screen

from cmbench.tui.widgets.chart_grid import ChartGrid

if TYPE_CHECKING:
    from cmbench.tui.app import CmbenchApp

P = ParamSpec("P")
T = TypeVar("T")

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
    """A screen that looks at files again and again, in a thread, while nothing lies on top of it."""

    _is_woken = False
    _was_left = False
    _next_look = 0.0

    @property
    def is_still(self) -> bool:
        """Whether no news are expected."""
        return False

    def follow(self) -> None:
        """Begin to look."""
        self.wake()
        self.set_interval(self.bench.poll_seconds, self.tick)

    def tick(self) -> None:
        """Look, but seldom where nothing moves: a look takes two milliseconds of a processor."""
        if not self.is_still or time.monotonic() > self._next_look:
            self._next_look = time.monotonic() + _SELDOM
            self.poll()

    def poll(self) -> None:
        """Look at the files, unless nobody sees this screen or a look still goes on: screens share what they read."""
        if self.is_active and all(worker.is_finished for worker in self.workers if worker.group == "read"):
            self._read_on()

    def wake(self) -> None:
        """Look at once, or once more behind the look that goes on: something is known to have happened."""
        self._is_woken = True
        self.poll()

    def on_screen_suspend(self) -> None:
        """Remember that something lies on top."""
        self._was_left = True

    def on_screen_resume(self) -> None:
        """Catch up with what happened behind another screen."""
        if self._was_left:
            self.wake()

    @work(group="read")
    async def _read_on(self) -> None:
        is_due = True
        while is_due:
            anew, self._is_woken = self._is_woken, False
            await self.look(anew)
            is_due = self._is_woken and self.is_active

    async def look(self, anew: bool) -> None:
        """Read all that is new, and show it piece by piece.

        Args:
            anew: whether something is known to have happened.
        """
        is_behind = True
        while is_behind:
            if show := await self.read(self.read_piece):
                show()
            is_behind = self.is_behind

    @property
    def is_behind(self) -> bool:
        """Whether there is more to read at once."""
        return False

    def read_piece(self) -> Callable[[], object] | None:
        """Read for a moment, in a thread. Return what shows it; None where there is nothing to show."""
        raise NotImplementedError

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what waits for files in a thread, and return what it returns.

        Raises:
            CancelledError: the screen was left meanwhile: there is nothing to show it on.
        """
        found = await asyncio.to_thread(function, *args, **kwargs)
        if not self.is_attached or self not in self.app.screen_stack:
            raise asyncio.CancelledError
        return found


class ChartsScreen(ReadingScreen):
    """A screen with a grid of charts, `charts`, a page of them at a time."""

    charts: ChartGrid

    def show_charts(self) -> None:
        """Draw the charts of this page."""
        raise NotImplementedError

    def action_axis(self) -> None:
        """Go on to the next horizontal axis: steps, images, training time, wall time, forward passes."""
        self.charts.next_axis()
        self.show_charts()
        self.notify(f"x axis: {self.charts.axis_title}", timeout=2)

    def action_page(self, step: int) -> None:
        """Show other metrics; where there is room for one chart alone, the next one."""
        alone = self.has_class("-narrow") or self.has_class("enlarged")
        if alone and self.charts.next_chart(step):
            return
        self.charts.page += step
        self.show_charts()
        self.charts.turn_to(step)

    def action_enlarge(self) -> None:
        """Give the focused chart the whole room, or give it back."""
        self.toggle_class("enlarged")
