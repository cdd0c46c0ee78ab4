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

_TIMES = 8  # of samples, that are listed
_FRAME = 2  # rows, and columns
_SHARE = 0.6  # of the screen, which the facts take at most; the pictures have what is left


class SpikeScreen(BenchScreen):
    """One spike, or a divergence.

    Args:
        view: the run.
        row: the journal row about the spike.
    """

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
        self._show_facts()
        self._read()

    def on_resize(self) -> None:
        """Give the facts the rows that they need now."""
        self._show_facts()

    def _show_facts(self) -> None:
        """Show all facts, or as many bins as there is room for."""
        room = int(_SHARE * self.size.height) - _FRAME
        rows = fitting(self.view, self.row, self.size.width - _FRAME, room)
        box = self.query_one("#facts", Lines)
        box.styles.height = len(rows) + _FRAME
        box.show(rows)

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


def fitting(view: RunView, row: JournalRow, width: int, height: int) -> list[report.Row]:
    """Return the facts in rows of `width` columns, with as many bins as `height` rows hold; one bin at least."""
    most = max(1, height)
    while True:
        rows = report.wrapped([[(line, "")] for line in facts(view, row, most)], max(1, width))
        if len(rows) <= height or most == 1:
            return rows
        most -= 1


def facts(view: RunView, row: JournalRow, most: int | None = None) -> list[str]:
    """Return what a journal row says about a spike, one fact per line: each run of neighbouring bins is one.

    Args:
        view: the run.
        row: the journal row.
        most: lines about bins, beside one that counts the others; None for all.
    """
    edges = view.edges
    bins = sorted({place for each in _list(row.get("bins")) if (place := whole(each)) is not None})
    groups = _neighbours([place for place in bins if 0 <= place < len(edges) - 1])
    unknown = [place for place in bins if not 0 <= place < len(edges) - 1]
    lines = [f"step {row.get('step', '?')} {said(row)}"]
    told = [
        f"{_named(first, last)}: t from {number(edges[first])} to {number(edges[last + 1])}" for first, last in groups
    ] + [f"bin {place}: its times are not known" for place in unknown]
    sizes = [last - first + 1 for first, last in groups] + [1] * len(unknown)
    lines += told[:most]
    if left := sum(sizes[most:]) if most is not None else 0:
        lines.append(f"and {left} more bin{'s' * (left > 1)}")
    times = [time for each in _list(row.get("times")) if (time := number_of(each)) is not None]
    if times:
        more = ", …" if len(times) > _TIMES else ""
        lines.append(f"t of its samples: {', '.join(map(number, times[:_TIMES]))}{more}")
    return lines if bins or times else [*lines, "the row names no bin and no time"]


def _neighbours(places: list[int]) -> list[tuple[int, int]]:
    """Return the first and the last of each run of neighbours in ascending numbers."""
    groups: list[tuple[int, int]] = []
    for place in places:
        if groups and place == groups[-1][1] + 1:
            groups[-1] = groups[-1][0], place
        else:
            groups.append((place, place))
    return groups


def _named(first: int, last: int) -> str:
    return f"bin {first}" if first == last else f"bins {first} to {last}"


def _list(found: object) -> list[object]:
    return found if isinstance(found, list) else []
