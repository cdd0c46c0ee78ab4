"""An application around a screen under test, and how it is driven without a terminal."""

import asyncio
from collections.abc import Awaitable, Callable

from textual.app import App
from textual.pilot import Pilot
from textual.screen import Screen

from cmbench.rundir.layout import RunDir

SIZES = [(160, 45), (80, 24)]


class Host(App[None]):
    """What the screens ask of their application."""

    poll_seconds = 0.1
    ascii = False

    def __init__(self, screen: Callable[[], Screen], ascii: bool = False) -> None:
        super().__init__()
        self._make, self.ascii = screen, ascii
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
    for _ in range(500):
        if holds():
            return
        await pilot.pause(0.02)
    raise AssertionError("it never came to hold")


def shown(app: App) -> str:
    """Return every character on the screen."""
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line) for line in lines)
