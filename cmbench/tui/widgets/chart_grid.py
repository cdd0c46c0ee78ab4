"""Charts of metrics side by side, page by page, with one axis and one cursor."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.containers import Grid

from cmbench.measures import sampler_steps
from cmbench.quantities import title_of
from cmbench.tui.kept import Kept
from cmbench.tui.profile_lines import Overlay
from cmbench.tui.widgets.chart import Chart
from cmbench.tui.widgets.chart_window import Smoothing, XAxis
from cmbench.views.axes import OF_RUNS, Scale
from cmbench.views.lines import Band, Line, Mark
from cmbench.views.report import scale_of

if TYPE_CHECKING:
    from cmbench.tui.app import CmbenchApp

_WIDE = 140  # columns needed for three charts side by side; the application's breakpoint
_COLUMNS, _ROWS = 56, 15  # size of a chart in a window with room for more than the fewest charts


class ChartGrid(Grid):
    """At least `n` charts, and more in a large window. A screen with room for one chart shows the `chosen` one.

    Args:
        n: smallest number of charts on a page.
        lines_of: returns the lines of a chart, given its metrics.
        note_of: returns the text in the lower edge of a chart.
        bands_of: returns the shaded bands of a chart.
    """

    def __init__(
        self,
        n: int,
        lines_of: Callable[[Sequence[str]], list[Line]],
        note_of: Callable[[Sequence[str]], str] = lambda keys: "",
        bands_of: Callable[[Sequence[str]], list[Band]] = lambda keys: [],
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.smoothing = Smoothing()
        self.charts = [self._chart(i, classes="" if i else "chosen") for i in range(n)]
        self.axis, self.page = next(iter(OF_RUNS)), 0
        self._least, self._again = n, lambda: None  # type: int, Callable[[], None]
        self._lines_of, self._note_of, self._bands_of = lines_of, note_of, bands_of

    def _chart(self, i: int, classes: str = "") -> Chart:
        return Chart("", smoothing=self.smoothing, id=f"chart-{i}", classes=classes)

    @property
    def _kept(self) -> Kept:
        """The view as the user left it."""
        return cast("CmbenchApp", self.app).kept

    def on_mount(self) -> None:
        """Restore axes and averages as the user left them."""
        view = self._kept.charts
        self.axis, self.smoothing.of_all, self.smoothing.alone = view.axis, view.smoothing, dict(view.alone)

    def compose(self) -> ComposeResult:
        """Lay out the charts; the style sheet sets the number of columns."""
        yield from self.charts

    async def on_resize(self) -> None:
        """Adapt the number of charts to the room; while only one is shown, keep their number."""
        columns, rows = self._shape()
        is_alone = self.screen.has_class("-narrow") or self.screen.has_class("enlarged")
        for rule, value in (("grid_size_columns", columns), ("grid_size_rows", rows)):
            if is_alone or columns * rows == self._least:
                self.styles.clear_rule(rule)  # leave it to the style sheet
            else:
                setattr(self.styles, rule, value)
        if not is_alone and columns * rows != len(self.charts):
            await self._have(columns * rows)
            self._again()

    def _shape(self) -> tuple[int, int]:
        """Return how many columns and rows of charts there is room for."""
        width, height = self.size
        columns = max(3 if width >= _WIDE else 2, width // _COLUMNS)
        return columns, max(-(-self._least // columns), height // _ROWS)

    async def _have(self, n: int) -> None:
        gone, self.charts = self.charts[n:], self.charts[:n]
        if any(chart.has_class("chosen") for chart in gone):
            self.choose(self.charts[0])
        for chart in gone:
            await chart.remove()
        new = [self._chart(i) for i in range(len(self.charts), n)]
        self.charts += new
        await self.mount_all(new)

    def show(
        self,
        names: Sequence[Sequence[str]],
        marks: Sequence[Mark] = (),
        end: float | None = None,
        start: float = 0.0,
        overlays: Sequence[Overlay] = (),
        is_still: bool = False,
    ) -> None:
        """Show this page.

        Args:
            names: the metrics of each chart of all pages.
            marks: marks on the axis of each chart.
            end: where the axis ends or will end.
            start: where the axis begins.
            overlays: charts over another axis, on separate pages after these.
            is_still: whether no more rows will come.
        """
        self._again = lambda: self.show(names, marks, end, start, overlays, is_still)
        n = len(self.charts)
        pages = -(-len(names) // n)
        self.page %= max(1, pages - (-len(overlays) // n))
        if self.page < pages or not overlays:
            self._show_metrics(names[self.page * n : (self.page + 1) * n], marks, start, end, is_still)
        else:
            self._show_overlays(overlays[(self.page - pages) * n : (self.page - pages + 1) * n])

    def _show_overlays(self, overlays: Sequence[Overlay]) -> None:
        for chart, overlay in zip(self.charts, [*overlays, *([None] * len(self.charts))], strict=False):
            title, scale = (overlay.title, overlay.scale) if overlay else ("", Scale())
            if chart.title != title:
                chart.window.begin(title, scale)
            chart.window.x = XAxis(scale=overlay.x_scale, fixed=overlay.ends) if overlay else XAxis()
            chart.note, chart.bands, chart.shades_gap = overlay.note if overlay else "", [], False
            chart.show(overlay.lines if overlay else [])

    def _show_metrics(
        self, names: Sequence[Sequence[str]], marks: Sequence[Mark], start: float, end: float | None, is_still: bool
    ) -> None:
        of = OF_RUNS[self.axis]
        x = XAxis(of.label, of.name, of.ticks, title=of.title, start=start, end=end, is_still=is_still)
        for chart, keys in zip(self.charts, [*names, *([()] * len(self.charts))], strict=False):
            lines = self._lines_of(keys)
            if chart.title != title_of(keys):
                chart.window.begin(title_of(keys), Scale(scale_of(lines)))
            else:
                chart.window.widen(scale_of(lines))  # a run may explode while it is watched
            chart.window.x, chart.note, chart.bands = x, self._note_of(keys), self._bands_of(keys)
            chart.shades_gap = len(keys) > 1 and sampler_steps(keys[1]) is not None
            chart.show(lines, marks)

    def next_axis(self) -> None:
        """Switch to the next horizontal axis of `axes.OF_RUNS`."""
        axes = list(OF_RUNS)
        self.axis = axes[(axes.index(self.axis) + 1) % len(axes)]
        for chart in self.charts:
            chart.window.forget_x()
        self._kept.keep_charts(axis=self.axis)

    @property
    def axis_title(self) -> str:
        """Title of the horizontal axis."""
        return OF_RUNS[self.axis].title

    def next_chart(self, step: int) -> bool:
        """Go to the next chart of this page. Return whether there was one."""
        charts = [chart for chart in self.charts if chart.title]
        place = next((i for i, chart in enumerate(charts) if chart.has_class("chosen")), 0) + step
        if not 0 <= place < len(charts):
            return False
        self.choose(charts[place])
        return True

    def turn_to(self, step: int) -> None:
        """After turning the page, go to its first chart, or backwards to its last."""
        charts = [chart for chart in self.charts if chart.title] or self.charts
        self.choose(charts[0 if step > 0 else -1])

    def choose(self, chart: Chart) -> None:
        """Go to a chart."""
        for each in self.charts:
            each.set_class(each is chart, "chosen")
        self.call_after_refresh(chart.focus)

    def on_descendant_focus(self) -> None:
        """If only one chart is shown, show the focused one."""
        if self.screen.focused in self.charts:
            for chart in self.charts:
                chart.set_class(chart is self.screen.focused, "chosen")

    def on_chart_cursor_moved(self, event: Chart.CursorMoved) -> None:
        """Move the cursors of the other charts."""
        event.stop()
        for chart in self.charts:
            if chart is not event.chart:
                chart.set_cursor(event.chart.cursor, tell=False)

    def on_chart_smoothed(self, event: Chart.Smoothed) -> None:
        """Redraw all charts with their new average, and keep it."""
        event.stop()
        for chart in self.charts:
            chart.repaint()
        self._kept.keep_charts(smoothing=self.smoothing.of_all, alone=dict(self.smoothing.alone))

    def on_chart_zoomed(self, event: Chart.Zoomed) -> None:
        """Show the same part of the axis in all charts over it."""
        event.stop()
        for chart in self.charts:
            if chart is not event.chart and chart.window.x.fixed == event.chart.window.x.fixed:
                chart.window.x_zoom = event.chart.window.x_zoom
                chart.repaint()
