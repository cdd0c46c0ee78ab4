"""A chart of lines over one axis: raw values as a shadow under their average, marks, cursor, zoom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from rich.style import Style
from textual.binding import Binding
from textual.color import Color
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.message import Message

from cmbench.tui import canvas
from cmbench.tui.canvas import Floats, Mask
from cmbench.tui.scales import KINDS, Scale, grown, limits, number, ticks
from cmbench.tui.smoothing import ema
from cmbench.tui.text import plain
from cmbench.tui.widgets.grid import Grid, GridWidget

SMOOTHINGS = (0.0, 0.9, 0.98, 0.998)
LINES = 8  # colours
_LABEL = 7  # characters of a number on the vertical axis
_RAW = 20  # points of a line up to which there is nothing to average: evaluations
_CLOSEST = 1e-6  # of the whole: the smallest part that zooming shows
_FEW = 4  # columns a point, from which on each point gets a sign

Drawn = tuple[Floats, Floats, Floats, Floats | None]  # positions: x, low, high, average


@dataclass(frozen=True)
class Line:
    """One line of a chart. Arrays are (n,).

    Attributes:
        label: what it is called.
        x: ascending.
        low: lowest value at each x, nan where there is none.
        high: highest value.
        mean: mean value, which the average follows.
        count: values behind each, which the average counts.
        bad: whether one of them was not finite.
        colour: a number from 0 to LINES - 1.
        dash: a name of canvas.DASHES.
    """

    label: str
    x: Floats
    low: Floats
    high: Floats
    mean: Floats
    count: Floats
    bad: Mask
    colour: int = 0
    dash: str = "solid"

    @classmethod
    def of(cls, label: str, x: Floats, y: Floats, colour: int = 0, dash: str = "solid") -> "Line":
        """Return a line through points; it is broken where y is not finite."""
        y = np.asarray(y, np.float64)
        bad = ~np.isfinite(y)
        y = np.where(bad, np.nan, y)
        return cls(label, np.asarray(x, np.float64), y, y, y, (~bad).astype(np.float64), bad, colour, dash)


@dataclass(frozen=True)
class Mark:
    """Something that happened at an x: a sign on the axis."""

    x: float
    sign: str
    is_bad: bool = False


class Chart(GridWidget, can_focus=True):
    """Lines with axes.

    Args:
        title: what stands in the frame.
        scale: of the vertical axis.
        x_label: of a value of x, e.g. `lambda t: f"{t:.2f}"`.
        x_scale: of the horizontal axis; times of a profile are even in log sigma.
        fixed_x: ends of the horizontal axis; None: from zero to where the data go.
        smooth: whether lines can be averaged.
    """

    framed = True
    BINDINGS = [
        Binding("y", "scale", "lin / log / symlog", id="chart.scale"),
        Binding("s", "smooth", "Smooth", id="chart.smooth"),
        Binding("left", "cursor(-1)", "Cursor", id="chart.cursor_left", show=False),
        Binding("right", "cursor(1)", "Cursor", id="chart.cursor_right", show=False),
        Binding("shift+left", "cursor(-10)", "Cursor by ten", id="chart.cursor_left_10", show=False),
        Binding("shift+right", "cursor(10)", "Cursor by ten", id="chart.cursor_right_10", show=False),
        Binding("plus,equals_sign", "zoom(0.5)", "Zoom in", id="chart.zoom_in", show=False),
        Binding("minus", "zoom(2.0)", "Zoom out", id="chart.zoom_out", show=False),
        Binding("less_than_sign", "pan(-0.25)", "Pan left", id="chart.pan_left", show=False),
        Binding("greater_than_sign", "pan(0.25)", "Pan right", id="chart.pan_right", show=False),
        Binding("up", "zoom_y(0.5)", "Zoom in vertically", id="chart.zoom_in_y", show=False),
        Binding("down", "zoom_y(2.0)", "Zoom out vertically", id="chart.zoom_out_y", show=False),
        Binding("0", "reset", "Whole curve", id="chart.reset", show=False),
    ]

    class CursorMoved(Message):
        """The cursor stands at another x; None: it was put away."""

        def __init__(self, chart: "Chart", x: float | None) -> None:
            super().__init__()
            self.chart, self.x = chart, x

        @property
        def control(self) -> "Chart":
            """The chart."""
            return self.chart

    def __init__(
        self,
        title: str,
        *,
        scale: Scale | None = None,
        x_label: Callable[[float], str] = number,
        x_scale: Scale | None = None,
        fixed_x: tuple[float, float] | None = None,
        smooth: bool = True,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.title = title
        self.scale, self.x_scale, self.x_label, self.fixed_x = scale or Scale(), x_scale or Scale(), x_label, fixed_x
        self.smoothing = SMOOTHINGS[1] if smooth else None
        self.cursor: float | None = None
        self.x_end: float | None = None  # where the axis will stop at last, if that is known
        self.note = ""  # stands in the lower frame unless the cursor does
        self._lines: Sequence[Line] = ()
        self._marks: Sequence[Mark] = ()
        self._x_zoom: tuple[float, float] | None = None  # positions
        self._y_zoom: tuple[float, float] | None = None
        self._x_last: float | None = None
        self._y_last: tuple[float, float] | None = None

    def begin(self, title: str, scale: Scale) -> None:
        """Begin with another quantity: its own axes, no zoom, no cursor."""
        self.title, self.scale = title, scale
        self._x_zoom = self._y_zoom = self._y_last = self.cursor = None

    def show(self, lines: Sequence[Line], marks: Sequence[Mark] = ()) -> None:
        """Show lines, the last on top."""
        self._lines, self._marks = lines, marks
        self.repaint()

    def action_scale(self) -> None:
        """Go on to the next scale of the vertical axis."""
        kind = KINDS[(KINDS.index(self.scale.kind) + 1) % len(KINDS)]
        sizes = np.concatenate([np.abs(line.mean) for line in self._lines] or [np.ones(1)])
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        small = max(np.quantile(sizes, 0.1), 1e-12 * sizes.max(), 1e-290) if len(sizes) else 1.0
        self.scale = Scale(kind, float(10.0 ** np.floor(np.log10(small))))
        self._y_last = self._y_zoom = None
        self.repaint()

    def action_smooth(self) -> None:
        """Go on to the next length of the average."""
        if self.smoothing is not None:
            self.smoothing = SMOOTHINGS[(SMOOTHINGS.index(self.smoothing) + 1) % len(SMOOTHINGS)]
            self.repaint()

    def forget_x(self) -> None:
        """Begin with another horizontal axis: no zoom, no cursor, ends chosen anew."""
        self._x_zoom = self._x_last = self.cursor = None

    def action_cursor(self, columns: int) -> None:
        """Move the cursor by columns from the newest value in sight on."""
        low, high = self._x_ends()
        step = (high - low) / max(1, self._plot_width - 1)
        here = float(self.x_scale.forward(self._newest if self.cursor is None else self.cursor))
        here = min(max(here, low), high) if np.isfinite(here) else high
        self.set_cursor(self.x_scale.inverse(min(max(here + columns * step, low), high)))

    def set_cursor(self, x: float | None, tell: bool = True) -> None:
        """Put the cursor at an x, or away."""
        self.cursor = x
        self.repaint()
        if tell:
            self.post_message(self.CursorMoved(self, x))

    def action_zoom(self, factor: float) -> None:
        """Show a part of the horizontal axis, around the cursor, if that is in sight."""
        low, high = self._x_ends()
        middle = (low + high) / 2 if self.cursor is None else float(self.x_scale.forward(self.cursor))
        if not low <= middle <= high:
            middle = (low + high) / 2
        whole = self._whole_x()
        width = factor * (high - low)
        if width <= _CLOSEST * (whole[1] - whole[0]):
            return
        low = min(max(middle - factor * (middle - low), whole[0]), whole[1] - width)
        self._x_zoom = (low, low + width) if width < whole[1] - whole[0] else None
        self.repaint()

    def action_pan(self, share: float) -> None:
        """Move the part that is shown."""
        low, high = self._x_ends()
        whole = self._whole_x()
        shift = share * (high - low)
        shift = min(max(shift, whole[0] - low), whole[1] - high)
        if self._x_zoom is not None:
            self._x_zoom = low + shift, high + shift
            self.repaint()

    def action_zoom_y(self, factor: float) -> None:
        """Show a part of the vertical axis, around the newest value."""
        low, high = self._y_zoom or self._y_last or (0.0, 1.0)
        newest = [line.mean[np.isfinite(line.mean)] for line in self._lines]
        ends = [self.scale.forward(mean[-1]) for mean in newest if len(mean)]
        middle = float(np.nanmean(ends)) if ends and np.isfinite(ends).any() else (low + high) / 2
        half = factor * (high - low) / 2
        if max(1e-12 * abs(middle), 1e-290) < half < 1e290:
            self._y_zoom = middle - half, middle + half
            self.repaint()

    def action_reset(self) -> None:
        """Show everything again, without a cursor."""
        self._x_zoom = self._y_zoom = self._y_last = None
        self.set_cursor(None)

    def on_click(self, event: Click) -> None:
        """Put the cursor where the mouse is."""
        column = event.get_content_offset_capture(self).x - _LABEL - 2
        if 0 <= column < self._plot_width:
            low, high = self._x_ends()
            self.set_cursor(self.x_scale.inverse(low + (high - low) * column / max(1, self._plot_width - 1)))

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """Zoom out."""
        event.stop()
        self.action_zoom(2.0)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """Zoom in."""
        event.stop()
        self.action_zoom(0.5)

    def draw(self, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return axes, lines, marks and cursor."""
        grid, palette = Grid.blank(width, height), self._styles()
        rows, columns = height - 1, width - _LABEL - 1
        if rows < 1 or columns < 4:
            return grid, palette
        x_ends = self._x_ends()
        drawn = [self._positions(line) for line in self._lines]
        y_ends = self._y_ends(drawn, x_ends)
        self._draw_axes(grid, rows, columns, x_ends, y_ends)
        masks, owners = [], []
        for shadow in (True, False):
            for line, (x, low, high, average) in zip(self._lines, drawn, strict=True):
                if shadow and average is None:
                    continue
                ends = (low, high) if shadow or average is None else (average, average)
                spread = canvas.columns(x, *ends, line.bad | np.isnan(high), x_ends, 2 * columns)
                masks.append(canvas.dots(spread, y_ends, rows, "solid" if shadow else line.dash))
                owners.append(_SHADOW + line.colour if shadow else _LINE + line.colour)
        if masks:
            codes, owner = canvas.layered(masks)
            lit, part = owner >= 0, (slice(0, rows), slice(_LABEL + 1, width))
            grid.characters[part][lit] = canvas.characters(codes, self.ascii)[lit]
            grid.styles[part][lit] = np.array(owners, np.int32)[owner[lit]]
        self._draw_points(grid, rows, columns, drawn, x_ends, y_ends)
        self._draw_marks(grid, rows, columns, x_ends)
        self._label_frame()
        return grid, palette

    def _draw_axes(
        self, grid: Grid, rows: int, columns: int, x_ends: tuple[float, float], y_ends: tuple[float, float]
    ) -> None:
        bar, tick, corner = ("|", "+", "+") if self.ascii else ("│", "┤", "└")
        for y in range(rows):
            grid.write(_LABEL, y, bar, _AXIS)
        per_row = (y_ends[1] - y_ends[0]) / max(1, rows - 0.25)
        for position, label in ticks(*y_ends, self.scale, max(2, rows // 2)):
            y = min(rows - 1, max(0, round((y_ends[1] - position) / per_row - 0.4)))
            grid.write(0, y, f"{label[:_LABEL]:>{_LABEL}}{tick}", _AXIS)
        grid.write(_LABEL, rows, corner, _AXIS)
        per_column = (x_ends[1] - x_ends[0]) / max(1, columns - 1)
        labels = [(round((at - x_ends[0]) / per_column), label) for at, label in self._x_ticks(x_ends, columns)]
        grid.write_apart(_LABEL + 1, rows, labels, _AXIS)

    def _x_ticks(self, ends: tuple[float, float], columns: int) -> list[tuple[float, str]]:
        if self.x_scale.kind == "linear" and self.x_label is number:
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
        for line, (x, low, high, _) in zip(self._lines, drawn, strict=True):
            if len(x) > columns // _FEW:
                continue
            with np.errstate(over="ignore"):
                across = (x - x_ends[0]) / (x_ends[1] - x_ends[0]) * (columns - 1)
                down = (y_ends[1] - (low / 2 + high / 2)) / (y_ends[1] - y_ends[0]) * (rows - 0.25) - 0.4
            there = np.isfinite(down) & (across >= 0) & (across <= columns - 1) & (down > -0.5) & (down < rows - 0.4)
            for column, row in zip(np.rint(across[there]), np.rint(down[there]), strict=True):
                grid.write(_LABEL + 1 + int(column), int(row), "o" if self.ascii else "•", _LINE + line.colour)

    def _draw_marks(self, grid: Grid, rows: int, columns: int, x_ends: tuple[float, float]) -> None:
        def places(x: ArrayLike) -> list[int]:
            at = self.x_scale.forward(x)
            share = (at[(at >= x_ends[0]) & (at <= x_ends[1])] - x_ends[0]) / (x_ends[1] - x_ends[0])
            return [_LABEL + 1 + int(column) for column in np.unique(np.rint(share * (columns - 1)))]

        labels = np.convolve(grid.characters[rows] != " ", [1, 1, 1], mode="same") > 0  # with a cell at each side
        for mark in self._marks:
            for x in places([mark.x]):  # above a label, which would be another number
                grid.write(x, rows - bool(labels[x]), mark.sign, _BAD if mark.is_bad else _MARK)
        for line in self._lines:
            for x in places(line.x[self._beyond(line)]):
                grid.write(x, rows - 1, "v" if self.ascii else "▾", _AXIS)
            for x in places(line.x[line.bad]):
                grid.write(x, 0, "x" if self.ascii else "✕", _BAD)
        for x in places([] if self.cursor is None else [self.cursor]):
            for y in np.flatnonzero(grid.characters[:rows, x] == " ").tolist():
                grid.write(x, y, ":" if self.ascii else "┊", _CURSOR)

    def _beyond(self, line: Line) -> Mask:
        """Return where a line has values that the vertical axis has no place for: zero and less, on a log axis."""
        return np.isfinite(line.low) & np.isnan(self.scale.forward(line.low))

    def _positions(self, line: Line) -> Drawn:
        """Return x, low and high of a line as positions, and its average where it is to be seen."""
        low, high = (np.where(np.isfinite(end), end, np.nan) for end in map(self.scale.forward, (line.low, line.high)))
        return self.x_scale.forward(line.x), np.fmin(low, high), high, self._average(line)

    def _average(self, line: Line) -> Floats | None:
        """Return positions of the average of a line, if it is to be seen; on a log axis, of logarithms."""
        if not self.smoothing or len(line.x) <= _RAW:
            return None
        mean = self.scale.forward(line.mean)
        return np.where(np.isfinite(mean), ema(mean, line.count, self.smoothing), np.nan)

    def _whole_x(self) -> tuple[float, float]:
        if self.fixed_x is not None:
            return float(self.x_scale.forward(self.fixed_x[0])), float(self.x_scale.forward(self.fixed_x[1]))
        self._x_last = grown(self._newest, self._x_last, self.x_end)
        return 0.0, self._x_last or 1.0

    @property
    def _newest(self) -> float:
        return max((max(0.0, float(line.x[-1])) for line in self._lines if len(line.x)), default=1.0)

    def _x_ends(self) -> tuple[float, float]:
        return self._x_zoom or self._whole_x()

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
        if not len(flat):
            return self._y_last or (0.0, 1.0)
        self._y_last = limits(float(flat.min()), float(flat.max()), self._y_last)
        return self._y_last

    def _label_frame(self) -> None:
        kind = "" if self.scale.kind == "linear" else f" {self.scale.kind}"
        is_averaged = bool(self.smoothing) and any(len(line.x) > _RAW for line in self._lines)
        smooth = f" ema {self.smoothing:g}" if is_averaged else ""
        self.frame_title = f"{self.title}{kind}{smooth}"
        self.frame_note = self._reading() if self.cursor is not None else self.note

    def _reading(self) -> str:
        """Return the values at the cursor: raw, and averaged."""
        assert self.cursor is not None
        parts = [self.x_label(self.cursor)]
        for line in self._lines:
            if len(line.x):
                i = int(np.argmin(np.abs(line.x - self.cursor)))
                text = "not finite" if line.bad[i] else number(float(line.mean[i]))
                if (average := self._average(line)) is not None and not line.bad[i]:
                    text += f" (ema {number(self.scale.inverse(float(average[i])))})"
                parts.append(f"{plain(line.label)} {text}" if len(self._lines) > 1 else text)
        return "  ".join(parts)

    def _styles(self) -> list[Style]:
        pens = ["muted", "warning", "error", "plain", *(f"line-{i}" for i in range(LINES))]
        styles = [self.style(pen) for pen in pens]
        return [Style.null(), *styles, *(self._shadow(style) for style in styles[-LINES:])]

    def _shadow(self, style: Style) -> Style:
        """Return a line's colour faded into the background; dim where colours are the terminal's own."""
        below = self.background_colors[1]
        if style.color is None or self.app.native_ansi_color:
            return style + Style(dim=True)
        return Style(color=below.blend(Color.from_rich_color(style.color), 0.45).rich_color)

    @property
    def _plot_width(self) -> int:
        return max(1, self.inner_width - _LABEL - 1)


_AXIS, _MARK, _BAD, _CURSOR, _LINE = range(1, 6)
_SHADOW = _LINE + LINES
