"""The visible part of a chart's lines: axes, average, zoom and cursor. Plain numbers and strings, no widgets."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cmbench.tui.canvas import Floats, Mask
from cmbench.views.axes import KINDS, Kind, Scale, Ticks, grown, limits
from cmbench.views.lines import Line
from cmbench.views.smoothing import SMOOTHINGS, USUAL, positions, width_in_rows
from cmbench.words.numbers import number

_CLOSEST = 1e-6  # share of the whole axis: the smallest part that zooming shows

Ends = tuple[float, float]


@dataclass(frozen=True)
class XAxis:
    """The horizontal axis of a chart.

    Attributes:
        label: returns the label of a value of x, e.g. `lambda t: f"{t:.2f}"`.
        name: returns the full name of a row's place; `label` if not given.
        ticks: returns places and labels, for axes that need more than `label`.
        room: columns for each tick.
        title: title in exported files.
        scale: scale of the axis; times of a profile are even in log sigma.
        fixed: the ends; None: from `start` to the end of the data.
        start: where the axis begins, unless its ends are fixed.
        end: where the axis will end, if known.
        is_still: whether no more rows will come, so that the axis ends now, without room for more.
    """

    label: Callable[[float], str] = number
    name: Callable[[float], str] | None = None
    ticks: Ticks | None = None
    room: int = 16
    title: str = ""
    scale: Scale = field(default_factory=Scale)
    fixed: Ends | None = None
    start: float = 0.0
    end: float | None = None
    is_still: bool = False


@dataclass
class Smoothing:
    """The average that several charts share; `alone` has the averages of single charts, by title."""

    of_all: float = USUAL
    alone: dict[str, float] = field(default_factory=dict)

    def next_of_all(self, title: str) -> None:
        """Switch all charts, including the one with this title, to the next average."""
        self.alone.pop(title, None)
        self.of_all = _next(self.of_all)

    def next_alone(self, title: str) -> None:
        """Switch only one chart to the next average; after the last it follows the others again."""
        self.alone[title] = _next(self.alone.get(title, self.of_all))
        if self.alone[title] == self.of_all:
            del self.alone[title]


class Positions(NamedTuple):
    """A line as positions on both axes, (n,) each; `mean` is the average or a band's mean, if it is shown."""

    x: Floats
    low: Floats
    high: Floats
    mean: Floats | None

    @property
    def middle(self) -> Floats:
        """The middle of low and high, even if their sum would overflow."""
        return self.low / 2 + self.high / 2


class Window:
    """The visible part of a chart's lines, and the place of its cursor.

    Args:
        title: title of the chart.
        scale: scale of the vertical axis.
        x: the horizontal axis.
        smoothing: the average; None: no line is averaged.
    """

    def __init__(self, title: str, scale: Scale, x: XAxis, smoothing: Smoothing | None) -> None:
        self.title, self.scale, self.x, self.smoothing = title, scale, x, smoothing
        self.lines: Sequence[Line] = ()
        self.is_scale_chosen = False  # by the user
        self.cursor: float | None = None
        self.x_zoom: Ends | None = None  # positions, like all ends below
        self.y_zoom: Ends | None = None
        self._x_last: float | None = None
        self._y_last: Ends | None = None

    def begin(self, title: str, scale: Scale) -> None:
        """Start with another quantity: new axes, no zoom, no cursor."""
        self.title, self.scale, self.is_scale_chosen = title, scale, False
        self.x_zoom = self.y_zoom = self._y_last = self.cursor = None

    def forget_x(self) -> None:
        """Start with another horizontal axis: no zoom, no cursor, new ends."""
        self.x_zoom = self._x_last = self.cursor = None

    def forget_y(self) -> None:
        """Choose the ends of the vertical axis anew."""
        self.y_zoom = self._y_last = None

    # Horizontal axis

    def whole_x(self) -> Ends:
        """Return the ends of the horizontal axis without zoom; they rarely move while rows come."""
        x = self.x
        if x.fixed is not None:
            return float(x.scale.forward(x.fixed[0])), float(x.scale.forward(x.fixed[1]))
        last = (float(line.x[-1]) for line in self.lines if len(line.x))
        newest = max(x.start, max(last, default=x.start + 1.0))
        if x.is_still and (end := max(newest, x.end or x.start)) > x.start:
            return x.start, end
        self._x_last = grown(newest - x.start, self._x_last, None if x.end is None else x.end - x.start)
        return x.start, x.start + (self._x_last or 1.0)

    def x_ends(self) -> Ends:
        """Return the ends of the visible part of the horizontal axis."""
        return self.x_zoom or self.whole_x()

    def zoom(self, factor: float) -> bool:
        """Zoom the horizontal axis, around the cursor if it is in sight. Return whether that was possible."""
        low, high = self.x_ends()
        middle = (low + high) / 2 if self.cursor is None else float(self.x.scale.forward(self.cursor))
        if not low <= middle <= high:
            middle = (low + high) / 2
        start, end = self.whole_x()
        width = factor * (high - low)
        if width <= _CLOSEST * (end - start):
            return False
        low = min(max(middle - factor * (middle - low), start), end - width)
        self.x_zoom = (low, low + width) if width < end - start else None
        return True

    def pan(self, share: float) -> bool:
        """Move the visible part by a share of its width. Return whether the axis is zoomed."""
        if self.x_zoom is None:
            return False
        (low, high), (start, end) = self.x_zoom, self.whole_x()
        shift = min(max(share * (high - low), start - low), end - high)
        self.x_zoom = low + shift, high + shift
        return True

    # Vertical axis

    def next_scale(self) -> None:
        """Switch to the next scale of the vertical axis."""
        kind = KINDS[(KINDS.index(self.scale.kind) + 1) % len(KINDS)]
        sizes = np.concatenate([np.abs(line.mean) for line in self.lines] or [np.ones(1)])
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        small = max(np.quantile(sizes, 0.1), 1e-12 * sizes.max(), 1e-290) if len(sizes) else 1.0
        self.scale, self.is_scale_chosen = Scale(kind, float(10.0 ** np.floor(np.log10(small)))), True
        self.forget_y()

    def widen(self, kind: Kind) -> None:
        """Turn a linear axis that the user did not choose into a log one, once the values want it; never back."""
        if kind == "log" and self.scale.kind == "linear" and not self.is_scale_chosen and self.y_zoom is None:
            self.scale = Scale(kind)
            self.forget_y()

    def y_ends(self) -> Ends:
        """Return the visible ends of the vertical axis, as `fit_y` last chose them."""
        return self.y_zoom or self._y_last or (0.0, 1.0)

    def fit_y(self, drawn: Sequence[Positions], more: Sequence[float] = ()) -> Ends:
        """Fit the ends of the vertical axis to the visible part of the lines, and return them.

        Args:
            drawn: the lines.
            more: positions to include if a line is in sight.
        """
        if self.y_zoom is None:
            low, high = self.x_ends()
            values = []
            for line in drawn:
                seen = (line.x >= low) & (line.x <= high) if self.x_zoom else slice(None)
                values += [line.low[seen], line.high[seen]]
            flat = np.concatenate([np.empty(0), *values])
            flat = flat[np.isfinite(flat)]
            if len(flat):
                flat = np.append(flat, more)
                self._y_last = limits(float(flat.min()), float(flat.max()), self._y_last)
        return self.y_ends()

    def zoom_y(self, factor: float) -> None:
        """Zoom the vertical axis around the newest value."""
        low, high = self.y_ends()
        newest = [line.mean[np.isfinite(line.mean)] for line in self.lines]
        ends = [self.scale.forward(mean[-1]) for mean in newest if len(mean)]
        middle = float(np.nanmean(ends)) if ends and np.isfinite(ends).any() else (low + high) / 2
        half = factor * (high - low) / 2
        if max(1e-12 * abs(middle), 1e-290) < half < 1e290:
            self.y_zoom = middle - half, middle + half

    # Lines as positions

    @property
    def strength(self) -> float:
        """Standard deviation of this chart's average, as a share of all rows; 0 without an average."""
        return self.smoothing.alone.get(self.title, self.smoothing.of_all) if self.smoothing else 0.0

    @property
    def can_average(self) -> bool:
        """Whether an average of any line can be shown."""
        widest = max(SMOOTHINGS) if self.smoothing else 0.0
        return any(line.smooth and width_in_rows(line.count, widest) > 0 for line in self.lines)

    def is_averaged(self, line: Line) -> bool:
        """Whether the average of a line is shown."""
        return line.smooth and width_in_rows(line.count, self.strength) > 0

    def average(self, line: Line) -> Floats | None:
        """Return the positions of a line's average, if it is shown. On a log axis logarithms are averaged."""
        strength = self.strength if line.smooth else 0.0
        return positions(line.x, line.mean, line.count, strength, (self.x.scale, self.scale))

    def positions(self, line: Line) -> Positions:
        """Return a line as positions."""
        low, high = (np.where(np.isfinite(end), end, np.nan) for end in map(self.scale.forward, (line.low, line.high)))
        mean = self.average(line)
        mean = self.scale.forward(line.mean) if mean is None and line.is_band else mean
        return Positions(self.x.scale.forward(line.x), np.fmin(low, high), high, mean)

    def beyond(self, line: Line) -> Mask:
        """Return where a line has values that the vertical axis cannot show: zero or less on a log axis."""
        return np.isfinite(line.low) & np.isnan(self.scale.forward(line.low))

    # Cursor

    def row_beside(self, columns: int, width: int) -> float | None:
        """Return the visible row nearest to so many of `width` columns from the cursor, in that direction.

        Without a cursor, count from the newest row.
        """
        x, at = self._rows_in_sight()
        if not len(x):
            return None
        low, high = self.x_ends()
        here = at[-1] if self.cursor is None else float(self.x.scale.forward(self.cursor))
        here = min(max(here, low), high) if np.isfinite(here) else high
        ahead = np.flatnonzero((at - here) * columns > 0) if columns else np.arange(0)
        ahead = ahead if len(ahead) else np.arange(len(at))
        target = here + columns * (high - low) / max(1, width - 1)
        return float(x[ahead[np.argmin(np.abs(at[ahead] - target))]])

    def row_nearest(self, position: float) -> float | None:
        """Return the visible row nearest to a position."""
        x, at = self._rows_in_sight()
        return float(x[np.argmin(np.abs(at - position))]) if len(x) else None

    def _rows_in_sight(self) -> tuple[Floats, Floats]:
        """Return the places and positions of all visible rows of all lines, ascending, (n,) each."""
        low, high = self.x_ends()
        x = np.unique(np.concatenate([line.x for line in self.lines] or [np.empty(0)]))
        at = self.x.scale.forward(x)
        seen = (at >= low) & (at <= high)
        return x[seen], at[seen]

    def row_at_cursor(self, line: Line) -> int | None:
        """Return the index of a line's row nearest to the cursor; None without a row or without a cursor."""
        if self.cursor is None:
            return None
        apart = np.abs(self.x.scale.forward(line.x) - self.x.scale.forward(self.cursor))
        return int(np.nanargmin(apart)) if np.isfinite(apart).any() else None

    def at_cursor(self) -> Iterator[tuple[Line, int]]:
        """Yield each line that has a row at the cursor, with the index of the row."""
        for line in self.lines:
            if (i := self.row_at_cursor(line)) is not None:
                yield line, i

    def around_cursor(self, width: int) -> Ends | None:
        """Return the values of x one of `width` columns left and right of the cursor; None without a cursor."""
        if self.cursor is None:
            return None
        low, high = self.x_ends()
        at, column = float(self.x.scale.forward(self.cursor)), (high - low) / max(1, width - 1)
        return self.x.scale.inverse(at - column), self.x.scale.inverse(at + column)


def _next(smoothing: float) -> float:
    return SMOOTHINGS[(SMOOTHINGS.index(smoothing) + 1) % len(SMOOTHINGS)]
