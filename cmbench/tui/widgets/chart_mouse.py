"""What the mouse does to a chart: clicks put the cursor, the wheel zooms, with shift or by dragging the lines move."""

from textual import events

from cmbench.tui.widgets.chart_keys import LABEL
from cmbench.tui.widgets.chart_out import ChartOut

_PAN = 0.25  # of what is in sight, for a notch of the wheel


class ChartMouse(ChartOut):
    """A chart that takes the mouse, but for its drawing; arguments as `ChartKeys` takes them."""

    ALLOW_SELECT = False  # dragging is for the lines

    _held: int | None = None  # the column of the terminal where the mouse holds the lines
    _was_dragged = False

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Take hold of the lines."""
        self._held, self._was_dragged = event.screen_x, False
        self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Let the lines follow while the button is down."""
        if self._held is None:
            return
        if not event.button:  # let go where nobody saw it: outside the terminal
            self._let_go()
        elif columns := event.screen_x - self._held:
            self._held, self._was_dragged = event.screen_x, self._x_zoom is not None
            self.action_pan(-columns / max(1, self._plot_width - 1))

    def on_mouse_up(self) -> None:
        """Let go."""
        self._let_go()

    def _let_go(self) -> None:
        self._held = None
        self.release_mouse()

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the row nearest to the mouse, unless it dragged the lines there."""
        column = event.get_content_offset_capture(self).x - LABEL - 2
        if not self._was_dragged and 0 <= column < self._plot_width:
            low, high = self._x_ends()
            self.snap_cursor(low + (high - low) * column / max(1, self._plot_width - 1))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Zoom out; with shift, go right."""
        event.stop()
        if event.shift:
            self.action_pan(_PAN)
        else:
            self.action_zoom(2.0)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Zoom in; with shift, go left."""
        event.stop()
        if event.shift:
            self.action_pan(-_PAN)
        else:
            self.action_zoom(0.5)

    def on_mouse_scroll_left(self, event: events.MouseScrollLeft) -> None:
        """Go left."""
        event.stop()
        self.action_pan(-_PAN)

    def on_mouse_scroll_right(self, event: events.MouseScrollRight) -> None:
        """Go right."""
        event.stop()
        self.action_pan(_PAN)
