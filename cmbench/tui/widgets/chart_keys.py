"""What part of its lines a chart shows, and how: axes, average, zoom, cursor, and the keys for them."""

from collections.abc import Callable, Sequence

import numpy as np
from textual.binding import Binding
from textual.message import Message

from cmbench.rundir.columns import Floats
from cmbench.tui.widgets.grid import GridWidget
from cmbench.views.axes import KINDS, Scale, Ticks, grown
from cmbench.views.lines import SIGNS, Band, Line, Mark
from cmbench.views.smoothing import SMOOTHINGS, USUAL
from cmbench.words.numbers import number

LABEL = 7  # characters of a number on the vertical axis
_CLOSEST = 1e-6  # of the whole: the smallest part that zooming shows


class ChartKeys(GridWidget, can_focus=True):
    """A chart but for its drawing.

    Args:
        title: what stands in the frame.
        scale: of the vertical axis.
        x_label: of a value of x, e.g. `lambda t: f"{t:.2f}"`.
        x_name: of one row's place, in full; `x_label` if not given.
        x_scale: of the horizontal axis; times of a profile are even in log sigma.
        fixed_x: ends of the horizontal axis; None: from zero to where the data go.
        smooth: whether lines can be averaged.
    """

    HELP = f"On the axis: {', '.join(f'`{sign}` {kind}' for kind, sign in SIGNS.items())}. On top: `✕` not finite."
    BINDINGS = [
        Binding("y", "scale", "lin / log / symlog", id="chart.scale"),
        Binding("s", "smooth", "Smooth", id="chart.smooth"),
        Binding("a", "smooth_alone", "Smooth this chart", id="chart.smooth_alone", show=False),
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
        Binding("E", "export", "Chart as PNG, SVG or CSV", id="chart.export", show=False),
        Binding("Y", "copy", "Copy the values", id="chart.copy", show=False),
        Binding("0", "reset", "Whole curve", id="chart.reset", show=False),
    ]

    class CursorMoved(Message, namespace="chart"):
        """The cursor stands at another x; None: it was put away."""

        def __init__(self, chart: "ChartKeys", x: float | None) -> None:
            super().__init__()
            self.chart, self.x = chart, x

        @property
        def control(self) -> "ChartKeys":
            """The chart."""
            return self.chart

    class Smoothed(Message, namespace="chart"):
        """All charts are to have the average of this one."""

        def __init__(self, chart: "ChartKeys") -> None:
            super().__init__()
            self.chart = chart

        @property
        def control(self) -> "ChartKeys":
            """The chart."""
            return self.chart

    class Zoomed(Message, namespace="chart"):
        """Another part of the horizontal axis is shown, between two positions; None: the whole."""

        def __init__(self, chart: "ChartKeys", ends: tuple[float, float] | None) -> None:
            super().__init__()
            self.chart, self.ends = chart, ends

        @property
        def control(self) -> "ChartKeys":
            """The chart."""
            return self.chart

    def __init__(
        self,
        title: str,
        *,
        scale: Scale | None = None,
        x_label: Callable[[float], str] = number,
        x_name: Callable[[float], str] | None = None,
        x_scale: Scale | None = None,
        fixed_x: tuple[float, float] | None = None,
        smooth: bool = True,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.title = title
        self.scale, self.x_scale, self.x_label, self.fixed_x = scale or Scale(), x_scale or Scale(), x_label, fixed_x
        self.x_name = x_name
        self.x_ticks: Ticks | None = None  # places and labels, where those of `x_label` would not do
        self.x_room = 16  # columns for each of these
        self.is_still = False  # whether no more rows come: the axis ends there, not with what there was to come
        self.x_start = 0.0  # where the axis begins, unless its ends are fixed
        self.smoothing = USUAL if smooth else None  # of all charts
        self._alone: dict[str, float] = {}  # averages that charts have for themselves, by title
        self.cursor: float | None = None
        self.x_end: float | None = None  # where the axis will stop at last, if that is known
        self.note = ""  # stands in the lower frame unless the cursor does
        self.bands: Sequence[Band] = ()  # shaded behind the lines
        self.x_title = ""  # of the horizontal axis, in files
        self.shades_gap = False  # between the first two lines
        self.instead = ""  # what stands in place of axes while there is no line
        self._lines: Sequence[Line] = ()
        self._marks: Sequence[Mark] = ()
        self._x_zoom: tuple[float, float] | None = None  # positions
        self._y_zoom: tuple[float, float] | None = None
        self._x_last: float | None = None
        self._y_last: tuple[float, float] | None = None

    def begin_with(self, smoothing: float, alone: dict[str, float]) -> None:
        """Begin with an average, and with those that charts have for themselves, which several charts may share."""
        if self.smoothing is not None:
            self.smoothing, self._alone = smoothing, alone

    @property
    def alone(self) -> dict[str, float]:
        """The averages that charts have for themselves, by title."""
        return dict(self._alone)

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

    @property
    def strength(self) -> float:
        """The standard deviation of the average over all rows: of this chart alone, or of all; 0 without one."""
        return 0.0 if self.smoothing is None else self._alone.get(self.title, self.smoothing)

    @property
    def is_smoothed_alone(self) -> bool:
        """Whether this chart has an average for itself."""
        return self.smoothing is not None and self.title in self._alone

    def action_smooth(self) -> None:
        """Go on to the next average of all charts, this one with them."""
        if self.smoothing is not None:
            self._alone.pop(self.title, None)
            self.take_smoothing(_next(self.smoothing))
            self.post_message(self.Smoothed(self))

    def take_smoothing(self, smoothing: float) -> None:
        """Take the average of all charts."""
        if self.smoothing is not None:
            self.smoothing = smoothing
            self.repaint()

    def action_smooth_alone(self) -> None:
        """Go on to the next average of this chart alone; behind the last it is that of all again."""
        if self.smoothing is not None:
            chosen = _next(self.strength)
            self._alone[self.title] = chosen
            if chosen == self.smoothing:
                del self._alone[self.title]
            self.repaint()
            self.post_message(self.Smoothed(self))

    def forget_x(self) -> None:
        """Begin with another horizontal axis: no zoom, no cursor, ends chosen anew."""
        self._x_zoom = self._x_last = self.cursor = None

    def action_cursor(self, columns: int) -> None:
        """Move the cursor by columns, to the row there or the next that is in sight, from the newest one on."""
        x, at = self._rows_in_sight()
        if not len(x):
            return
        low, high = self._x_ends()
        here = at[-1] if self.cursor is None else float(self.x_scale.forward(self.cursor))
        here = min(max(here, low), high) if np.isfinite(here) else high
        ahead = np.flatnonzero((at - here) * columns > 0) if columns else np.arange(0)
        ahead = ahead if len(ahead) else np.arange(len(at))
        target = here + columns * (high - low) / max(1, self._plot_width - 1)
        self.set_cursor(float(x[ahead[np.argmin(np.abs(at[ahead] - target))]]))

    def _rows_in_sight(self) -> tuple[Floats, Floats]:
        """Return the places of all rows in sight, of every line, and their positions, ascending, (n,)."""
        low, high = self._x_ends()
        x = np.unique(np.concatenate([line.x for line in self._lines] or [np.empty(0)]))
        at = self.x_scale.forward(x)
        seen = (at >= low) & (at <= high)
        return x[seen], at[seen]

    def snap_cursor(self, position: float) -> None:
        """Put the cursor on the row in sight that is nearest to a position."""
        x, at = self._rows_in_sight()
        if len(x):
            self.set_cursor(float(x[np.argmin(np.abs(at - position))]))

    def row_at_cursor(self, line: Line) -> int | None:
        """Return which row of a line is nearest to the cursor; None without a row or without a cursor."""
        if self.cursor is None:
            return None
        apart = np.abs(self.x_scale.forward(line.x) - self.x_scale.forward(self.cursor))
        return int(np.nanargmin(apart)) if np.isfinite(apart).any() else None

    def around_cursor(self, columns: float = 1.0) -> tuple[float, float] | None:
        """Return the values of x so many columns to either side of the cursor; None without one."""
        if self.cursor is None:
            return None
        low, high = self._x_ends()
        at, width = float(self.x_scale.forward(self.cursor)), columns * (high - low) / max(1, self._plot_width - 1)
        return self.x_scale.inverse(at - width), self.x_scale.inverse(at + width)

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
        self._zoom_to((low, low + width) if width < whole[1] - whole[0] else None)

    def _zoom_to(self, ends: tuple[float, float] | None) -> None:
        self.take_zoom(ends)
        self.post_message(self.Zoomed(self, ends))

    def take_zoom(self, ends: tuple[float, float] | None) -> None:
        """Show a part of the horizontal axis, between two positions, or the whole."""
        self._x_zoom = ends
        self.repaint()

    def action_pan(self, share: float) -> None:
        """Move the part that is shown."""
        low, high = self._x_ends()
        whole = self._whole_x()
        shift = share * (high - low)
        shift = min(max(shift, whole[0] - low), whole[1] - high)
        if self._x_zoom is not None:
            self._zoom_to((low + shift, high + shift))

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
        self._y_zoom = self._y_last = None
        self._zoom_to(None)
        self.set_cursor(None)

    def _whole_x(self) -> tuple[float, float]:
        if self.fixed_x is not None:
            return float(self.x_scale.forward(self.fixed_x[0])), float(self.x_scale.forward(self.fixed_x[1]))
        start = self.x_start
        if self.is_still and (end := max(self._newest, self.x_end or start)) > start:
            return start, end
        self._x_last = grown(self._newest - start, self._x_last, None if self.x_end is None else self.x_end - start)
        return start, start + (self._x_last or 1.0)

    @property
    def _newest(self) -> float:
        ends = (float(line.x[-1]) for line in self._lines if len(line.x))
        return max(self.x_start, max(ends, default=self.x_start + 1.0))

    def _x_ends(self) -> tuple[float, float]:
        return self._x_zoom or self._whole_x()

    @property
    def _plot_width(self) -> int:
        return max(1, self.inner_width - LABEL - 1)


def _next(smoothing: float) -> float:
    return SMOOTHINGS[(SMOOTHINGS.index(smoothing) + 1) % len(SMOOTHINGS)]
