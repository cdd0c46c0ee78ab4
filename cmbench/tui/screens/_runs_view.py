"""What the browser shows: the runs of a folder, read again and again, as a table with a title and a preview."""

import asyncio
import time
from pathlib import Path
from typing import Any, Protocol, cast

from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.screen import Screen
from textual.widgets import DataTable, Static

from cmbench.comparison.filter import Filter, parse
from cmbench.rundir import losses
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.overview import Glance, Overview
from cmbench.text import plain
from cmbench.tui.kept import Kept
from cmbench.tui.screens.base import unless_gone
from cmbench.tui.text import content
from cmbench.tui.widgets.key_bar import KeyBar
from cmbench.tui.widgets.run_cells import SPARK, WIDE, Look, columns_at, in_order
from cmbench.tui.widgets.run_filter import FilterBar
from cmbench.tui.widgets.run_preview import preview
from cmbench.tui.widgets.run_table import RunTable
from cmbench.words.times import age


class Host(Protocol):
    """What the browser asks of the application that shows it."""

    poll_seconds: float
    ascii: bool

    def open_run(self, run: RunDir) -> None:
        """Show a run."""

    def compare_runs(self, runs: list[RunDir]) -> None:
        """Show several runs beside each other."""


_SETTLE = 0.05  # seconds that the table must stand still before files are read for what it shows
_AT_FIRST = 100  # rows that an empty table gets before it is painted
_AGES_EVERY = 10.0  # seconds between looks at the clock while nothing changes


class RunsView(Screen[None]):
    """The browser but for its keys: `RunsScreen` changes filter, order and marks and calls `_show`."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
    DEFAULT_CSS = """
    RunsView #title { height: 1; padding: 0 1; background: $panel; }
    RunsView #preview { display: none; width: 44; padding: 0 1; border-left: vkey $primary; }
    RunsView.-wide #preview { display: block; }
    """

    def __init__(self, runs_dir: Path) -> None:
        """Take where the runs are."""
        super().__init__()
        self.runs_dir = runs_dir
        self._overview = Overview(runs_dir)
        self._taken: list[Glance] = []
        self._glances: dict[str, Glance] = {}  # of all runs, oldest first
        self._courses: dict[str, tuple[int, tuple[float | None, ...]]] = {}  # name -> step, losses until then
        self._marked: set[str] = set()
        self._filter: Filter = parse("")
        self._filter_text = ""
        self._sorted_by, self._is_reversed, self._metric = "age", False, ""
        self._meta: tuple[str, dict[str, Any]] = ("", {})
        self._next_ages = 0.0
        self._wake = asyncio.Event()

    @property
    def host(self) -> Host:
        """The application."""
        return cast(Host, self.app)

    def compose(self) -> ComposeResult:
        """Put the table beside the preview, between a line of state and the keys."""
        yield Static(content("reading runs …"), id="title")
        with Horizontal():
            yield RunTable(self.host.ascii)
            with VerticalScroll(id="preview", can_focus=False):
                yield Static()
        yield FilterBar()
        yield KeyBar("select_cursor", "mark", "compare", show_command_palette=False)

    @property
    def current(self) -> Glance | None:
        """The run under the cursor."""
        return self._glances.get(self.table.current or "")

    def on_mount(self) -> None:
        """Begin to read, with filter and order as they were left."""
        view = self._kept.runs
        self._filter, self._filter_text = parse(view.filter), view.filter
        self._sorted_by, self._is_reversed, self._metric = view.sorted_by, view.is_reversed, view.metric
        self.query_one(FilterBar).begin(view.filter)
        self.table.focus()
        self.watch(self.table, "scroll_y", self._scrolled, init=False)
        self._follow()

    def on_screen_resume(self) -> None:
        """Catch up with what happened behind another screen."""
        self._wake.set()

    def on_resize(self, event: events.Resize) -> None:
        """Choose the columns for the width, once the table has its own."""
        self.call_after_refresh(self._show)

    @property
    def _kept(self) -> Kept:
        """The view as it was left."""
        found = getattr(self.app, "kept", None)
        return found if isinstance(found, Kept) else Kept()

    @property
    def table(self) -> RunTable:
        """The table of runs."""
        return self.query_one(RunTable)

    @work
    async def _follow(self) -> None:
        """Read the folder for as long as this screen is on top."""
        anew = True
        self._wake.clear()
        while True:
            if self.is_active:
                glances = await asyncio.to_thread(self._overview.read, anew)
                with unless_gone:
                    self._take(glances)
            anew = await self._woken()

    async def _woken(self) -> bool:
        """Wait for the next look, and return whether something is known to have happened."""
        try:
            await asyncio.wait_for(self._wake.wait(), self.host.poll_seconds)
        except asyncio.TimeoutError:
            return False
        self._wake.clear()
        return True

    def _take(self, glances: list[Glance]) -> None:
        if glances is not self._taken:
            self._taken, self._glances = glances, {glance.name: glance for glance in glances}
            self._marked &= self._glances.keys()
            self._show()
        elif time.monotonic() >= self._next_ages:
            self._show()

    def _show(self, follow: bool = False) -> None:
        """Bring the table up to date; `follow` where the user moved the rows."""
        now, width, start = time.time(), self.size.width, time.monotonic()
        kept = [glance for glance in self._glances.values() if self._filter(glance)]
        self.table.lay_out(columns_at(width, self._metric), self._sorted_by, self._is_reversed)
        looks = [self._look(glance, now) for glance in in_order(kept, self._sorted_by, self._is_reversed, now)]
        if not self.table.row_count and len(looks) > _AT_FIRST:  # the rest is filled in below what is seen
            looks = looks[:_AT_FIRST]
            self.call_after_refresh(self._show, follow)
        self.table.show(looks, follow)
        self._next_ages = start + max(_AGES_EVERY, 100 * (time.monotonic() - start))  # of many runs less often
        self._say_state(len(kept))
        self._read_courses()
        self._read_preview()

    def _look(self, glance: Glance, now: float) -> Look:
        course = self._courses.get(glance.name, (0, ()))[1]
        return Look(glance, age(now - glance.heartbeat), glance.name in self._marked, course)

    def _say_state(self, shown: int) -> None:
        total = len(self._glances)
        parts = [f"{shown} of {total} runs" if shown != total else f"{total} runs"]
        parts += [f"{len(self._marked)} marked"] if self._marked else []
        parts += [f"by {self._sorted_by}{', reversed' if self._is_reversed else ''}"]
        parts += [f"filter: {self._filter_text}"] if self._filter_text else []
        line = " · ".join(parts) if total else f"no runs in {self.runs_dir}: cmbench run recipes/ct_edm.toml"
        title = self.query_one("#title", Static)
        if str(title.content) != plain(line):
            title.update(content(line))

    def _scrolled(self) -> None:
        self._read_courses()

    @work(exclusive=True, group="courses")
    async def _read_courses(self) -> None:
        """Read the losses of the runs in sight that went on since."""
        await asyncio.sleep(_SETTLE)
        with unless_gone:
            there = [self._glances[name] for name in self.table.in_sight() if name in self._glances]
            if wanted := [g for g in there if self._courses.get(g.name, (-1, ()))[0] != g.step]:
                await asyncio.to_thread(self._read_courses_of, wanted)
                self._show()

    def _read_courses_of(self, glances: list[Glance]) -> None:
        for glance in glances:
            self._courses[glance.name] = (glance.step, tuple(losses.course(glance.run, SPARK)))

    @on(DataTable.RowHighlighted)
    @work(exclusive=True, group="preview")
    async def _read_preview(self) -> None:
        """Tell of the run under the cursor, where there is room."""
        if not self.has_class("-wide"):
            return
        await asyncio.sleep(_SETTLE)
        with unless_gone:
            glance = self.current
            if glance is not None and self._meta[0] != glance.name:
                meta = await asyncio.to_thread(read_json, glance.run.meta)
                self._meta = (glance.name, meta or {})
            panel = self.query_one("#preview Static", Static)
            shown = preview(glance, self._meta[1], self.host.ascii) if glance else content("")
            if panel.content != shown:
                panel.update(shown)
