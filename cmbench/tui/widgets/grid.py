"""A widget of characters in cells that tells Textual which cells changed, and nothing where none did."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

_NEAR = 12  # cells: two changes nearer than this go to the terminal as one, for moving its cursor costs bytes too


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
        """Put a text into a row, cut off at the edges. Characters are one cell wide."""
        height, width = self.characters.shape
        if not 0 <= y < height:
            return
        text = text[max(0, -x) : max(0, width - x)]
        x = max(0, x)
        if text:
            self.characters[y, x : x + len(text)] = list(text)
            self.styles[y, x : x + len(text)] = style


class GridWidget(Widget):
    """Shows a Grid. Subclasses draw one in `draw`; `repaint` calls it and passes on what differs."""

    _grid: Grid | None = None
    _palette: Sequence[Style] = ()

    @property
    def ascii(self) -> bool:
        """Whether plain characters alone may be used."""
        return bool(getattr(self.app, "ascii", False))

    def draw(self, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return the content and its styles."""
        raise NotImplementedError

    def repaint(self) -> None:
        """Draw anew, and let the terminal have the cells that changed."""
        if not self.is_mounted or not self.size.width or not self.size.height:
            return
        before, palette_before = self._grid, self._palette
        self._grid, self._palette = self.draw(self.size.width, self.size.height)
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
            self.refresh(*(region.translate(self.gutter.top_left) for region in regions))

    def on_resize(self) -> None:
        """Draw in the new size."""
        self._grid = None
        self.repaint()

    def notify_style_update(self) -> None:
        """Draw in the new theme."""
        super().notify_style_update()
        self._grid = None
        self.repaint()

    def render_line(self, y: int) -> Strip:
        """Return a row of cells, neighbours of one style as one segment."""
        width = self.size.width
        if self._grid is None or y >= len(self._grid.styles) or self._grid.styles.shape[1] != width:
            return Strip.blank(width, self.rich_style)
        styles, characters = self._grid.styles[y], self._grid.characters[y]
        edges = [0, *(np.flatnonzero(np.diff(styles)) + 1).tolist(), width]
        base = self.rich_style
        parts = [
            Segment("".join(characters[start:stop]), base + self._palette[styles[start]])
            for start, stop in pairwise(edges)
        ]
        return Strip(parts, width)


def _spans(cells: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Gather ascending cells into half-open spans, near ones together."""
    splits = np.flatnonzero(np.diff(cells) > _NEAR) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(cells, splits)]
