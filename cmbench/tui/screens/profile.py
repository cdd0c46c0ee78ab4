"""The time profile: quantities over the sampler's time variable, with a frozen reference and their history."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from cmbench import quantities
from cmbench.rundir import shares
from cmbench.tui import bin_axis
from cmbench.tui.screens.base import ReadingScreen
from cmbench.tui.widgets.chart import Chart
from cmbench.tui.widgets.chart_window import XAxis
from cmbench.tui.widgets.key_bar import KeyBar
from cmbench.tui.widgets.line import Lines
from cmbench.tui.widgets.stack import Stack
from cmbench.tui.widgets.waterfall import Waterfall
from cmbench.views import report
from cmbench.views.axes import Scale
from cmbench.views.lines import Line
from cmbench.views.run import RunView
from cmbench.words.numbers import number

_CURVES = ("weight", "loss", "tangent_norm", "true_error")
_PARTS = ("anatomy_stable", "anatomy_spatial", "anatomy_temporal")
_LEAST = 7  # rows that a readable curve needs


def _curves() -> list[str]:
    """Return the quantities that have a curve: those of every objective, then those of some objectives only."""
    return [*_CURVES, *quantities.OF_SAMPLES]


class ProfileScreen(ReadingScreen):
    """Loss, weight, tangent and error over t, now and then."""

    AUTO_FOCUS = "#curve-tangent_norm"
    BINDINGS = [
        Binding("m", "reference", "Reference", id="profile.reference"),
        Binding("1", "mode('value')", "Value", id="profile.value"),
        Binding("2", "mode('ratio')", "Ratio to reference", id="profile.ratio"),
        Binding("3", "mode('row')", "Row-normalised", id="profile.row"),
        Binding("w", "quantity(1)", "Waterfall quantity", id="profile.quantity"),
        Binding("left_square_bracket", "curve(-1)", "Curve before", id="profile.curve_before", show=False),
        Binding("right_square_bracket", "curve(1)", "Next curve", id="profile.curve_after", show=False),
        Binding("p", "app.back", "Dashboard", id="profile.back", show=False),
    ]

    def __init__(self, view: RunView) -> None:
        super().__init__()
        self.view = view
        self.of = 0
        self._version = -1  # of the profiles that are shown

    @property
    def is_still(self) -> bool:
        """Whether the run is paused or over."""
        return self.view.is_still

    def compose(self) -> ComposeResult:
        """Lay out curves on the left and the waterfall on the right; on a narrow screen, one below the other."""
        yield Lines(id="header", whole=True)
        with Horizontal(id="profile"):
            with Vertical(id="curves"):
                for key in _curves():
                    scale = Scale("linear" if quantities.is_signed(key) else "log")
                    yield Chart(f"{quantities.title(key)} over t", scale=scale, id=f"curve-{key}")
                yield Chart("", id="curve-shares")
                yield Stack("tangent's parts", self.t_label, id="anatomy")
            yield Waterfall("", self.t_label, id="profile-waterfall")
        yield KeyBar("reference", "mode('value')", "mode('ratio')", "mode('row')", "quantity(1)")

    def on_mount(self) -> None:
        """Show what is read already, and continue reading."""
        self._choose(self.query_one("#curve-tangent_norm"))
        self.call_after_refresh(self.show)
        self.follow()

    @property
    def is_behind(self) -> bool:
        """Whether there are more rows to read."""
        return self.view.series.behind > 0

    def read_piece(self) -> Callable[[], None] | None:
        """Read what is new."""
        changed = self.view.read()
        return self.show if "status" in changed or self._version != self.view.series.profiles.version else None

    def show(self) -> None:
        """Draw the newest profile, the reference and the history."""
        self._version, rows = self.view.series.profiles.version, self.view.series.profiles.rows
        self.query_one("#header", Lines).show(
            lambda width: report.header(self.view, None, False, self.bench.ascii, width)
        )
        for key in _curves():
            chart = self._chart(key)
            chart.set_class(bool(rows) and not rows.get(key), "-nothing")
            chart.note = f"step {rows[key][-1][0]}" if rows.get(key) else "not measured in this run"
            lines = []
            if key in self.view.reference:
                step, old = self.view.reference[key]
                lines.append(self._line(f"step {step}", old, colour=1, dash="dashed"))
                chart.note += f", dashed: {step}"
            if rows.get(key):
                lines.append(self._line("now", rows[key][-1][1], colour=0))
            chart.show(lines)
        self._show_shares()
        self._show_anatomy()
        self._show_waterfall()
        self._arrange()

    def _chart(self, key: str) -> Chart:
        """Return the chart of a quantity, with its axis of bins."""
        chart, bins = self.query_one(f"#curve-{key}", Chart), len(self.view.edges) - 1
        ticks, ends = bin_axis.ticks_of(self.view.edges), (0.0, float(bins)) if bins > 0 else None
        chart.window.x = XAxis(self._x_label, self._bin, ticks, bin_axis.ROOM, fixed=ends)
        return chart

    def _show_shares(self) -> None:
        """Draw each bin's share of the gradient and of the batch, and the proposal that would even out the gradient."""
        chart, found = self._chart("shares"), shares.newest(self.view.series.profiles.rows)
        chart.set_class(found is None, "-nothing")
        if found is None:
            return
        names = ("-", ".", "- -") if self.bench.ascii else ("━", "┈", "╍")
        chart.window.title = "gradient's share {} batch's {} evening {}".format(*names)
        of = shares.log_normal
        told = [of(each, self.view.noise_levels) for each in (found[1].batch, found[1].evening)]
        chart.note = (
            "  ".join(
                f"{name} P {pair[0]:.1f}{'+-' if self.bench.ascii else '±'}{pair[1]:.1f}"
                for name, pair in zip(("batch", "evening"), told, strict=True)
                if pair
            )
            or f"step {found[0]}"
        )
        looks = (("batch", 2, "dotted"), ("evening", 1, "dashed"), ("gradient", 0, "solid"))
        chart.show([self._line(name, getattr(found[1], name), colour, dash) for name, colour, dash in looks])

    def _arrange(self) -> None:
        """Hide curves without data, and show only as many of the others as can be read."""
        curves = [curve for curve in self.query("#curves > *") if not curve.has_class("-nothing")]
        chosen = next((i for i, curve in enumerate(curves) if curve.has_class("chosen")), None)
        if chosen is None and curves:
            self._choose(curves[0])
        height = self.query_one("#curves").size.height
        room = max(1, height // _LEAST) if height else len(curves)  # a height of 0: not laid out yet
        first = max(0, min((chosen or 0) - room // 2, len(curves) - room))
        for i, curve in enumerate(curves):
            curve.set_class(not first <= i < first + room, "-beyond")

    def on_resize(self) -> None:
        """Show as many curves as there is room for now."""
        self.call_after_refresh(self._arrange)

    def _show_anatomy(self) -> None:
        rows, stack = self.view.series.profiles.rows, self.query_one("#anatomy", Stack)
        parts = [(key.removeprefix("anatomy_"), rows[key][-1][1].astype(np.float64)) for key in _PARTS if rows.get(key)]
        stack.note = "" if parts else "no anatomy in this run"
        stack.set_class(bool(rows) and not parts, "-nothing")
        stack.edges = self.view.edges
        stack.show(parts)

    def _show_waterfall(self) -> None:
        waterfall, rows = self.query_one(Waterfall), self.view.series.profiles.rows
        recorded = [key for key in list(rows) if rows.get(key)]
        known = quantities.over_time([*recorded, *shares.known(rows)])
        if not known:
            return
        key = known[self.of % len(known)]
        waterfall.title = f"{quantities.title(key)} over t, steps down"
        waterfall.edges, waterfall.is_signed = self.view.edges, quantities.is_signed(key)
        if key in recorded:
            waterfall.reference = self.view.reference.get(key)
            waterfall.show(rows[key], self.view.is_over)
        else:
            frozen = {part: [row] for part, row in self.view.reference.items()}
            waterfall.reference = next(iter(shares.history(frozen, key)), None)
            waterfall.show(shares.history(rows, key), self.view.is_over)

    @staticmethod
    def _line(label: str, bins: NDArray[np.float32], colour: int, dash: str = "solid") -> Line:
        filled = np.flatnonzero(np.isfinite(bins))  # curricula leave some bins empty
        return Line.of(label, filled.astype(np.float64) + 0.5, bins[filled].astype(np.float64), colour, dash)

    def t_label(self, edge: int) -> str:
        """Return the time at an edge between bins."""
        edges = self.view.edges
        return number(edges[edge]) if 0 <= edge < len(edges) else ""

    def _x_label(self, x: float) -> str:
        """Return the time at a place on the axis, which counts bins."""
        return self.t_label(round(x))

    def _bin(self, x: float) -> str:
        """Return the times of the bin at a place on the axis; rows lie in the middle of their bins."""
        return f"t {self.t_label(int(x))} to {self.t_label(int(x) + 1)}"

    def action_reference(self) -> None:
        """Freeze the newest profile, to compare later ones with it."""
        self._freeze(-1)

    def _freeze(self, place: int) -> None:
        self.view.reference = {key: kept[place] for key, kept in dict(self.view.series.profiles.rows).items() if kept}
        self.show()

    def action_mode(self, mode: str) -> None:
        """Show values, ratios to the reference, or shares of the row's largest value."""
        if mode == "ratio" and not self.view.reference and self.view.series.profiles.rows:
            self._freeze(0)
        self.query_one(Waterfall).action_mode(mode)  # type: ignore[arg-type]

    def action_quantity(self, step: int) -> None:
        """Show the history of another quantity."""
        self.of += step
        waterfall = self.query_one(Waterfall)
        waterfall.forget_limits()
        self._show_waterfall()

    def action_curve(self, step: int) -> None:
        """Go to another curve."""
        curves = [curve for curve in self.query("#curves > *") if not curve.has_class("-nothing")]
        here = next((i for i, curve in enumerate(curves) if curve.has_class("chosen")), 0)
        self._choose(curves[(here + step) % len(curves)])

    def _choose(self, chosen: Widget) -> None:
        """Go to a curve; if there is room for only one, show this one."""
        for curve in self.query("#curves > *"):
            curve.set_class(curve is chosen, "chosen")
        self._arrange()
        self.call_after_refresh(chosen.focus)

    def on_descendant_focus(self) -> None:
        """If there is room for only one curve, show the focused one."""
        if isinstance(self.focused, Chart):
            for curve in self.query("#curves > *"):
                curve.set_class(curve is self.focused, "chosen")

    def on_chart_cursor_moved(self, event: Chart.CursorMoved) -> None:
        """Move the cursors of the other curves and of the waterfall."""
        for chart in self.query(Chart):
            if chart is not event.chart:
                chart.set_cursor(event.chart.cursor, tell=False)
        waterfall, last = self.query_one(Waterfall), len(self.view.edges) - 2
        if (x := event.chart.cursor) is None or last < 0:
            waterfall.set_cursor(None, tell=False)
        else:
            step = waterfall.cursor[0] if waterfall.cursor else waterfall.newest_step
            waterfall.set_cursor((step, min(max(int(x), 0), last)), tell=False)

    def on_waterfall_cursor_moved(self, event: Waterfall.CursorMoved) -> None:
        """Move the cursors of the curves."""
        for chart in self.query(Chart):
            chart.set_cursor(None if event.bin is None else event.bin + 0.5, tell=False)
