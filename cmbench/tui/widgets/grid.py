"""A widget of characters in cells that tells Textual only which cells changed."""

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

_NEAR = 12  # cells: two changes nearer than this are sent as one, because moving the terminal's cursor costs bytes too

_SECOND = "\0"  # fills the second cell of a wide character; in an array of characters it is the empty string
_EMOJI_STYLE = "\ufe0f"  # makes the sign before it as wide as the terminal likes

# Nearly all drawn characters, each one cell wide: Latin, Greek, Cyrillic, lines, blocks and braille.
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
    """Characters (height, width) and the style number of each."""

    characters: NDArray[np.str_]
    styles: NDArray[np.int32]
    has_wide: bool = False  # whether a character of two cells was written

    @classmethod
    def blank(cls, width: int, height: int) -> "Grid":
        """Return a grid of spaces in style 0."""
        return cls(np.full((height, width), " ", "U1"), np.zeros((height, width), np.int32))

    def write(self, x: int, y: int, text: str, style: int) -> None:
        """Write a text into a row, cut off at the edges. A wide character that loses one cell is blanked."""
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
        """Replace a wide character that crosses the left edge of a cell by spaces."""
        if x < self.characters.shape[1] and not self.characters[y, x]:
            self.characters[y, x - 1 : x + 1] = " "

    def write_apart(self, x: int, y: int, labels: Iterable[tuple[int, str]], style: int) -> None:
        """Write those labels (column from `x` on, text) into a row that fit, at least one space apart."""
        columns, free = self.characters.shape[1] - x, 0
        for column, label in labels:
            needed = len(laid_out(label))
            start = min(column, columns - needed)
            if start >= free:
                self.write(x + start, y, label, style)
                free = start + needed + 1

    def make_ascii(self) -> None:
        """Replace all other characters by ASCII: names and units may contain any."""
        self.characters[self.characters == ""] = "?"
        for place in zip(*np.nonzero(self.characters > "\x7f"), strict=True):
            self.characters[place] = _ASCII.get(str(self.characters[place]), "?")


def laid_out(text: str) -> str:
    """Return a text with one character per cell, as `Grid.write` writes it, to measure or cut it.

    A letter and its combining mark become one character if there is one. A wide character is followed by _SECOND.
    A character without a cell of its own, such as a control character, becomes "?".
    """
    if _NARROW.fullmatch(text):
        return text
    one_each = unicodedata.normalize("NFC", text.replace(_SECOND, "").replace(_EMOJI_STYLE, ""))
    return "".join(("?", c, c + _SECOND)[cell_len(c)] for c in one_each)


def cut(cells: str, start: int, stop: int) -> str:
    """Return cells `start` to `stop` of a laid-out text, with a space for half a wide character."""
    part = cells[start:stop]
    if part.startswith(_SECOND):
        part = " " + part[1:]
    return part[:-1] + " " if part and cells[stop : stop + 1] == _SECOND else part


def whole_parts(text: str, room: int) -> str:
    """Return a laid-out text without the parts, two spaces apart, that do not fit; cut if the first does not fit."""
    parts = text.split("  ")
    while len(parts) > 1 and len(laid_out("  ".join(parts))) > room:
        parts.pop()
    return cut(laid_out("  ".join(parts)), 0, room)


class GridWidget(Widget):
    """Shows a Grid. Subclasses implement `draw`; `repaint` calls it and passes on the cells that differ.

    With `framed` it draws its own frame, because Textual's borders redraw the whole widget for each new title.
    """

    framed = False
    frame_title = ""
    frame_note = ""  # text in the lower edge

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._styles_kept: dict[str, Style] = {}

    _grid: Grid | None = None
    _palette: Sequence[Style] = ()

    def style(self, name: str) -> Style:
        """Return the style of a pen: a key of PENS or a variable of the theme.

        Styles are cached until the theme changes. They are not component classes, because Textual computes those anew
        each time, which takes longer than drawing a chart.
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
        """Whether to use ASCII only."""
        return bool(getattr(self.app, "ascii", False))

    @property
    def colourless(self) -> bool:
        """Whether signs must show what colours show elsewhere."""
        return self.ascii or self.app.no_color

    def draw(self, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return the content without the frame, and its styles; the first style is plain."""
        raise NotImplementedError

    @property
    def inner_width(self) -> int:
        """Number of columns inside the frame."""
        return max(0, self.size.width - (2 if self.framed else 0))

    @property
    def inner_height(self) -> int:
        """Number of rows inside the frame."""
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
        title, note = cut(laid_out(plain(self.frame_title)), 0, room), whole_parts(plain(self.frame_note), room)
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
        """Redraw, and send the cells that changed to the terminal."""
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
        """Show in the frame that the focus is gone."""
        self.repaint()

    def on_resize(self) -> None:
        """Redraw in the new size."""
        self._grid = None
        self.repaint()

    def notify_style_update(self) -> None:
        """Redraw in the new theme."""
        super().notify_style_update()
        self._styles_kept.clear()
        self._grid = None
        self.repaint()

    def render_line(self, y: int) -> Strip:
        """Return a row of cells; neighbours of the same style form one segment."""
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
    """Give a space the style of its left neighbour if that makes no visible difference: each change costs bytes."""
    free = (characters == " ") & bare[styles]
    own = np.where(free, 0, np.arange(len(styles)))
    source = np.maximum.accumulate(own)
    return np.where(free & bare[styles[source]], styles[source], styles)


def _join_halves(changed: NDArray[np.bool_], *grids: Grid) -> None:
    """Mark both cells of a wide character as changed if one is: a terminal cannot show half of it."""
    seconds = np.logical_or.reduce([grid.characters[:, 1:] == "" for grid in grids])
    either = (changed[:, 1:] | changed[:, :-1]) & seconds
    changed[:, 1:] |= either
    changed[:, :-1] |= either


def _spans(cells: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Group ascending cells into half-open spans, joining near ones."""
    splits = np.flatnonzero(np.diff(cells) > _NEAR) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(cells, splits)]
