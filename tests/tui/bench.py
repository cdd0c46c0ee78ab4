"""The application over runs made of files, driven without a terminal."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from textual.pilot import Pilot

from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.settings import Settings
from cmbench.tui.app import CmbenchApp
from cmbench.tui.screens.base import ReadingScreen
from cmbench.tui.widgets.chart import Chart
from cmbench.tui.widgets.grid import GridWidget

HOSTILE = "\x1b[2J[red]x[/red][@click=app.quit]\u202e\x07"
HARMLESS = "␛[2J[red]x[/red][@click=app.quit]\ufffd␇"


class Bench(CmbenchApp):
    """Remembers what it said, and looks at files when `settle` says so."""

    def __init__(self, runs_dir: Path, runs: Sequence[RunDir], settings: Settings) -> None:
        super().__init__(runs_dir, runs, settings)
        self.poll_seconds = 3600.0
        self.said: list[str] = []

    def notify(self, message: str, **options: object) -> None:
        self.said.append(message)
        super().notify(message, **options)


def use(
    runs: Sequence[RunDir],
    steps: Callable[[Bench, Pilot], Awaitable[None]],
    size: tuple[int, int] = (160, 45),
    **settings: object,
) -> None:
    """Open runs as `cmbench watch` does, and let `steps` use them once they are read."""

    async def main() -> None:
        app = Bench(runs[0].path.parent, runs, Settings(**settings))
        async with app.run_test(size=size) as pilot:
            await settle(app, pilot)
            await steps(app, pilot)

    asyncio.run(main())


async def settle(app: Bench, pilot: Pilot) -> None:
    """Let the screen look at its files once more, and wait until what came of it is drawn."""
    await pilot.pause()
    while reading(app):
        await pilot.pause(0.01)
    if isinstance(app.screen, ReadingScreen):
        app.screen.poll()
    while reading(app):
        await pilot.pause(0.01)
    await pilot.pause()
    await pilot.pause()


def reading(app: Bench) -> bool:
    """Return whether a screen looks at its files right now."""
    return any(not worker.is_finished for worker in app.workers if worker.group == "read")


def titles(app: Bench) -> list[str]:
    """Return the titles of the charts of the screen."""
    return [chart.title for chart in app.screen.query(Chart)]


def requests(run: RunDir) -> list[dict]:
    """Return what waits in a run's control folder, without the ids, oldest first."""
    found = [read_json(path) for path in sorted(run.control.iterdir())]
    assert all(
        row and row.pop("id") == path.stem for row, path in zip(found, sorted(run.control.iterdir()), strict=True)
    )
    return found


def on_screen(app: Bench) -> list[GridWidget]:
    """Return the widgets of the screen that draw cells and are seen."""
    return [widget for widget in app.screen.query(GridWidget) if widget.region and widget.display]
