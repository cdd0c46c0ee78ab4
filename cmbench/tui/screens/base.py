"""Base classes of screens: access to the typed application, and reading files in the background."""

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

unless_gone = suppress(NoMatches)  # for code that shows what was read: the user may have left the screen meanwhile
_SELDOM = 1.9  # seconds: every fourth of two looks per second
_REST = 4  # looks, of which charts that were drawn let all but the last pass, but for no longer than that


def close_help(screen: Screen[Any]) -> bool:
    """Close the list of keys, and return whether it was open. It closes before its screen does."""
    panels = screen.query("HelpPanel")
    is_open = bool(panels)
    panels.remove()
    return is_open


@runtime_checkable
class CanStepBack(Protocol):
    """A screen with parts, such as a filter, that escape closes before the screen itself."""

    def step_back(self) -> bool:
        """Close such a part, and return whether one was open."""


class BenchScreen(Screen[None]):
    """A screen of the workbench."""

    @property
    def bench(self) -> "CmbenchApp":
        """The application: it knows how often to read, which characters to use, and the other screens."""
        return cast("CmbenchApp", self.app)


class ReadingScreen(BenchScreen):
    """A screen that keeps reading files, in a thread, as long as it is on top."""

    _is_woken = False
    _was_left = False
    _next_look = 0.0
    _rests_until = 0.0

    @property
    def is_still(self) -> bool:
        """Whether the run is idle."""
        return False

    def follow(self) -> None:
        """Begin reading."""
        self.wake()
        self.set_interval(self.bench.poll_seconds, self.tick)

    def tick(self) -> None:
        """Read the files, less often if the run is idle: each look takes two milliseconds of CPU time."""
        if time.monotonic() < self._rests_until:
            return
        if not self.is_still or time.monotonic() > self._next_look:
            self._next_look = time.monotonic() + _SELDOM
            self.poll()

    def rest(self) -> None:
        """Let some looks pass: charts of a run that trains cost ten times as much as a look, and change little."""
        self._rests_until = time.monotonic() + min(_SELDOM, (_REST - 0.2) * self.bench.poll_seconds)

    def poll(self) -> None:
        """Read the files, unless this screen is hidden or still reading: screens share what they read."""
        if self.is_active and all(worker.is_finished for worker in self.workers if worker.group == "read"):
            self._read_on()

    def wake(self) -> None:
        """Read at once, or once more after the current read, because something is known to have changed."""
        self._is_woken = True
        self.poll()

    def on_screen_suspend(self) -> None:
        """Remember that another screen is on top."""
        self._was_left = True

    def on_screen_resume(self) -> None:
        """Catch up with changes that came while another screen was on top."""
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
            anew: whether something is known to have changed.
        """
        is_behind = True
        while is_behind:
            if show := await self.read(self.read_piece):
                show()
            is_behind = self.is_behind

    @property
    def is_behind(self) -> bool:
        """Whether there is more to read immediately."""
        return False

    def read_piece(self) -> Callable[[], object] | None:
        """Read for a moment, in a thread. Return the function that shows the result; None if there is nothing new."""
        raise NotImplementedError

    async def read(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that waits for files in a thread, and return its result.

        Raises:
            CancelledError: the user left the screen meanwhile, so the result cannot be shown.
        """
        found = await asyncio.to_thread(function, *args, **kwargs)
        if not self.is_attached or self not in self.app.screen_stack:
            raise asyncio.CancelledError
        return found


class ChartsScreen(ReadingScreen):
    """A screen with a grid of charts, `charts`, shown page by page."""

    charts: ChartGrid

    def show_charts(self) -> None:
        """Draw the charts of this page."""
        raise NotImplementedError

    def action_axis(self) -> None:
        """Switch to the next horizontal axis: steps, images, training time, wall time, forward passes."""
        self.charts.next_axis()
        self.show_charts()
        self.notify(f"x axis: {self.charts.axis_title}", timeout=2)

    def action_page(self, step: int) -> None:
        """Turn the page to other metrics; on a screen with room for only one chart, go to the next chart."""
        alone = self.has_class("-narrow") or self.has_class("enlarged")
        if alone and self.charts.next_chart(step):
            return
        self.charts.page += step
        self.show_charts()
        self.charts.turn_to(step)

    def action_enlarge(self) -> None:
        """Enlarge the focused chart to the whole room, or restore it."""
        self.toggle_class("enlarged")
