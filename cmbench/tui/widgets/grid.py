"""A widget of characters in cells that tells Textual which cells changed, and nothing where none did."""

import re
import unicodedata
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

from cmbench.text import plain

_NEAR = 12  # cells: two changes nearer than this go to the terminal as one, for moving its cursor costs bytes too

_SECOND = "\0"  # stands in the second cell of a wide character; in an array of characters it is the empty one
_EMOJI_STYLE = "\ufe0f"  # makes the sign before it as wide as the terminal likes

# Nearly all that is drawn, each of one cell: Latin, Greek, Cyrillic, lines, blocks and braille.
_NARROW = re.compile("[ -~\xa1-\xac\xae-\u02ff\u0370-\u0482\u2500-\u25fc\u2800-\u28ff]*")

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
    has_wide: bool = False  # whether a character of two cells was written

    @classmethod
    def blank(cls, width: int, height: int) -> "Grid":
        """Return spaces in style 0."""
        return cls(np.full((height, width), " ", "U1"), np.zeros((height, width), np.int32))

    def write(self, x: int, y: int, text: str, style: int) -> None:
        """Put a text into a row, cut off at the edges. No wide character keeps one half of its two cells."""
        height, width = self.characters.shape
        if not 0 <= y < height:
            return
        cells = cut(laid_out(text), max(0, -x), max(0, width - x))
        x = max(0, x)
        stop = x + len(cells)
        if cells:
            if self.has_wide:
                self._blank_halves(x, y)
                self._blank_halves(stop, y)
            self.has_wide = self.has_wide or _SECOND in cells
            self.characters[y, x:stop] = list(cells)
            self.styles[y, x:stop] = style

    def _blank_halves(self, x: int, y: int) -> None:
        """Put spaces in place of a wide character that lies across the left edge of a cell."""
        if x < self.characters.shape[1] and not self.characters[y, x]:
            self.characters[y, x - 1 : x + 1] = " "

    def write_apart(self, x: int, y: int, labels: Iterable[tuple[int, str]], style: int) -> None:
        """Put labels (column from `x` on, text) into a row where each has room, a space between them at least."""
        columns, free = self.characters.shape[1] - x, 0
        for column, label in labels:
            needed = len(laid_out(label))
            start = min(column, columns - needed)
            if start >= free:
                self.write(x + start, y, label, style)
                free = start + needed + 1

    def make_ascii(self) -> None:
        """Put plain characters in place of others: names and units may hold any."""
        self.characters[self.characters == ""] = "?"
        for place in zip(*np.nonzero(self.characters > "\x7f"), strict=True):
            self.characters[place] = _ASCII.get(str(self.characters[place]), "?")


def laid_out(text: str) -> str:
    """Return a text with one character a cell, as `Grid.write` puts it: for its length, and to cut it.

    A letter and its mark become one character where there is such a one, and a wide character is followed by _SECOND.
    What has no cell of its own, as control characters have not, is shown as ?.
    """
    if _NARROW.fullmatch(text):
        return text
    one_each = unicodedata.normalize("NFC", text.replace(_SECOND, "").replace(_EMOJI_STYLE, ""))
    return "".join(("?", c, c + _SECOND)[cell_len(c)] for c in one_each)


def cut(cells: str, start: int, stop: int) -> str:
    """Return cells from `start` to `stop` of a text that is laid out, with a space for half a wide character."""
    part = cells[start:stop]
    if part.startswith(_SECOND):
        part = " " + part[1:]
    return part[:-1] + " " if part and cells[stop : stop + 1] == _SECOND else part


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

    @property
    def colourless(self) -> bool:
        """Whether what colours tell must be told by signs as well."""
        return self.ascii or self.app.no_color

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
        grid.has_wide = inner.has_wide
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
        title, note = (cut(laid_out(plain(text)), 0, room) for text in (self.frame_title, self.frame_note))
        if self.has_focus and self.colourless:
            title = cut((">" if self.ascii else "▸") + " " + title, 0, room)
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
        if before.has_wide or self._grid.has_wide:
            _join_halves(changed, before, self._grid)
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


def _join_halves(changed: NDArray[np.bool_], *grids: Grid) -> None:
    """Have both cells of a wide character change where one does: a terminal cannot show half of it."""
    seconds = np.logical_or.reduce([grid.characters[:, 1:] == "" for grid in grids])
    either = (changed[:, 1:] | changed[:, :-1]) & seconds
    changed[:, 1:] |= either
    changed[:, :-1] |= either


def _spans(cells: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Gather ascending cells into half-open spans, near ones together."""
    splits = np.flatnonzero(np.diff(cells) > _NEAR) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(cells, splits)]
