"""Drawing of a chart: axes, lines as braille, marks, bands and the cursor, as characters and pen numbers."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbench.text import plain
from cmbench.tui import canvas
from cmbench.tui.canvas import Floats
from cmbench.tui.widgets.chart_window import Window
from cmbench.tui.widgets.grid import Grid
from cmbench.views.axes import Scale, ticks
from cmbench.views.lines import LINES, Band, Line, Mark
from cmbench.words.numbers import number

LABEL = 7  # characters of a number on the vertical axis
PENS = ("muted", "warning", "error", "plain", *(f"line-{i}" for i in range(LINES)), "muted")  # of styles 1 and up
SHADOWS = LINES + 1  # the last pens come again faded, for raw values, in the styles after these

_AXIS, _MARK, _BAD, _CURSOR, _LINE = range(1, 6)
_SHADOW = _LINE + SHADOWS
_FEW = 4  # from this many columns per point on, each point gets a sign
_LEAST = 4  # fewest columns for the lines


class Painter:
    """Draws the visible part of a chart.

    Args:
        window: the visible part of the lines.
        marks: marks on the horizontal axis.
        bands: bands shaded behind the lines.
        shades_gap: whether to shade the gap between the first two lines.
        ascii: whether to use ASCII only.
        colourless: whether dashes must tell lines apart.
    """

    def __init__(
        self,
        window: Window,
        marks: Sequence[Mark] = (),
        bands: Sequence[Band] = (),
        shades_gap: bool = False,
        ascii: bool = False,
        colourless: bool = False,
    ) -> None:
        self._window, self._marks, self._bands, self._shades_gap = window, marks, bands, shades_gap
        self._ascii, self._colourless = ascii, colourless

    def names(self) -> str:
        """Return a legend of the lines' dashes, if colours do not tell the lines apart."""
        lines = self._window.lines
        if not self._colourless or len(lines) < 2:
            return ""
        bar, gap = ("=", "-") if self._ascii else ("━", "╌")
        shown = {"solid": 3 * bar, "dashed": 3 * gap, "dotted": ". ." if self._ascii else "┈┈┈"}
        return "  " + "  ".join(f"{shown[self._dash(i, line)]} {plain(line.label)}" for i, line in enumerate(lines))

    def _dash(self, i: int, line: Line, shadow: bool = False) -> str:
        """Return the dashes of the i-th line. Without colours, solid lines get different dashes by their place."""
        if not self._colourless:
            return "solid" if shadow else line.dash
        if shadow:
            return "dotted"
        return line.dash if line.dash != "solid" else list(canvas.DASHES)[i % len(canvas.DASHES)]

    def painted(self, width: int, height: int) -> Grid | None:
        """Return the drawing, with axes at the left and lower edge; None if there is no room for it."""
        self._rows, self._columns = height - 1, width - LABEL - 1
        if self._rows < 1 or self._columns < _LEAST:
            return None
        self._grid, lines = Grid.blank(width, height), self._window.lines
        self._drawn = [self._window.positions(line) for line in lines]
        self._x_ends = self._window.x_ends()
        self._y_ends = self._window.fit_y(self._drawn, _ends(self._bands, self._window.scale))
        self._draw_axes()
        self._draw_lines()
        self._draw_points()
        self._draw_gap()
        self._draw_marks()
        self._draw_signs()
        self._draw_cursor()
        self._draw_bands()
        return self._grid

    # Cells. `inner` is the part that the lines use: (rows, columns)

    def _inner(self, of: NDArray) -> NDArray:
        return of[: self._rows, LABEL + 1 :]

    def _across(self, x: ArrayLike) -> Floats:
        """Return the columns of positions, from 0 at the left, not rounded."""
        low, high = self._x_ends
        return (np.asarray(x, np.float64) - low) / (high - low) * (self._columns - 1)

    def _down(self, y: ArrayLike) -> Floats:
        """Return the rows of positions, in cells from 0 at the top, not rounded."""
        low, high = self._y_ends
        with np.errstate(over="ignore", invalid="ignore"):
            return (high - np.asarray(y, np.float64)) / ((high - low) / max(1, self._rows - 0.25)) - 0.4

    def _shade(self, where: NDArray[np.bool_], sign: str) -> None:
        """Put a sign into empty cells."""
        free = where & (self._inner(self._grid.characters) == " ")
        self._inner(self._grid.characters)[free] = sign
        self._inner(self._grid.styles)[free] = _AXIS

    # Axes

    def _draw_axes(self) -> None:
        bar, tick, corner = ("|", "+", "+") if self._ascii else ("│", "┤", "└")
        for y in range(self._rows):
            self._grid.write(LABEL, y, bar, _AXIS)
        for position, label in ticks(*self._y_ends, self._window.scale, max(2, self._rows // 2)):
            y = min(self._rows - 1, max(0, round(float(self._down(position)))))
            self._grid.write(0, y, f"{label[:LABEL]:>{LABEL}}{tick}", _AXIS)
        self._grid.write(LABEL, self._rows, corner, _AXIS)
        labels = [(round(float(self._across(at))), label) for at, label in self._x_ticks()]
        self._grid.write_apart(LABEL + 1, self._rows, labels, _AXIS)

    def _x_ticks(self) -> list[tuple[float, str]]:
        x, columns = self._window.x, self._columns
        if x.ticks is not None:
            return x.ticks(*self._x_ends, max(2, columns // x.room))
        if x.label is number:
            return ticks(*self._x_ends, x.scale, max(2, columns // 12))
        places = np.linspace(*self._x_ends, max(2, columns // 16)).tolist()
        return [(place, x.label(x.scale.inverse(place))) for place in places]

    # Lines

    def _draw_lines(self) -> None:
        """Draw the lines, with all shadows below them."""
        masks, owners = [], []
        for shadow in (True, False):
            for i, (line, at) in enumerate(zip(self._window.lines, self._drawn, strict=True)):
                if shadow and at.mean is None:
                    continue
                ends = (at.low, at.high) if shadow or at.mean is None else (at.mean, at.mean)
                spread = canvas.columns(at.x, *ends, line.bad | np.isnan(at.high), self._x_ends, 2 * self._columns)
                dash = self._dash(i, line, shadow)
                masks.append(canvas.dots(spread, self._y_ends, self._rows, dash, coarse=self._ascii))
                owners.append((_SHADOW if shadow else _LINE) + line.colour)
        if masks:
            codes, owner = canvas.layered(masks)
            lit = owner >= 0
            self._inner(self._grid.characters)[lit] = canvas.characters(codes, self._ascii)[lit]
            self._inner(self._grid.styles)[lit] = np.array(owners, np.int32)[owner[lit]]

    def _draw_points(self) -> None:
        """Put a sign on each point of a line with few points, because a single dot is hard to see."""
        signs = ("o+*" if self._ascii else "•◦▪") if self._colourless else "•"
        for i, (line, at) in enumerate(zip(self._window.lines, self._drawn, strict=True)):
            if len(at.x) > self._columns // _FEW:
                continue
            across, down = self._across(at.x), self._down(at.middle)
            there = np.isfinite(down) & (across >= 0) & (across <= self._columns - 1)
            there &= (down > -0.5) & (down < self._rows - 0.4)
            for column, row in zip(np.rint(across[there]), np.rint(down[there]), strict=True):
                self._grid.write(LABEL + 1 + int(column), int(row), signs[i % len(signs)], _LINE + line.colour)

    # Shades in empty cells

    def _draw_gap(self) -> None:
        """Shade the gap between the first two lines, but not the lines, if that is asked for."""
        if not self._shades_gap or len(self._drawn) < 2:
            return
        levels = []
        for line, at in zip(self._window.lines[:2], self._drawn[:2], strict=True):
            y = at.middle if at.mean is None else at.mean
            spread = canvas.columns(at.x, y, y, line.bad | np.isnan(at.high), self._x_ends, self._columns)
            levels.append(self._down(spread.low / 2 + spread.high / 2))
        level = np.arange(self._rows)[:, None]
        between = (level > np.minimum(*levels) + 0.6) & (level < np.maximum(*levels) - 0.6)
        self._shade(between, ":" if self._ascii else "·")

    def _draw_bands(self) -> None:
        """Shade the rows of bands, at least one row for each band in sight."""
        level = np.arange(self._rows)[:, None]
        for band in self._bands:
            low, high = (float(self._window.scale.forward(end)) for end in (band.low, band.high))
            low = self._y_ends[0] if math.isnan(low) else low  # zero or less on a log axis: to its lower end
            top, bottom = self._down([high, low]).tolist()
            if math.isfinite(top) and math.isfinite(bottom) and bottom >= -0.5 and top <= self._rows - 0.5:
                self._shade((level >= round(top)) & (level <= round(bottom)), "=" if self._ascii else "░")

    # Signs in a column

    def _places(self, x: ArrayLike) -> Iterator[int]:
        """Yield the grid columns of those values of x that are in sight."""
        at = self._window.x.scale.forward(x)
        at = at[(at >= self._x_ends[0]) & (at <= self._x_ends[1])]
        for column in np.unique(np.rint(self._across(at))):
            yield LABEL + 1 + int(column)

    def _draw_marks(self) -> None:
        axis = self._grid.characters[self._rows] != " "
        labels = np.convolve(axis, [1, 1, 1], mode="same") > 0  # with one cell on each side
        for mark in self._marks:
            pen = _BAD if mark.is_bad else _AXIS if mark.is_quiet else _MARK
            for x in self._places([mark.x]):
                y = self._rows - bool(labels[x])  # above a label, which the sign would change into another number
                if not mark.is_quiet or self._grid.characters[y, x] == " ":  # a curve is more important
                    self._grid.write(x, y, mark.sign, pen)

    def _draw_signs(self) -> None:
        """Mark where lines have values that the axes cannot show."""
        for line in self._window.lines:
            for x in self._places(line.x[self._window.beyond(line)]):
                self._grid.write(x, self._rows - 1, "v" if self._ascii else "▾", _AXIS)
            for x in self._places(line.x[line.bad]):
                self._grid.write(x, 0, "x" if self._ascii else "✕", _BAD)

    def _draw_cursor(self) -> None:
        for x in self._places([line.x[i] for line, i in self._window.at_cursor()]):
            for y in np.flatnonzero(self._grid.characters[: self._rows, x] == " ").tolist():
                self._grid.write(x, y, ":" if self._ascii else "┊", _CURSOR)


def _ends(bands: Sequence[Band], scale: Scale) -> list[float]:
    """Return the positions of those ends of bands that are on the scale."""
    found = scale.forward(np.array([end for band in bands for end in (band.low, band.high)], np.float64))
    return found[np.isfinite(found)].tolist()
