"""A chart of lines over one axis: raw values as a shadow under their average, marks, a cursor, keys and mouse."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.style import Style
from textual import events, on, work
from textual.binding import Binding
from textual.color import Color
from textual.message import Message

from cmbench.errors import UsageError
from cmbench.text import plain
from cmbench.tui.screens.confirm import ask_until
from cmbench.tui.widgets import chart_words
from cmbench.tui.widgets.chart_painter import LABEL, PENS, SHADOWS, Painter
from cmbench.tui.widgets.chart_window import Ends, Smoothing, Window, XAxis
from cmbench.tui.widgets.grid import Grid, GridWidget
from cmbench.views import chart_file
from cmbench.views.axes import Scale
from cmbench.views.lines import SIGNS, Band, Line, Mark

_PAN = 0.25  # share of the visible part by which a notch of the wheel pans


class ChartMessage(Message):
    """A message from a chart."""

    def __init__(self, chart: "Chart") -> None:
        super().__init__()
        self.chart = chart

    @property
    def control(self) -> "Chart":
        """The chart that sent the message."""
        return self.chart


class Chart(GridWidget, can_focus=True):
    """Lines with axes. Changed attributes take effect at the next `show` or `repaint`.

    Args:
        title: title in the frame.
        scale: scale of the vertical axis.
        x: the horizontal axis.
        smoothing: the average, which several charts may share; None: lines are never averaged.

    Attributes:
        window: the visible part of the lines.
        note: text in the lower frame while there is no cursor.
        instead: text in place of the axes while there are no lines.
        bands: bands shaded behind the lines.
        shades_gap: whether to shade the gap between the first two lines.
    """

    framed = True
    ALLOW_SELECT = False  # dragging is for the lines
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

    class CursorMoved(ChartMessage):
        """The cursor moved to another x, or was removed."""

    class Smoothed(ChartMessage):
        """The average changed, for this chart or for all charts."""

    class Zoomed(ChartMessage):
        """The visible part of the horizontal axis changed."""

    def __init__(
        self,
        title: str,
        *,
        scale: Scale | None = None,
        x: XAxis | None = None,
        smoothing: Smoothing | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.window = Window(title, scale or Scale(), x or XAxis(), smoothing)
        self.note, self.instead, self.shades_gap = "", "", False
        self.bands: Sequence[Band] = ()
        self._marks: Sequence[Mark] = ()
        self._held: int | None = None  # the terminal column where the mouse holds the lines
        self._was_dragged = False

    @property
    def title(self) -> str:
        """Title of the chart."""
        return self.window.title

    @property
    def lines(self) -> Sequence[Line]:
        """The lines, the last on top."""
        return self.window.lines

    def show(self, lines: Sequence[Line], marks: Sequence[Mark] = ()) -> None:
        """Show lines, the last on top, and marks on the axis."""
        before = self.window.can_average
        self.window.lines, self._marks = lines, marks
        self.repaint()
        if self.has_focus and self.window.can_average != before:
            self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer averages only where they would change a line."""
        return action not in ("smooth", "smooth_alone") or self.window.can_average

    # Drawing

    def draw(self, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return the drawing of axes, lines, marks and cursor."""
        blank, pens = Grid.blank(width, height), [self.style(pen) for pen in PENS]
        palette = [Style.null(), *pens, *map(self._shadow, pens[-SHADOWS:])]
        if self.instead and not self.lines:
            blank.write(max(0, (width - len(self.instead)) // 2), height // 2, self.instead, 1)
            self.frame_title = self.frame_note = ""
            return blank, palette
        painter = Painter(self.window, self._marks, self.bands, self.shades_gap, self.ascii, self.colourless)
        painted = painter.painted(width, height)
        if painted is None:
            return blank, palette
        self.frame_title = chart_words.title(self.window) + painter.names()
        self.frame_note = self.note if self.window.cursor is None else chart_words.reading(self.window)
        return painted, palette

    def _shadow(self, style: Style) -> Style:
        """Return a line's colour faded into the background, or dimmed if the colours are the terminal's own."""
        below = self.background_colors[1]
        if style.color is None or self.app.native_ansi_color:
            return style + Style(dim=True)
        return Style(color=below.blend(Color.from_rich_color(style.color), 0.45).rich_color)

    @property
    def _columns(self) -> int:
        return max(1, self.inner_width - LABEL - 1)

    # Average and axes

    def action_scale(self) -> None:
        """Switch to the next scale of the vertical axis."""
        self.window.next_scale()
        self.repaint()

    def action_smooth(self) -> None:
        """Switch all charts, including this one, to the next average."""
        if self.window.smoothing:
            self.window.smoothing.next_of_all(self.title)
            self._changed(self.Smoothed)

    def action_smooth_alone(self) -> None:
        """Switch only this chart to the next average; after the last it follows the others again."""
        if self.window.smoothing:
            self.window.smoothing.next_alone(self.title)
            self._changed(self.Smoothed)

    def action_zoom(self, factor: float) -> None:
        """Zoom the horizontal axis, around the cursor if it is in sight."""
        if self.window.zoom(factor):
            self._changed(self.Zoomed)

    def action_pan(self, share: float) -> None:
        """Move the visible part."""
        if self.window.pan(share):
            self._changed(self.Zoomed)

    def _changed(self, news: type[ChartMessage]) -> None:
        self.repaint()
        self.post_message(news(self))

    def action_zoom_y(self, factor: float) -> None:
        """Zoom the vertical axis around the newest value."""
        self.window.zoom_y(factor)
        self.repaint()

    def action_reset(self) -> None:
        """Show everything again, and remove the cursor."""
        self.window.forget_y()
        self.window.x_zoom = None
        self._changed(self.Zoomed)
        self.set_cursor(None)

    # Cursor

    @property
    def cursor(self) -> float | None:
        """The cursor's x."""
        return self.window.cursor

    def set_cursor(self, x: float | None, tell: bool = True) -> None:
        """Move the cursor to an x, or remove it."""
        self.window.cursor = x
        self.repaint()
        if tell:
            self.post_message(self.CursorMoved(self))

    def action_cursor(self, columns: int) -> None:
        """Move the cursor by columns to the nearest visible row in that direction. It starts at the newest row."""
        if (x := self.window.row_beside(columns, self._columns)) is not None:
            self.set_cursor(x)

    def around_cursor(self) -> Ends | None:
        """Return the values of x one column to the left and right of the cursor; None without a cursor."""
        return self.window.around_cursor(self._columns)

    # Mouse: a click places the cursor, the wheel zooms, the wheel with shift or dragging pans

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Grab the lines."""
        self._held, self._was_dragged = event.screen_x, False
        self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Drag the lines while the button is down."""
        if self._held is None:
            return
        if not event.button:  # the button was released outside the terminal
            self.on_mouse_up()
        elif columns := event.screen_x - self._held:
            self._held, self._was_dragged = event.screen_x, self.window.x_zoom is not None
            self.action_pan(-columns / max(1, self._columns - 1))

    def on_mouse_up(self) -> None:
        """Release the lines."""
        self._held = None
        self.release_mouse()

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the row nearest to the mouse, unless the mouse was dragging."""
        column = event.get_content_offset_capture(self).x - LABEL - 2
        if not self._was_dragged and 0 <= column < self._columns:
            low, high = self.window.x_ends()
            row = self.window.row_nearest(low + (high - low) * column / max(1, self._columns - 1))
            if row is not None:
                self.set_cursor(row)

    @on(events.MouseScrollUp)
    @on(events.MouseScrollDown)
    @on(events.MouseScrollLeft)
    @on(events.MouseScrollRight)
    def _scroll(self, event: events.MouseEvent) -> None:
        event.stop()
        is_back = isinstance(event, events.MouseScrollUp | events.MouseScrollLeft)
        if event.shift or isinstance(event, events.MouseScrollLeft | events.MouseScrollRight):
            self.action_pan(-_PAN if is_back else _PAN)
        else:
            self.action_zoom(0.5 if is_back else 2.0)

    # Copy and export

    def action_copy(self) -> None:
        """Copy the values at the cursor, or the last ones. They go to the terminal by OSC 52, over SSH too."""
        if text := chart_words.values(self.window):
            self.app.copy_to_clipboard(text)
            self.notify(f"copied, where the terminal allows it: {text}", timeout=3, markup=False)

    @property
    def drawing(self) -> chart_file.Drawing:
        """The visible part of the chart, for export."""
        window, x = self.window, self.window.x
        low, high = map(x.scale.inverse, window.x_ends())
        return chart_file.Drawing(
            self.title, x.title, self.lines, window.scale, x.scale, (low, high), window.strength, self.bands
        )

    @work(exclusive=True, group="export")
    async def action_export(self) -> None:
        """Ask for a file name, and write the chart there."""
        if self.lines:
            name = re.sub(r"[^A-Za-z0-9]+", "_", self.title).strip("_") or "chart"
            question = "Write this chart to a file; its name ends in .png, .svg or .csv"
            if path := await ask_until(self.app, question, f"{name}.png", partial(_write, self.drawing)):
                self.notify(plain(f"written: {path}"), markup=False)


def _write(drawing: chart_file.Drawing, name: str) -> Path | None:
    """Write a drawing to a file, and return its path. An empty name does nothing and returns None."""
    if not name.strip():
        return None
    try:
        path = Path(name.strip()).expanduser()
        chart_file.write(drawing, path)
    except (RuntimeError, OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    return path.absolute()
