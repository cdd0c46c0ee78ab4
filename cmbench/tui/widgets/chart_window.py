"""What part of its lines a chart shows: axes, average, zoom and cursor. Numbers and words, no widget."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cmbench.tui.canvas import Floats, Mask
from cmbench.views.axes import KINDS, Scale, Ticks, grown, limits
from cmbench.views.lines import Line
from cmbench.views.smoothing import SMOOTHINGS, USUAL, positions, width_in_rows
from cmbench.words.numbers import number

_CLOSEST = 1e-6  # of the whole: the smallest part that zooming shows

Ends = tuple[float, float]


@dataclass(frozen=True)
class XAxis:
    """The horizontal axis of a chart.

    Attributes:
        label: of a value of x, e.g. `lambda t: f"{t:.2f}"`.
        name: of one row's place, in full; `label` if not given.
        ticks: places and labels, where those of `label` would not do.
        room: columns for each of these.
        title: what it is called in files.
        scale: times of a profile are even in log sigma.
        fixed: its ends; None: from `start` to where the data go.
        start: where it begins, unless its ends are fixed.
        end: where it will stop at last, if that is known.
        is_still: whether no more rows come: it ends there, not with what there was to come.
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
    """The average of the charts that share this; those that some have for themselves go by their titles."""

    of_all: float = USUAL
    alone: dict[str, float] = field(default_factory=dict)

    def next_of_all(self, title: str) -> None:
        """Go on to the next average of all charts, the one of this title with them."""
        self.alone.pop(title, None)
        self.of_all = _next(self.of_all)

    def next_alone(self, title: str) -> None:
        """Go on to the next average of one chart; behind the last it is that of all again."""
        self.alone[title] = _next(self.alone.get(title, self.of_all))
        if self.alone[title] == self.of_all:
            del self.alone[title]


class Positions(NamedTuple):
    """A line as positions on both axes, (n,) each; the average, or a band's mean, where it is to be seen."""

    x: Floats
    low: Floats
    high: Floats
    mean: Floats | None

    @property
    def middle(self) -> Floats:
        """The middle of low and high, though their sum may be beyond all floats."""
        return self.low / 2 + self.high / 2


class Window:
    """What a chart shows of its lines, and which row its cursor is on.

    Args:
        title: of the chart.
        scale: of the vertical axis.
        x: the horizontal axis.
        smoothing: None: no line is averaged.
    """

    def __init__(self, title: str, scale: Scale, x: XAxis, smoothing: Smoothing | None) -> None:
        self.title, self.scale, self.x, self.smoothing = title, scale, x, smoothing
        self.lines: Sequence[Line] = ()
        self.cursor: float | None = None
        self.x_zoom: Ends | None = None  # positions, as all ends below
        self.y_zoom: Ends | None = None
        self._x_last: float | None = None
        self._y_last: Ends | None = None

    def begin(self, title: str, scale: Scale) -> None:
        """Begin with another quantity: its own axes, no zoom, no cursor."""
        self.title, self.scale = title, scale
        self.x_zoom = self.y_zoom = self._y_last = self.cursor = None

    def forget_x(self) -> None:
        """Begin with another horizontal axis: no zoom, no cursor, ends chosen anew."""
        self.x_zoom = self._x_last = self.cursor = None

    def forget_y(self) -> None:
        """Choose the ends of the vertical axis anew."""
        self.y_zoom = self._y_last = None

    # Horizontal axis

    def whole_x(self) -> Ends:
        """Return the ends of the horizontal axis where nothing is zoomed; they rest while rows come."""
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
        """Return the ends of what is in sight."""
        return self.x_zoom or self.whole_x()

    def zoom(self, factor: float) -> bool:
        """Show a part of the horizontal axis, around the cursor, if that is in sight. Return whether there is one."""
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
        """Move the part that is shown, by a share of it. Return whether it is a part."""
        if self.x_zoom is None:
            return False
        (low, high), (start, end) = self.x_zoom, self.whole_x()
        shift = min(max(share * (high - low), start - low), end - high)
        self.x_zoom = low + shift, high + shift
        return True

    # Vertical axis

    def next_scale(self) -> None:
        """Go on to the next scale of the vertical axis."""
        kind = KINDS[(KINDS.index(self.scale.kind) + 1) % len(KINDS)]
        sizes = np.concatenate([np.abs(line.mean) for line in self.lines] or [np.ones(1)])
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        small = max(np.quantile(sizes, 0.1), 1e-12 * sizes.max(), 1e-290) if len(sizes) else 1.0
        self.scale = Scale(kind, float(10.0 ** np.floor(np.log10(small))))
        self.forget_y()

    def y_ends(self) -> Ends:
        """Return the ends of what is in sight, as `fit_y` chose them last."""
        return self.y_zoom or self._y_last or (0.0, 1.0)

    def fit_y(self, drawn: Sequence[Positions], more: Sequence[float] = ()) -> Ends:
        """Choose the ends of the vertical axis for what is in sight, and return them.

        Args:
            drawn: the lines.
            more: positions that are to be in sight where a line is.
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
        """Show a part of the vertical axis, around the newest value."""
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
        """The standard deviation of the average over all rows: of this chart alone, or of all; 0 without one."""
        return self.smoothing.alone.get(self.title, self.smoothing.of_all) if self.smoothing else 0.0

    def is_averaged(self, line: Line) -> bool:
        """Whether an average of a line is to be seen."""
        return line.smooth and width_in_rows(line.count, self.strength) > 0

    def average(self, line: Line) -> Floats | None:
        """Return positions of the average of a line, if it is to be seen; on a log axis, of logarithms."""
        strength = self.strength if line.smooth else 0.0
        return positions(line.x, line.mean, line.count, strength, (self.x.scale, self.scale))

    def positions(self, line: Line) -> Positions:
        """Return a line as positions."""
        low, high = (np.where(np.isfinite(end), end, np.nan) for end in map(self.scale.forward, (line.low, line.high)))
        mean = self.average(line)
        mean = self.scale.forward(line.mean) if mean is None and line.is_band else mean
        return Positions(self.x.scale.forward(line.x), np.fmin(low, high), high, mean)

    def beyond(self, line: Line) -> Mask:
        """Return where a line has values that the vertical axis has no place for: zero and less, on a log axis."""
        return np.isfinite(line.low) & np.isnan(self.scale.forward(line.low))

    # Cursor

    def row_beside(self, columns: int, width: int) -> float | None:
        """Return the row in sight by so many of `width` columns from the cursor, or the next; from the newest on."""
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
        """Return the row in sight that is nearest to a position."""
        x, at = self._rows_in_sight()
        return float(x[np.argmin(np.abs(at - position))]) if len(x) else None

    def _rows_in_sight(self) -> tuple[Floats, Floats]:
        """Return the places of all rows in sight, of every line, and their positions, ascending, (n,)."""
        low, high = self.x_ends()
        x = np.unique(np.concatenate([line.x for line in self.lines] or [np.empty(0)]))
        at = self.x.scale.forward(x)
        seen = (at >= low) & (at <= high)
        return x[seen], at[seen]

    def row_at_cursor(self, line: Line) -> int | None:
        """Return which row of a line is nearest to the cursor; None without a row or without a cursor."""
        if self.cursor is None:
            return None
        apart = np.abs(self.x.scale.forward(line.x) - self.x.scale.forward(self.cursor))
        return int(np.nanargmin(apart)) if np.isfinite(apart).any() else None

    def at_cursor(self) -> Iterator[tuple[Line, int]]:
        """Yield each line that has a row at the cursor, and which it is."""
        for line in self.lines:
            if (i := self.row_at_cursor(line)) is not None:
                yield line, i

    def around_cursor(self, width: int) -> Ends | None:
        """Return the values of x one of `width` columns to either side of the cursor; None without one."""
        if self.cursor is None:
            return None
        low, high = self.x_ends()
        at, column = float(self.x.scale.forward(self.cursor)), (high - low) / max(1, width - 1)
        return self.x.scale.inverse(at - column), self.x.scale.inverse(at + column)


def _next(smoothing: float) -> float:
    return SMOOTHINGS[(SMOOTHINGS.index(smoothing) + 1) % len(SMOOTHINGS)]
