"""Shows how long work goes: a bar on a terminal; elsewhere lines now and then, where there are many things to do."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cmbench import progress
from cmbench.cli import _screen
from cmbench.progress import Count, Progress
from cmbench.rundir import launch
from cmbench.text import plain

if TYPE_CHECKING:  # takes a while to load
    from rich.progress import Progress as Bar

_PAUSE, _PAUSE_SEEN = 30.0, 1.0  # seconds between lines; the second where the starter of a trainer shows the last one


@contextmanager
def shown(first: str = "") -> Iterator[Progress]:
    """Show what the work in the block tells, and yield what is told.

    On a terminal a bar shows which figure is computed, and how many are done of how many, as soon as it is known; with
    `first` it does so at once. There is no time left to go: one measure takes a thousand times as long as another.
    """
    if not _screen.is_terminal(err=True):
        with progress.telling(_Lines()) as lines:
            yield lines
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = _screen.console(err=True)
    bar = Bar(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    try:
        with progress.telling(_Shown(bar, first)) as told:
            yield told
    finally:
        bar.stop()


class _Shown(Progress):
    """Moves a bar: each figure that begins ends the one before it."""

    def __init__(self, bar: "Bar", first: str) -> None:
        self._bar, self._total, self._begun = bar, 0, 0
        self._task = bar.add_task(plain(first), total=None, visible=bool(first))
        if first:
            bar.start()

    def expect(self, figures: int) -> None:
        """Make room for more figures."""
        self._total += figures
        self._bar.start()
        self._bar.update(self._task, total=self._total, visible=True)

    def begin(self, what: str) -> None:
        """Name the figure at work, and count those before it."""
        self._bar.update(self._task, description=plain(what), completed=self._begun)
        self._begun += 1

    @contextmanager
    def counting(self, what: str, of: int, done: int = 0, unit: str = "") -> Iterator[Count]:
        """Show a bar of its own while things are counted."""
        self._bar.start()
        task = self._bar.add_task(plain(what), total=of, completed=done)
        speed = _Speed(unit)

        def count(n: int) -> None:
            self._bar.update(task, advance=n, description=plain(what + speed.after(n)))

        try:
            yield count
        finally:
            self._bar.refresh()
            self._bar.remove_task(task)


class _Speed:
    """How many things are done in a second, since it was made."""

    def __init__(self, unit: str) -> None:
        self._unit, self._done, self._since = unit, 0, time.monotonic()

    def after(self, n: int) -> str:
        """Return the speed once n more are done, ", 120 images/s"; without a unit, nothing."""
        self._done += n
        return f", {self._done / max(time.monotonic() - self._since, 1e-9):,.3g} {self._unit}/s" if self._unit else ""


class _Lines(Progress):
    """Prints a line now and then while things are counted."""

    @contextmanager
    def counting(self, what: str, of: int, done: int = 0, unit: str = "") -> Iterator[Count]:
        """Print how many are done, if it takes long."""
        pause = _PAUSE_SEEN if launch.is_detached() else _PAUSE
        last, speed = time.monotonic(), _Speed(unit)

        def count(n: int) -> None:
            nonlocal done, last
            done += n
            told = speed.after(n)
            if time.monotonic() - last >= pause:
                last = time.monotonic()
                _screen.line(f"{what}: {done:,} of {of:,}{told}", err=True)

        yield count
