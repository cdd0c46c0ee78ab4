"""Parts of a whole over time t, stacked: the parts of the tangent's size."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.style import Style

from cmbench.rundir.columns import Floats
from cmbench.tui import bin_axis
from cmbench.tui.widgets.grid import Grid, GridWidget
from cmbench.views.axes import Scale, ticks
from cmbench.words.numbers import number

_LABEL = 7


class Stack(GridWidget):
    """Columns of several stacked parts. Signs as well as colours tell the parts apart.

    Args:
        title: title in the frame.
        t_label: returns the label of an edge between bins, given its number.
    """

    framed = True
    _SIGNS = ("█", "▒", "░")
    _ASCII_SIGNS = ("#", "+", ".")

    def __init__(self, title: str, t_label: Callable[[int], str] = str, id: str | None = None) -> None:
        super().__init__(id=id)
        self.title, self.t_label = title, t_label
        self.edges: Sequence[float] = ()  # between the bins, for round places on the axis
        self.note = ""  # text in the lower frame if there are no parts
        self._parts: Sequence[tuple[str, Floats]] = ()

    def show(self, parts: Sequence[tuple[str, Floats]]) -> None:
        """Show at most three parts, each with its name and its sizes (bins,), the first at the bottom."""
        self._parts = parts
        self.repaint()

    def draw(self, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return the drawing of columns and axes."""
        grid = Grid.blank(width, height)
        self.frame_title, self.frame_note = self.title, self.note
        palette = [Style.null(), *(self.style(pen) for pen in ("muted", "line-0", "line-1", "line-2"))]
        columns, rows = width - _LABEL - 1, height - 1
        if columns < 4 or rows < 2 or not self._parts:
            return grid, palette
        shared = min(len(size) for _, size in self._parts)
        sizes = np.stack([np.asarray(size[:shared], np.float64) for _, size in self._parts])
        if not (bins := sizes.shape[1]):
            return grid, palette
        tops = np.cumsum(np.where(np.isfinite(sizes) & (sizes > 0), sizes, 0.0), axis=0)
        top = float(tops[-1].max()) or 1.0
        place = np.arange(columns) * bins // columns
        highest = np.maximum.reduceat(tops, place, axis=1)  # of the bins in a column, if there are several
        heights = np.rint(highest / top * rows).astype(np.int64)
        self._fill(grid, heights, rows)
        for y in range(rows):
            grid.write(_LABEL, y, "|" if self.ascii else "│", 1)
        for position, label in ticks(0.0, top, Scale(), max(2, rows // 2)):
            y = min(rows - 1, max(0, rows - 1 - int(position / top * rows)))
            grid.write(0, y, f"{label[:_LABEL]:>{_LABEL}}", 1)
        grid.write(_LABEL, rows, "+" if self.ascii else "└", 1)
        grid.write_apart(_LABEL + 1, rows, bin_axis.labels(self.edges, self.t_label, bins, columns), 1)
        self._label_frame(top)
        return grid, palette

    def _fill(self, grid: Grid, heights: NDArray[np.int64], rows: int) -> None:
        level = np.arange(rows - 1, -1, -1)[:, None]
        signs = self._ASCII_SIGNS if self.ascii else self._SIGNS
        part = (slice(0, rows), slice(_LABEL + 1, None))
        for i in reversed(range(len(heights))):
            below = level < heights[i]
            grid.characters[part][below] = signs[i]
            grid.styles[part][below] = 2 + i

    def _label_frame(self, top: float) -> None:
        signs = self._ASCII_SIGNS if self.ascii else self._SIGNS
        legend = "  ".join(f"{sign} {name}" for sign, (name, _) in zip(signs, self._parts, strict=False))
        self.frame_title, self.frame_note = f"{self.title}  {legend}", f"largest sum {number(top)}"
