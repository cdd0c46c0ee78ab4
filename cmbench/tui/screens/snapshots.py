"""Snapshots: a model's samples over the steps of its training, side by side or blinking."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import OptionList, Static

from cmbench.rundir.layout import RunDir
from cmbench.rundir.snapshots import Album, AlbumReader, has_any
from cmbench.tui.screens._snapshot_view import SnapshotView, Wanted, slider
from cmbench.tui.screens.base import ReadingScreen, close_help
from cmbench.tui.text import content
from cmbench.tui.widgets.drawing import Points
from cmbench.tui.widgets.key_bar import KeyBar
from cmbench.tui.widgets.picture_row import PictureRows, Shown
from cmbench.tui.widgets.scatter import EXTENT, extent_for
from cmbench.tui.widgets.step_list import StepList
from cmbench.views.report import first_snapshot
from cmbench.words.signs import short

_WIDE = 100  # columns needed for the list of steps and for pictures side by side
_LIST = 29
_PICTURE = 40  # columns of a picture beside others
_BLINK = 0.5  # seconds


def _bind(keys: str, action: str, description: str, name: str, shown_as: str = "") -> Binding:
    """Bind keys to an action. Only bindings with `shown_as` appear in the footer."""
    return Binding(keys, action, description, id=f"snapshots.{name}", show=bool(shown_as), key_display=shown_as or None)


class SnapshotsScreen(ReadingScreen):
    """The snapshots of a run, or of two runs out of several, side by side.

    Args:
        runs: one or more runs; the first two that have snapshots are shown first.
        letters: letters for the runs, used where there are several.
    """

    CSS = """
    SnapshotsScreen {
        #title, #slider { height: 1; padding: 0 1; }
        #title { background: $panel; }
        #path { height: auto; max-height: 8; padding: 0 1; display: none; }
        #empty { width: 1fr; height: 1fr; content-align: center middle; display: none; }
        &.-narrow StepList { display: none; }
        &.-path #path { display: block; }
        &.-empty #empty { display: block; }
        &.-empty #body { display: none; }
    }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (_WIDE, "-wide")]
    BINDINGS: ClassVar[list[BindingType]] = [
        _bind("left,up", "move(-1)", "scrub", "earlier", "←→"),
        _bind("right,down", "move(1)", "one later", "later"),
        _bind("shift+left", "move(-10)", "ten earlier", "ten_earlier"),
        _bind("shift+right", "move(10)", "ten later", "ten_later"),
        _bind("home", "first", "first", "first"),
        _bind("end", "newest", "newest", "newest"),
        _bind("tab", "turn(1)", "sampler", "turn", "tab"),
        _bind("shift+tab", "turn(-1)", "sampler before", "turn_back"),
        *(_bind(str(n), f"only({n})", f"{n}-step alone", f"only_{n}") for n in range(1, 10)),
        _bind("0", "only(0)", "steps", "all", "0-9"),
        _bind("V", "view", "film", "view", "V"),
        _bind("m", "pin", "reference", "pin", "m"),
        _bind("B", "blink", "blink", "blink", "B"),
        _bind("J", "link", "link", "link", "J"),
        _bind("right_square_bracket", "next_run(1)", "other run", "next_run", "]"),
        _bind("left_square_bracket", "next_run(0)", "other first run", "next_first_run"),
        _bind("F", "path", "file", "path", "F"),
        _bind("escape", "back", "back", "back", "esc"),
    ]

    def __init__(self, *runs: RunDir, letters: Sequence[str] = "AB") -> None:
        super().__init__()
        self._runs = runs
        self._readers = [AlbumReader(run) for run in runs]
        self.view = SnapshotView([short(run.path) for run in runs], letters)
        self.blinking = self.flipped = False
        self._extent = EXTENT
        self._told: dict[str, tuple[str, ...]] = {}

    def compose(self) -> ComposeResult:
        """Lay out the steps, a row of pictures per run, and the slider."""
        self.view.ascii = self.bench.ascii
        protocol = "" if self.view.ascii else self.bench.pixels
        yield Static(id="title")
        yield Static(id="empty")
        with Horizontal(id="body"):
            yield StepList()
            yield PictureRows(protocol)
        yield Static(id="path")
        yield Static(id="slider")
        yield KeyBar(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to follow the runs."""
        seldom = max(_BLINK, self.bench.poll_seconds)  # on a slow line pictures change no faster than numbers
        self._blinker = self.set_interval(seldom, self._flip, pause=True)
        self._arrange()
        self.follow()

    def on_resize(self) -> None:
        """Show as many pictures as there is room for."""
        self._arrange()

    async def look(self, anew: bool) -> None:
        """Look for new files."""
        sides = self.view.choose(await self.read(self._having))
        if not sides:
            self._tell("empty", *await self.read(self._awaited))
        albums = await self.read(self._read, sides)
        if (sides, albums) != (self.view.sides, self.view.albums):
            self.view.take(albums)
            self._arrange()

    def _having(self) -> list[int]:
        return [i for i, run in enumerate(self._runs) if has_any(run.snapshots)]

    def _awaited(self) -> list[str]:
        """Return when each run's first snapshot comes."""
        found = [first_snapshot(run) for run in self._runs]
        if len(found) == 1:
            return found
        return [f"{title}: {text}" for title, text in zip(self.view.titles, found, strict=True)]

    def _read(self, sides: Sequence[int]) -> dict[int, Album]:
        return {run: self._readers[run].read() for run in sides}

    @on(OptionList.OptionSelected)
    def _choose(self, event: OptionList.OptionSelected) -> None:
        self._go_to(event.option_index)

    def action_move(self, by: int) -> None:
        """Go some steps back or forward."""
        self._go_to(self.view.position + by)

    def action_first(self) -> None:
        """Go to the first step."""
        self._go_to(0)

    def action_newest(self) -> None:
        """Go to the newest step, and follow new ones."""
        self._go_to(len(self.view.steps))

    def _go_to(self, index: int) -> None:
        self.view.go_to(index)
        self._arrange()

    def action_turn(self, by: int) -> None:
        """Show the next number of sampler steps, if there is no room for all."""
        self.view.turn(by)
        self._arrange()

    def action_only(self, sampler_steps: int) -> None:
        """Show only one number of sampler steps, or all of them (0)."""
        if sampler_steps and sampler_steps not in self.view.sampler_steps:
            self.notify(f"no {sampler_steps}-step snapshots", timeout=3)
            return
        self.view.only = sampler_steps
        self._arrange()

    def action_view(self) -> None:
        """Show the next view: samples, film strip or latent plane."""
        if not self.view.next_kind():
            self.notify("no film strip was recorded with these snapshots", timeout=3)
        self._arrange()

    def action_pin(self) -> None:
        """Pin the current step as B of the blink comparator. Pinning the same step again releases it."""
        self.view.pin()
        self._arrange()

    def action_blink(self) -> None:
        """Start or stop blinking between the current step and the pinned one, or the other run."""
        if not self.blinking and self.view.against() is None:
            self.notify("m at another step makes it the reference; or open two runs", timeout=3)
            return
        self._set_blinking(not self.blinking)
        self._arrange()

    def action_link(self) -> None:
        """Show both runs, one above the other."""
        self.view.linked = not self.view.linked
        self._set_blinking(False)
        self._arrange()

    def action_next_run(self, side: int) -> None:
        """Replace the first (0) or the second run by the next that has snapshots."""
        if self.view.next_run(side):
            self.wake()
        else:
            self.notify("no other run has snapshots", timeout=3)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the link only with two runs or more, and other runs only with three or more."""
        return len(self._runs) >= {"link": 2, "next_run": 3}.get(action, 0)

    def action_path(self) -> None:
        """Show the paths of the files, or hide them."""
        self.toggle_class("-path")

    def action_back(self) -> None:
        """Close the help if it is open, otherwise the screen."""
        if not close_help(self):
            self.dismiss()

    def _set_blinking(self, on: bool) -> None:
        self.blinking, self.flipped = on, on  # show B at once, so that the key has a visible effect
        if on:
            self.view.linked = False
            self._blinker.reset()
            self._blinker.resume()
        else:
            self._blinker.pause()

    def _flip(self) -> None:
        self.flipped = not self.flipped
        self._arrange()

    def _arrange(self) -> None:
        """Update everything from the view. Unchanged parts are not drawn again."""
        if not self.is_mounted:
            return
        view, width = self.view, self.size.width
        rows = view.rows(max(1, (width - _LIST) // _PICTURE) if width >= _WIDE else 1, self.blinking, self.flipped)
        self.set_class(not rows, "-empty")
        self.query_one(StepList).show([view.line(step) for step in view.steps], view.position)
        self._tell("title", self._title())
        self._tell("slider", self._slider(width - 2))
        self._tell("path", *(wanted.path for row in rows for wanted in row))
        self._show(rows)

    @work(group="pictures", exclusive=True)
    async def _show(self, wanted: Sequence[Sequence[Wanted]]) -> None:
        """Read files in a thread, then show them."""
        rows = await asyncio.to_thread(lambda: [[Shown(w.caption, w.drawing()) for w in row] for row in wanted])
        for drawing in (shown.drawing for row in rows for shown in row):
            if isinstance(drawing, Points):
                self._extent = extent_for(drawing.xy, self._extent, drawing.data)
        await self.query_one(PictureRows).show(rows, self._extent)

    def _slider(self, width: int) -> str:
        view = self.view
        if view.step is None:
            return ""
        place = f"  {view.step:,}  {view.position + 1}/{len(view.steps)}" + ("  following" if view.following else "")
        return slider(max(8, width - len(place)), view.position, len(view.steps), view.ascii) + place

    def _title(self) -> str:
        state = [f"B = {self.view.pinned:,}"] if self.view.pinned is not None else []
        state += ["blink"] if self.blinking else []
        name = "snapshots" if self.view.kind == "samples" else self.view.called
        return "  ".join([" | ".join(self.view.titles), name, *state])

    def _tell(self, name: str, *lines: str) -> None:
        """Set some lines of text, if they differ."""
        if self._told.get(name) != lines:
            self._told[name] = lines
            text = Content("\n").join(content(line) for line in lines)
            self.query_one(f"#{name}", Static).update(text, layout=name == "path")
