"""A run's recipe: complete, or as the user gave it."""

import asyncio
import io
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.highlight import highlight
from textual.screen import Screen
from textual.widgets import Static

from cmbench.rundir.files import opened
from cmbench.rundir.layout import RunDir
from cmbench.text import plain
from cmbench.tui.screens.base import close_help, unless_gone
from cmbench.tui.text import content
from cmbench.tui.widgets.key_bar import KeyBar
from cmbench.words.signs import short

_LONGEST = 200_000  # characters; a recipe has some thousands


class RecipeScreen(Screen[None]):
    """A recipe as highlighted TOML. Its text is only shown, never interpreted."""

    DEFAULT_CSS = """
    RecipeScreen #title { height: 1; padding: 0 1; background: $panel; }
    RecipeScreen #toml { width: auto; padding: 0 1; }
    RecipeScreen VerticalScroll { overflow-x: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "other", "Complete / as given", id="recipe.other", priority=True),
        Binding("escape,v", "leave", "Back", id="recipe.back"),
        Binding("j,down", "scroll('down')", "Down", show=False, id="recipe.down"),
        Binding("k,up", "scroll('up')", "Up", show=False, id="recipe.up"),
    ]

    def __init__(self, run: RunDir) -> None:
        """Take the run whose recipe is shown."""
        super().__init__()
        self.run_dir = run
        self.files = [run.recipe, run.recipe_source]

    def compose(self) -> ComposeResult:
        """Lay out the name of the file above its text."""
        yield Static(id="title")
        with VerticalScroll():
            yield Static(id="toml")
        yield KeyBar()

    def on_mount(self) -> None:
        """Begin with the complete recipe."""
        self.query_one(VerticalScroll).focus()
        self._show()

    def action_other(self) -> None:
        """Switch to the other file."""
        self.files.reverse()
        self._show()

    def action_leave(self) -> None:
        """Return to the previous screen."""
        if not close_help(self):
            self.dismiss()

    def action_scroll(self, way: str) -> None:
        """Scroll by a line."""
        self.query_one(VerticalScroll).scroll_relative(y=1 if way == "down" else -1, animate=False)

    @work(exclusive=True)
    async def _show(self) -> None:
        shown, other = self.files
        toml = await asyncio.to_thread(read_toml, shown)
        title = content(f"{short(self.run_dir.path)} · {shown.name}") + content(f"  tab: {other.name}", "dim")
        with unless_gone:
            self.query_one("#title", Static).update(title)
            self.query_one("#toml", Static).update(toml)
            self.query_one(VerticalScroll).scroll_home(animate=False)


def read_toml(path: Path) -> Content:
    """Return the highlighted text of a file, or why there is none."""
    try:
        with io.TextIOWrapper(opened(path), encoding="utf-8", errors="replace") as file:
            text = file.read(_LONGEST)
    except OSError as error:
        return content(f"{path.name}: cannot be read: {error.strerror}", "$text-error")
    return highlight("\n".join(map(plain, text.split("\n"))), language="toml")
