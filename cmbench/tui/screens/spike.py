"""A spike of the tangent: its step, its times of the path, and the model's samples before and after it."""

import asyncio

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding

from cmbench.rundir.fields import number_of, whole
from cmbench.rundir.log import Row as JournalRow
from cmbench.rundir.snapshots import files_of
from cmbench.tui.screens.base import BenchScreen, unless_gone
from cmbench.tui.widgets.drawing import Points, load
from cmbench.tui.widgets.key_bar import KeyBar
from cmbench.tui.widgets.line import Lines
from cmbench.tui.widgets.picture_row import PictureRow, Shown
from cmbench.tui.widgets.scatter import EXTENT, extent_for
from cmbench.views import report
from cmbench.views.run import RunView
from cmbench.words.journal import said
from cmbench.words.numbers import number

_MOST = 8  # bins, or times, that are listed


class SpikeScreen(BenchScreen):
    """One spike, or a divergence.

    Args:
        view: the run.
        row: the journal row about the spike.
    """

    CSS = "SpikeScreen #facts { height: 7; }"
    BINDINGS = [
        Binding("i,enter", "snapshots", "Snapshots", id="spike.snapshots"),
        Binding("p", "profile", "Time profile", id="spike.profile"),
        Binding("b", "app.back", "Dashboard", id="spike.back"),
    ]

    def __init__(self, view: RunView, row: JournalRow) -> None:
        super().__init__()
        self.view, self.row = view, row

    def compose(self) -> ComposeResult:
        """Lay out the facts above the pictures."""
        yield Lines("spike", id="facts")
        yield PictureRow(self.bench.pixels)
        yield KeyBar("snapshots", "profile", "app.back")

    def on_mount(self) -> None:
        """Show the facts, and read the pictures."""
        self.query_one("#facts", Lines).show(
            lambda width: report.wrapped([[(line, "")] for line in facts(self.view, self.row)], width)
        )
        self._read()

    @work(exclusive=True)
    async def _read(self) -> None:
        step = whole(self.row.get("step")) or 0
        found = await asyncio.to_thread(files_of, self.view.run.snapshots)
        before = max((each for each in found if each <= step), default=None)
        after = min((each for each in found if each > step), default=None)
        shown, extent = [], EXTENT
        for name, at in (("before", before), ("after", after)):
            if at is None:
                shown.append(Shown(f"{name}: no snapshot", "none was drawn"))
                continue
            file = found[at][min(found[at])]
            drawing = await asyncio.to_thread(load, *file)
            if isinstance(drawing, Points):
                extent = extent_for(drawing.xy, extent, drawing.data)
            shown.append(Shown(f"{name}: step {at:,}, {min(found[at])}-step", drawing))
        with unless_gone:
            await self.query_one(PictureRow).show(shown, extent)

    def action_snapshots(self) -> None:
        """Open all pictures."""
        from cmbench.tui.screens.snapshots import SnapshotsScreen

        self.app.push_screen(SnapshotsScreen(self.view.run))

    def action_profile(self) -> None:
        """Open the time profile of the run."""
        from cmbench.tui.screens.profile import ProfileScreen

        self.app.push_screen(ProfileScreen(self.view))


def facts(view: RunView, row: JournalRow) -> list[str]:
    """Return what a journal row says about a spike, one fact per line."""
    edges = view.edges
    bins = [place for each in _list(row.get("bins")) if (place := whole(each)) is not None]
    lines = [f"step {row.get('step', '?')} {said(row)}"]
    for place in bins[:_MOST]:
        if place + 1 < len(edges):
            lines.append(f"bin {place}: t from {number(edges[place])} to {number(edges[place + 1])}")
        else:
            lines.append(f"bin {place}: its times are not known")
    lines += [f"and {len(bins) - _MOST} more bins"] if len(bins) > _MOST else []
    times = [time for each in _list(row.get("times")) if (time := number_of(each)) is not None]
    if times:
        more = ", …" if len(times) > _MOST else ""
        lines.append(f"t of its samples: {', '.join(map(number, times[:_MOST]))}{more}")
    return lines if bins or times else [*lines, "the row names no bin and no time"]


def _list(found: object) -> list[object]:
    return found if isinstance(found, list) else []
