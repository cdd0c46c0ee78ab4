"""A widget of characters in cells that tells Textual which cells changed, and nothing where none did."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from cmbench.tui.text import plain

_NEAR = 12  # cells: two changes nearer than this go to the terminal as one, for moving its cursor costs bytes too

_ASCII = {"·": "-", "°": "'", "±": "~"}

PENS = {  # variable of the theme, attributes
    "plain": ("foreground", ""),
    "strong": ("foreground", "bold"),
    "muted": ("foreground-muted", ""),
    "frame": ("surface-lighten-3", ""),
    "focus": ("primary", ""),
    "good": ("success", ""),
    "warning": ("warning", ""),
    "error": ("error", "bold"),
}


@dataclass
class Grid:
    """Characters (height, width) and the number of the style of each."""

    characters: NDArray[np.str_]
    styles: NDArray[np.int32]

    @classmethod
    def blank(cls, width: int, height: int) -> "Grid":
        """Return spaces in style 0."""
        return cls(np.full((height, width), " ", "U1"), np.zeros((height, width), np.int32))

    def write(self, x: int, y: int, text: str, style: int) -> None:
        """Put a text into a row, cut off at the edges. What takes two cells, or none, is shown as ?."""
        height, width = self.characters.shape
        if not 0 <= y < height:
            return
        text = "".join(c if cell_len(c) == 1 else "?" for c in text[max(0, -x) : max(0, width - x)])
        x = max(0, x)
        if text:
            self.characters[y, x : x + len(text)] = list(text)
            self.styles[y, x : x + len(text)] = style

    def write_apart(self, x: int, y: int, labels: Iterable[tuple[int, str]], style: int) -> None:
        """Put labels (column from `x` on, text) into a row where each has room, a space between them at least."""
        columns, free = self.characters.shape[1] - x, 0
        for column, label in labels:
            start = min(column, columns - len(label))
            if start >= free:
                self.write(x + start, y, label, style)
                free = start + len(label) + 1

    def make_ascii(self) -> None:
        """Put plain characters in place of others: names and units may hold any."""
        for place in zip(*np.nonzero(self.characters > "\x7f"), strict=True):
            self.characters[place] = _ASCII.get(str(self.characters[place]), "?")


class GridWidget(Widget):
    """Shows a Grid. Subclasses draw one in `draw`; `repaint` calls it and passes on what differs.

    With `framed` it has a frame of its own: Textual's borders would draw the whole widget anew for each new title.
    """

    framed = False
    frame_title = ""
    frame_note = ""  # stands in the lower edge

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._styles_kept: dict[str, Style] = {}

    _grid: Grid | None = None
    _palette: Sequence[Style] = ()

    def style(self, name: str) -> Style:
        """Return the style of a pen, a name of PENS or a variable of the theme.

        Kept until the theme changes, and not a component class: Textual works those out anew each time, for longer
        than a chart takes to draw.
        """
        if name not in self._styles_kept:
            variable, attributes = PENS.get(name, (name, ""))
            value, _, faded = self.app.theme_variables[variable].partition(" ")  # "ansi_default 50%"
            colour = Color.parse(value)
            if colour.a < 1:
                colour = self.background_colors[1].blend(colour.with_alpha(1), colour.a)
            self._styles_kept[name] = Style.parse(attributes) + Style(
                color=colour.rich_color, dim=True if faded else None
            )
        return self._styles_kept[name]

    @property
    def ascii(self) -> bool:
        """Whether plain characters alone may be used."""
        return bool(getattr(self.app, "ascii", False))

    def draw(self, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return the content, without the frame, and its styles, of which the first is plain."""
        raise NotImplementedError

    @property
    def inner_width(self) -> int:
        """Columns within the frame."""
        return max(0, self.size.width - (2 if self.framed else 0))

    @property
    def inner_height(self) -> int:
        """Rows within the frame."""
        return max(0, self.size.height - (2 if self.framed else 0))

    def _drawn(self) -> tuple[Grid, Sequence[Style]]:
        grid, palette = self.draw(self.inner_width, self.inner_height)
        if self.framed:
            grid, palette = self._in_frame(grid, palette)
        if self.ascii:
            grid.make_ascii()
        return grid, palette

    def _in_frame(self, inner: Grid, palette: Sequence[Style]) -> tuple[Grid, Sequence[Style]]:
        width, height = self.size
        grid, frame = Grid.blank(width, height), len(palette)
        if width < 4 or height < 2:
            return grid, palette
        grid.characters[1:-1, 1:-1], grid.styles[1:-1, 1:-1] = inner.characters, inner.styles
        across, down = ("-", "|") if self.ascii else ("─", "│")
        top, bottom = ("++", "++") if self.ascii else ("╭╮", "╰╯")
        for y, corners in ((0, top), (height - 1, bottom)):
            grid.write(0, y, corners[0] + across * (width - 2) + corners[1], frame)
        for y in range(1, height - 1):
            grid.write(0, y, down, frame)
            grid.write(width - 1, y, down, frame)
        room = max(0, width - 6)
        title, note = plain(self.frame_title)[:room], plain(self.frame_note)[:room]
        if title:
            grid.write(2, 0, f" {title} ", frame + 1)
        if note:
            grid.write(width - len(note) - 4, height - 1, f" {note} ", frame + 2)
        names = ("focus" if self.has_focus else "frame", "strong", "muted")
        styles = [self.style(name) for name in names]
        return grid, [*palette, *styles]

    def repaint(self) -> None:
        """Draw anew, and let the terminal have the cells that changed."""
        if not self.is_mounted or not self.size.width or not self.size.height:
            return
        before, palette_before = self._grid, self._palette
        self._grid, self._palette = self._drawn()
        self._bare = np.array([style.bgcolor is None and not style.reverse for style in self._palette])
        if before is None or before.styles.shape != self._grid.styles.shape or palette_before != self._palette:
            self.refresh()
            return
        changed = (before.characters != self._grid.characters) | (before.styles != self._grid.styles)
        regions = [
            Region(start, int(y), stop - start, 1)
            for y in np.flatnonzero(changed.any(axis=1))
            for start, stop in _spans(np.flatnonzero(changed[y]))
        ]
        if regions:
            self.refresh(*regions)

    def on_focus(self) -> None:
        """Show the focus in the frame."""
        self.repaint()

    def on_blur(self) -> None:
        """Show that the focus has gone."""
        self.repaint()

    def on_resize(self) -> None:
        """Draw in the new size."""
        self._grid = None
        self.repaint()

    def notify_style_update(self) -> None:
        """Draw in the new theme."""
        super().notify_style_update()
        self._styles_kept.clear()
        self._grid = None
        self.repaint()

    def render_line(self, y: int) -> Strip:
        """Return a row of cells, neighbours of one style as one segment."""
        width = self.size.width
        if self._grid is None or y >= len(self._grid.styles) or self._grid.styles.shape[1] != width:
            return Strip.blank(width, self.rich_style)
        characters = self._grid.characters[y]
        styles = _without_needless_changes(self._grid.styles[y], characters, self._bare)
        edges = [0, *(np.flatnonzero(np.diff(styles)) + 1).tolist(), width]
        base = self.rich_style
        parts = [
            Segment("".join(characters[start:stop]), base + self._palette[styles[start]])
            for start, stop in pairwise(edges)
        ]
        return Strip(parts, width)


def _without_needless_changes(
    styles: NDArray[np.int32], characters: NDArray[np.str_], bare: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Give a space the style of its left neighbour where nothing of either would show: each change costs bytes."""
    free = (characters == " ") & bare[styles]
    own = np.where(free, 0, np.arange(len(styles)))
    source = np.maximum.accumulate(own)
    return np.where(free & bare[styles[source]], styles[source], styles)


def _spans(cells: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Gather ascending cells into half-open spans, near ones together."""
    splits = np.flatnonzero(np.diff(cells) > _NEAR) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(cells, splits)]
