"""An application around a screen under test, and how it is driven without a terminal."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import waiting
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widget import Widget

from cmbench.rundir.layout import RunDir
from cmbench.tui.colours import DARK, themes
from cmbench.tui.kept import Kept
from cmbench.views.lines import line_colours

SIZES = [(160, 45), (80, 24)]


class Host(App[None]):
    """What the screens ask of their application."""

    poll_seconds = 0.1
    ascii = False
    pixels = ""

    def __init__(self, screen: Callable[[], Screen], ascii: bool = False) -> None:
        super().__init__()
        self._make, self.ascii = screen, ascii
        self.kept = Kept()
        self.opened: list[RunDir] = []
        self.compared: list[list[RunDir]] = []
        self.said: list[str] = []

    def on_mount(self) -> None:
        self.push_screen(self._make())

    def open_run(self, run: RunDir) -> None:
        self.opened.append(run)

    def compare_runs(self, runs: list[RunDir]) -> None:
        self.compared.append(runs)

    def notify(self, message: str, **options: object) -> None:
        assert options["markup"] is False
        self.said.append(message)
        super().notify(message, **options)


def drive(
    screen: Callable[[], Screen],
    steps: Callable[[Host, Pilot], Awaitable[None]],
    size: tuple[int, int] = SIZES[0],
    ascii: bool = False,
) -> Host:
    """Show a screen and let `steps` use it."""

    async def main() -> Host:
        app = Host(screen, ascii)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await steps(app, pilot)
        return app

    return asyncio.run(main())


async def until(pilot: Pilot, holds: Callable[[], object]) -> None:
    """Wait for something to hold."""
    await waiting.soon(holds, lambda: shown(pilot.app))
    await pilot.pause()


async def comes_to_rest(pilot: Pilot, changes: list, seconds: float = 0.5) -> None:
    """Wait until `changes`, which grows with each change, has been empty for some time. It is emptied before."""

    async def is_quiet() -> bool:
        changes.clear()
        await pilot.pause(seconds)
        return not changes

    await waiting.soon(is_quiet, lambda: changes)


def shown(app: App) -> str:
    """Return every character on the screen."""
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line) for line in lines)


class Bare(App[None]):
    """One widget that fills the screen, with the themes that cmbench brings."""

    def __init__(self, make: Callable[[], Widget], ascii: bool = False, theme: str = DARK) -> None:
        super().__init__()
        self.make, self.ascii = make, ascii
        for each in themes():
            self.register_theme(each)
        self.theme = theme

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return line_colours(DARK, dark=True)

    def compose(self) -> ComposeResult:
        self.widget = self.make()
        self.widget.styles.width = self.widget.styles.height = "100%"
        yield self.widget


def alone(
    make: Callable[[], Widget],
    steps: Callable[[Any, Pilot], Awaitable[None]],
    size: tuple[int, int] = (60, 16),
    ascii: bool = False,
    theme: str = DARK,
) -> None:
    """Show one widget and let `steps` use it."""

    async def main() -> None:
        app = Bare(make, ascii, theme)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await steps(app.widget, pilot)

    asyncio.run(main())


def picture(widget: Widget) -> list[str]:
    """Return the rows of characters that a widget shows."""
    return [widget.render_line(y).text for y in range(widget.size.height)]


def colours_at(widget: Widget, y: int) -> list[tuple[object, object]]:
    """Return foreground and background of each cell of a row, as the widget asks for them."""
    cells = []
    for text, style, _ in widget.render_line(y):
        cells += [(style.color, style.bgcolor)] * cell_len(text)
    return cells


@contextmanager
def painted(widget: Widget) -> Iterator[list[Region | None]]:
    """Gather the regions that a widget wants painted anew; None: all of it."""
    regions: list[Region | None] = []
    refresh = widget.refresh

    def counted(*parts: Region, **options: bool) -> Widget:
        regions.extend(parts or [None])
        return refresh(*parts, **options)

    widget.refresh = counted
    try:
        yield regions
    finally:
        del widget.refresh
