"""A chart of lines over one axis: raw values as a shadow under their average, marks, cursor."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from rich.style import Style
from textual.color import Color

from cmbench.rundir.columns import Floats
from cmbench.text import plain
from cmbench.tui import canvas
from cmbench.tui.widgets import chart_bands
from cmbench.tui.widgets.chart_keys import LABEL
from cmbench.tui.widgets.chart_mouse import ChartMouse
from cmbench.tui.widgets.grid import Grid
from cmbench.views.axes import limits, ticks
from cmbench.views.lines import LINES, Line, Mask
from cmbench.views.smoothing import average, width_in_rows
from cmbench.words.numbers import number

_FEW = 4  # columns a point, from which on each point gets a sign
_AXIS, _MARK, _BAD, _CURSOR, _LINE = range(1, 6)
_SHADOW = _LINE + LINES + 1  # with GREY

Drawn = tuple[Floats, Floats, Floats, Floats | None]  # positions: x, low, high, average


class Chart(ChartMouse):
    """Lines with axes; arguments as `ChartKeys` takes them."""

    framed = True

    def draw(self, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return axes, lines, marks and cursor."""
        grid, palette = Grid.blank(width, height), self._styles()
        rows, columns = height - 1, width - LABEL - 1
        if self.instead and not self._lines:
            grid.write(max(0, (width - len(self.instead)) // 2), height // 2, self.instead, _AXIS)
            self.frame_title = self.frame_note = ""
            return grid, palette
        if rows < 1 or columns < 4:
            return grid, palette
        x_ends = self._x_ends()
        drawn = [self._positions(line) for line in self._lines]
        y_ends = self._y_ends(drawn, x_ends)
        self._draw_axes(grid, rows, columns, x_ends, y_ends)
        masks, owners = [], []
        for shadow in (True, False):
            for i, (line, (x, low, high, mean)) in enumerate(zip(self._lines, drawn, strict=True)):
                if shadow and mean is None:
                    continue
                ends = (low, high) if shadow or mean is None else (mean, mean)
                spread = canvas.columns(x, *ends, line.bad | np.isnan(high), x_ends, 2 * columns)
                masks.append(canvas.dots(spread, y_ends, rows, self._dash(i, line, shadow), coarse=self.ascii))
                owners.append(_SHADOW + line.colour if shadow else _LINE + line.colour)
        if masks:
            codes, owner = canvas.layered(masks)
            lit, part = owner >= 0, (slice(0, rows), slice(LABEL + 1, width))
            grid.characters[part][lit] = canvas.characters(codes, self.ascii)[lit]
            grid.styles[part][lit] = np.array(owners, np.int32)[owner[lit]]
        self._draw_points(grid, rows, columns, drawn, x_ends, y_ends)
        self._draw_gap(grid, rows, columns, drawn, x_ends, y_ends)
        self._draw_marks(grid, rows, columns, x_ends)
        self._draw_bands(grid, rows, y_ends)
        self._label_frame()
        return grid, palette

    def _dash(self, i: int, line: Line, shadow: bool = False) -> str:
        """Return the dashes of a chart's line, by its place; where there are no colours, no two have the same."""
        if not self.colourless:
            return "solid" if shadow else line.dash
        if shadow:
            return "dotted"
        return line.dash if line.dash != "solid" else list(canvas.DASHES)[i % len(canvas.DASHES)]

    def _draw_axes(
        self, grid: Grid, rows: int, columns: int, x_ends: tuple[float, float], y_ends: tuple[float, float]
    ) -> None:
        bar, tick, corner = ("|", "+", "+") if self.ascii else ("│", "┤", "└")
        for y in range(rows):
            grid.write(LABEL, y, bar, _AXIS)
        per_row = (y_ends[1] - y_ends[0]) / max(1, rows - 0.25)
        for position, label in ticks(*y_ends, self.scale, max(2, rows // 2)):
            y = min(rows - 1, max(0, round((y_ends[1] - position) / per_row - 0.4)))
            grid.write(0, y, f"{label[:LABEL]:>{LABEL}}{tick}", _AXIS)
        grid.write(LABEL, rows, corner, _AXIS)
        per_column = (x_ends[1] - x_ends[0]) / max(1, columns - 1)
        labels = [(round((at - x_ends[0]) / per_column), label) for at, label in self._x_ticks(x_ends, columns)]
        grid.write_apart(LABEL + 1, rows, labels, _AXIS)

    def _x_ticks(self, ends: tuple[float, float], columns: int) -> list[tuple[float, str]]:
        if self.x_ticks is not None:
            return self.x_ticks(*ends, max(2, columns // self.x_room))
        if self.x_label is number:
            return ticks(*ends, self.x_scale, max(2, columns // 12))
        places = np.linspace(*ends, max(2, columns // 16))
        return [(float(p), self.x_label(self.x_scale.inverse(float(p)))) for p in places]

    def _draw_points(
        self,
        grid: Grid,
        rows: int,
        columns: int,
        drawn: Sequence[Drawn],
        x_ends: tuple[float, float],
        y_ends: tuple[float, float],
    ) -> None:
        """Put a sign on each point of a line that has few: one dot alone is hard to see."""
        signs = ("o+*" if self.ascii else "•◦▪") if self.colourless else "•"
        for i, (line, (x, low, high, _)) in enumerate(zip(self._lines, drawn, strict=True)):
            if len(x) > columns // _FEW:
                continue
            with np.errstate(over="ignore"):
                across = (x - x_ends[0]) / (x_ends[1] - x_ends[0]) * (columns - 1)
                down = (y_ends[1] - (low / 2 + high / 2)) / (y_ends[1] - y_ends[0]) * (rows - 0.25) - 0.4
            there = np.isfinite(down) & (across >= 0) & (across <= columns - 1) & (down > -0.5) & (down < rows - 0.4)
            for column, row in zip(np.rint(across[there]), np.rint(down[there]), strict=True):
                grid.write(LABEL + 1 + int(column), int(row), signs[i % len(signs)], _LINE + line.colour)

    def _draw_gap(
        self,
        grid: Grid,
        rows: int,
        columns: int,
        drawn: Sequence[Drawn],
        x_ends: tuple[float, float],
        y_ends: tuple[float, float],
    ) -> None:
        """Shade what lies between the first two lines, where that is asked for."""
        if not self.shades_gap or len(drawn) < 2:
            return
        levels = []
        for line, (x, low, high, mean) in zip(self._lines[:2], drawn[:2], strict=True):
            y = low / 2 + high / 2 if mean is None else mean
            across = canvas.columns(x, y, y, line.bad | np.isnan(high), x_ends, columns)
            levels.append(across.low / 2 + across.high / 2)
        cells = chart_bands.cells_between(levels[0], levels[1], y_ends, rows)
        part = (slice(0, rows), slice(LABEL + 1, LABEL + 1 + columns))
        free = cells & (grid.characters[part] == " ")
        grid.characters[part][free] = chart_bands.PLAIN_GAP if self.ascii else chart_bands.GAP
        grid.styles[part][free] = _AXIS

    def _draw_marks(self, grid: Grid, rows: int, columns: int, x_ends: tuple[float, float]) -> None:
        def places(x: ArrayLike) -> list[int]:
            at = self.x_scale.forward(x)
            share = (at[(at >= x_ends[0]) & (at <= x_ends[1])] - x_ends[0]) / (x_ends[1] - x_ends[0])
            return [LABEL + 1 + int(column) for column in np.unique(np.rint(share * (columns - 1)))]

        labels = np.convolve(grid.characters[rows] != " ", [1, 1, 1], mode="same") > 0  # with a cell at each side
        for mark in self._marks:
            pen = _BAD if mark.is_bad else _AXIS if mark.is_quiet else _MARK
            for x in places([mark.x]):
                y = rows - bool(labels[x])  # above a label, which would be another number
                if not mark.is_quiet or grid.characters[y, x] == " ":  # a curve says more
                    grid.write(x, y, mark.sign, pen)
        for line in self._lines:
            for x in places(line.x[self._beyond(line)]):
                grid.write(x, rows - 1, "v" if self.ascii else "▾", _AXIS)
            for x in places(line.x[line.bad]):
                grid.write(x, 0, "x" if self.ascii else "✕", _BAD)
        rows_read = ((line.x, self.row_at_cursor(line)) for line in self._lines)
        for x in places([x[i] for x, i in rows_read if i is not None]):
            for y in np.flatnonzero(grid.characters[:rows, x] == " ").tolist():
                grid.write(x, y, ":" if self.ascii else "┊", _CURSOR)

    def _draw_bands(self, grid: Grid, rows: int, y_ends: tuple[float, float]) -> None:
        """Shade bands where nothing else stands."""
        for y in chart_bands.rows_of(self.bands, self.scale, y_ends, rows):
            for x in np.flatnonzero(grid.characters[y, LABEL + 1 :] == " ").tolist():
                grid.write(LABEL + 1 + x, y, chart_bands.PLAIN_SHADE if self.ascii else chart_bands.SHADE, _AXIS)

    def _beyond(self, line: Line) -> Mask:
        """Return where a line has values that the vertical axis has no place for: zero and less, on a log axis."""
        return np.isfinite(line.low) & np.isnan(self.scale.forward(line.low))

    def _positions(self, line: Line) -> Drawn:
        """Return x, low and high of a line as positions, and its average, or a band's mean, where it is to be seen."""
        low, high = (np.where(np.isfinite(end), end, np.nan) for end in map(self.scale.forward, (line.low, line.high)))
        mean = self._average(line)
        mean = self.scale.forward(line.mean) if mean is None and line.is_band else mean
        return self.x_scale.forward(line.x), np.fmin(low, high), high, mean

    def _average(self, line: Line) -> Floats | None:
        """Return positions of the average of a line, if it is to be seen; on a log axis, of logarithms."""
        if not self._is_averaged(line):
            return None
        return average(self.x_scale.forward(line.x), self.scale.forward(line.mean), line.count, self.strength)

    def _is_averaged(self, line: Line) -> bool:
        return line.smooth and width_in_rows(line.count, self.strength) > 0

    def _y_ends(self, drawn: Sequence[Drawn], x_ends: tuple[float, float]) -> tuple[float, float]:
        """Return the ends of what is in sight."""
        if self._y_zoom is not None:
            return self._y_zoom
        values = []
        for x, low, high, _ in drawn:
            seen = (x >= x_ends[0]) & (x <= x_ends[1]) if self._x_zoom else slice(None)
            values += [low[seen], high[seen]]
        flat = np.concatenate([np.empty(0), *values])
        flat = flat[np.isfinite(flat)]
        flat = np.append(flat, chart_bands.ends(self.bands, self.scale)) if len(flat) else flat
        if not len(flat):
            return self._y_last or (0.0, 1.0)
        self._y_last = limits(float(flat.min()), float(flat.max()), self._y_last)
        return self._y_last

    def _label_frame(self) -> None:
        kind = "" if self.scale.kind == "linear" else f" {self.scale.kind}"
        self.frame_title = f"{self.title}{kind}{self._average_named()}{self._lines_named()}"
        self.frame_note = self._reading() if self.cursor is not None else self.note

    def _lines_named(self) -> str:
        """Return which line has which dashes, where colours do not tell them apart."""
        if not self.colourless or len(self._lines) < 2:
            return ""
        bar, gap = ("=", "-") if self.ascii else ("━", "╌")
        shown = {"solid": 3 * bar, "dashed": 3 * gap, "dotted": ". ." if self.ascii else "┈┈┈"}
        names = (f"{shown[self._dash(i, line)]} {plain(line.label)}" for i, line in enumerate(self._lines))
        return f"  {'  '.join(names)}"

    def _average_named(self) -> str:
        """Return what the average is called: its kind, its standard deviation in shares of the rows, and in rows."""
        averaged = [line for line in self._lines if self._is_averaged(line)]
        widths = {width_in_rows(line.count, self.strength) for line in averaged}
        many = "s" * (max(widths, default=0) > 1)
        rows = f", {'/'.join(map(str, sorted(widths)))} row{many}" if 0 < len(widths) < 3 else ""
        alone = " here" if self.is_smoothed_alone else ""
        return f" gauss {100 * self.strength:g}%{rows}{alone}" if averaged else ""

    def _reading(self) -> str:
        """Return the values of the rows at the cursor, raw and averaged, each with its own place."""
        read = [(line, i) for line in self._lines if (i := self.row_at_cursor(line)) is not None]
        places = [self._place(line, i) for line, i in read]
        together = len(set(places)) == 1
        parts = places[:1] if together else []
        for (line, i), place in zip(read, places, strict=True):
            own = [plain(line.label)] if len(self._lines) > 1 else []
            parts.append(" ".join([*own, *([] if together else [place]), self._value(line, i)]))
        return "  ".join(parts)

    def _place(self, line: Line, i: int) -> str:
        """Return the name of a row's place; of several rows, taken together, that of the last."""
        name = (self.x_name or self.x_label)(float(line.x[i]))
        return f"to {name}" if line.rows[i] > 1 else name

    def _value(self, line: Line, i: int) -> str:
        """Return the value of a row, or the mean of several, and the average there."""
        many = line.rows[i] > 1
        if not line.count[i]:
            return "not finite"
        text = number(float(line.mean[i])) + (f" mean of {line.count[i]:.0f}" if many else "")
        text += ", not all finite" if many and line.bad[i] else ""
        mean = self._average(line)
        if mean is None or not np.isfinite(mean[i]):
            return text
        return f"{text} (gauss {number(self.scale.inverse(float(mean[i])))})"

    def _styles(self) -> list[Style]:
        pens = ["muted", "warning", "error", "plain", *(f"line-{i}" for i in range(LINES)), "muted"]
        styles = [self.style(pen) for pen in pens]
        return [Style.null(), *styles, *(self._shadow(style) for style in styles[-LINES - 1 :])]

    def _shadow(self, style: Style) -> Style:
        """Return a line's colour faded into the background; dim where colours are the terminal's own."""
        below = self.background_colors[1]
        if style.color is None or self.app.native_ansi_color:
            return style + Style(dim=True)
        return Style(color=below.blend(Color.from_rich_color(style.color), 0.45).rich_color)
