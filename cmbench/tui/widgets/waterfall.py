"""A quantity over time t (across) and steps (down): the whole run at once, one row per profile."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.style import Style
from textual.binding import Binding
from textual.message import Message

from cmbench.tui import bin_axis
from cmbench.tui.colours import LEVELS, shade_characters, shades
from cmbench.tui.widgets import colour_bar
from cmbench.tui.widgets.grid import Grid, GridWidget, laid_out
from cmbench.views.axes import limits
from cmbench.words.numbers import number

Mode = Literal["value", "ratio", "row"]
_LABEL = 7
_AXIS, _CURSOR, _SHADE = 1, 2, 3

Rows = Sequence[tuple[int, NDArray[np.float32]]]


class Waterfall(GridWidget, can_focus=True):
    """Rows of bins, the oldest on top. At most a quarter of the height is kept free for rows still to come.

    A row takes several rows of cells if there is room. If there is too little room, rows are left out, so that the
    whole run stays in sight. A column with several bins shows the highest of them.

    Colours follow the logarithm of one of three: the value, its ratio to a reference row, or its share of its row's
    largest value. A ratio of one is white. A colour bar in the lower edge shows the values of the colours.

    Args:
        title: title in the frame.
        t_label: returns the label of an edge between bins, given its number from 0 to the number of bins.
    """

    framed = True
    BINDINGS = [
        Binding("left", "move(-1, 0)", "Bin", id="waterfall.left", show=False),
        Binding("right", "move(1, 0)", "Bin", id="waterfall.right", show=False),
        Binding("up", "move(0, -1)", "Step", id="waterfall.up", show=False),
        Binding("down", "move(0, 1)", "Step", id="waterfall.down", show=False),
        Binding("0", "reset", "No cursor", id="waterfall.reset", show=False),
    ]

    class CursorMoved(Message):
        """The cursor moved to another step or bin; None: it was removed."""

        def __init__(self, waterfall: "Waterfall", step: int | None, bin: int | None) -> None:
            super().__init__()
            self.waterfall, self.step, self.bin = waterfall, step, bin

        @property
        def control(self) -> "Waterfall":
            """The waterfall that sent the message."""
            return self.waterfall

    def __init__(
        self, title: str, t_label: Callable[[int], str] = str, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.title, self.t_label = title, t_label
        self.mode: Mode = "value"
        self.cursor: tuple[int, int] | None = None  # step and bin
        self.reference: tuple[int, NDArray[np.float32]] | None = None  # the row that others are compared with
        self.rows: Rows = ()  # as given to `show`
        self.edges: Sequence[float] = ()  # between the bins, for round places on the axis
        self.is_signed = False  # whether negative values have no colour, instead of the colour of their size
        self._room = 0  # rows that share the height: the present ones, and some to come
        self._is_still = False
        self._limits: tuple[float, float] | None = None
        self._limits_of: Mode = self.mode
        self._bar: tuple[float, float] | None = None  # log10 of the ends of the drawn shades

    def show(self, rows: Rows, is_still: bool = False) -> None:
        """Show rows (step, bins), ascending. If no more will come (`is_still`), they take the whole height."""
        self.rows, self._is_still = rows, is_still
        self.repaint()

    def action_mode(self, mode: Mode) -> None:
        """Show values, ratios to the reference, or shares of their row's largest value."""
        self.mode, self._limits = mode, None
        self.repaint()

    def forget_limits(self) -> None:
        """Choose new ends of the colours, for another quantity."""
        self._limits = None

    @property
    def newest_step(self) -> int:
        """The step of the newest row; 0 without rows."""
        return self.rows[-1][0] if self.rows else 0

    def action_move(self, bins: int, lines: int) -> None:
        """Move the cursor; it appears on the newest row."""
        shown, _ = self._lines(max(1, self.inner_height - 1))
        if not shown:
            return
        steps, last = [step for step, _ in shown], len(shown[-1][1]) - 1
        step, bin = self.cursor or (steps[-1], last // 2)
        line = min(max(_nearest(steps, step) + lines, 0), len(steps) - 1)
        self.set_cursor((steps[line], min(max(bin + bins, 0), last)))

    def action_reset(self) -> None:
        """Remove the cursor."""
        self.set_cursor(None)

    def set_cursor(self, cursor: tuple[int, int] | None, tell: bool = True) -> None:
        """Move the cursor to a step and a bin, or remove it."""
        self.cursor = cursor
        self.repaint()
        if tell:
            self.post_message(self.CursorMoved(self, *(cursor or (None, None))))

    def draw(self, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return one row of cells for each line, or several if there is room, and the axis of t."""
        grid = Grid.blank(width, height)
        palette = [Style.null(), self.style("muted"), self.style("strong")]
        palette += shades(self.app.theme, self._shown == "ratio") if self._coloured else [Style.null()] * LEVELS
        columns, rows = width - _LABEL - 1, height - 1
        lines, of_cells = self._lines(rows)
        self._bar = None
        if columns < 4 or rows < 1 or not lines or not len(lines[0][1]):
            self.frame_note = ""
            return grid, palette
        values = self._values(np.stack([bins for _, bins in lines]).astype(np.float64))
        place = np.arange(columns) * values.shape[1] // columns  # the first bin of each column
        levels = np.maximum.reduceat(self._levels(values), place, axis=1)
        if (levels >= 0).any() and self._limits is not None:
            self._bar = self._limits
        cursor = None if self.cursor is None else _nearest([step for step, _ in lines], self.cursor[0])
        free = 0
        for y, line in enumerate(of_cells):
            is_first = not y or line != of_cells[y - 1]
            label = number(lines[line][0]) if is_first and y >= free else ""
            free = y + 4 if label else free
            grid.write(0, y, f"{label[:_LABEL]:>{_LABEL}}{'|' if self.ascii else '│'}", _AXIS)
            self._write_levels(grid, _LABEL + 1, y, levels[line])
            if line == cursor and is_first:
                grid.write(_LABEL, y, ">" if self.ascii else "▸", _CURSOR)
        self._draw_axis(grid, rows, columns, values.shape[1], place)
        self._label_frame(None if cursor is None else lines[cursor])
        return grid, palette

    def _lines(self, height: int) -> tuple[list[tuple[int, NDArray[np.float32]]], list[int]]:
        """Choose the rows to show, including the newest. Return them, and for each row of cells the index of its row.

        A new row changes only the last cells, until the room kept for new rows is full.
        """
        n = len(self.rows)
        if self._is_still:
            self._room = n
        elif not n <= self._room <= max(n + 1, 4 * n // 3):
            self._room = max(n, 5 * n // 4)
        last_of = np.arange(1, height + 1) * self._room // max(1, height) - 1  # of the rows that share a cell
        if height > self._room:
            last_of = np.arange(height) * self._room // height
        firsts = np.append(0, last_of[:-1] + 1)
        chosen = np.minimum(last_of, n - 1)[np.minimum(firsts, last_of) < n].tolist()
        lines = sorted(set(chosen))
        return [self.rows[i] for i in lines], [lines.index(i) for i in chosen]

    def _values(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log10 of the values that the colours follow."""
        size = np.fmax(rows, 0.0) if self.is_signed else np.abs(rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._shown == "row":
                size = size / np.fmax.reduce(np.where(np.isinf(size), np.nan, size), axis=1, keepdims=True)
            if self._shown == "ratio" and self.reference is not None:
                size = size / np.abs(self.reference[1])
            return np.where(size > 0, np.log10(size), np.nan)

    @property
    def _shown(self) -> Mode:
        """The mode that the colours follow; without a reference of as many bins, values replace ratios."""
        bins = len(self.rows[-1][1]) if self.rows else 0
        has_reference = self.reference is not None and len(self.reference[1]) == bins
        return "value" if self.mode == "ratio" and not has_reference else self.mode

    def _levels(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return levels from 0 to LEVELS - 1, or -1 where there is no value. The limits rarely move."""
        finite = values[np.isfinite(values)]
        if not len(finite):
            return np.full(values.shape, -1, np.int64)
        if self._shown != self._limits_of:
            self._limits, self._limits_of = None, self._shown
        if self._shown == "ratio":
            reach = max(0.1, float(np.abs(finite).max()))
            self._limits = limits(-reach, reach, self._limits, pad=0.1)
        else:
            low, high = np.quantile(finite, [0.01, 1.0])
            self._limits = limits(float(low), max(float(high), float(low) + 0.05), self._limits, pad=0.1)
        share = (values - self._limits[0]) / (self._limits[1] - self._limits[0])
        levels = np.minimum(np.clip(np.nan_to_num(share), 0, 1) * LEVELS, LEVELS - 1)
        return np.where(np.isnan(share), -1, levels).astype(np.int64)

    @property
    def _coloured(self) -> bool:
        """Whether shades are colours instead of signs; a terminal's own sixteen colours do not make a map."""
        return self.app.native_ansi_color is False and not self.app.no_color

    def _write_levels(self, grid: Grid, x: int, y: int, levels: NDArray[np.int64]) -> None:
        part = slice(x, x + len(levels))
        if self._coloured:
            grid.styles[y, part] = np.where(levels < 0, 0, _SHADE + levels)
            return
        signs = shade_characters(self.ascii)
        grid.characters[y, part] = np.array(list(signs))[np.where(levels < 0, 0, levels * len(signs) // LEVELS)]

    def _draw_axis(self, grid: Grid, y: int, columns: int, bins: int, place: NDArray[np.int64]) -> None:
        grid.write(_LABEL, y, "+" if self.ascii else "└", _AXIS)
        grid.write_apart(_LABEL + 1, y, bin_axis.labels(self.edges, self.t_label, bins, columns), _AXIS)
        if self.cursor is not None:
            first = place[np.searchsorted(place, self.cursor[1], side="right") - 1]
            own = np.flatnonzero(place == first)
            grid.write(_LABEL + 1 + int(own[len(own) // 2]), y, "^" if self.ascii else "▴", _CURSOR)

    def _in_frame(self, inner: Grid, palette: Sequence[Style]) -> tuple[Grid, Sequence[Style]]:
        """Write the colour bar into the lower edge if the note leaves room; so it takes no rows."""
        grid, framed = super()._in_frame(inner, palette)
        height, width = grid.styles.shape
        note = len(laid_out(self.frame_note))
        x, room = 2, width - 4 - (note + 3 if note else 0)
        for part in colour_bar.parts(*self._bar, room, self.is_signed) if self._bar else []:
            if isinstance(part, str):
                grid.write(x, height - 1, part, len(framed) - 1)  # in the note's style
            else:
                grid.write(x, height - 1, " " * len(part), 0)  # in place of the frame
                self._write_levels(grid, x, height - 1, part)
            x += len(part)
        return grid, framed

    def _label_frame(self, pointed: tuple[int, NDArray[np.float32]] | None) -> None:
        against = ""
        if self.mode == "ratio":
            against = f" / step {self.reference[0]}" if self.reference else " (no reference yet: m)"
        named = {"value": "", "ratio": against, "row": " / its row's largest"}[self.mode]
        self.frame_title = f"{self.title}{named}"
        if self.cursor is not None and pointed is not None:
            self.frame_note = self._reading(*pointed, self.cursor[1])
        else:
            self.frame_note = ""

    def _reading(self, step: int, bins: NDArray[np.float32], bin: int) -> str:
        """Return the value at the cursor, in the row that the cursor points at, the one nearest to its step."""
        if bin >= len(bins):
            return f"step {step}"
        text = f"step {step}  t {self.t_label(bin)} to {self.t_label(bin + 1)}  {number(float(bins[bin]))}"
        if self.reference is not None and bin < len(self.reference[1]) and self.reference[1][bin]:
            text += f"  x{number(float(bins[bin]) / float(self.reference[1][bin]))} of step {self.reference[0]}"
        return text


def _nearest(steps: Sequence[int], step: int) -> int:
    return int(np.argmin(np.abs(np.array(steps) - step)))
