"""Lines that grow at their end, and can be gone back in."""

from collections.abc import Sequence

from rich.style import Style

from cmbench.tui.widgets.grid import Grid
from cmbench.tui.widgets.line import Lines


class LogLines(Lines):
    """The newest rows, or those that somebody went back to, which stay in sight when others come."""

    top: int | None = None  # the first row in sight; None: the newest are

    def draw(self, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return the rows in sight, and say how many are below."""
        rows = self.rows_at(width)
        last = max(0, len(rows) - height)
        top = last if self.top is None else min(self.top, last)
        self.frame_note = f"{last - top} more below" if top < last else ""
        return self.written(rows[top : top + height], width, height)

    def go(self, lines: int) -> None:
        """Go back or on; from the newest row on follow what comes."""
        last = max(0, len(self.rows_at(self.inner_width)) - self.inner_height)
        top = max(0, (last if self.top is None else min(self.top, last)) + lines)
        self.top = top if top < last else None
        self.repaint()
