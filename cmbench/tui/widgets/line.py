"""Lines of text whose unchanged cells are not sent again."""

from collections.abc import Callable, Sequence

from rich.style import Style

from cmbench.text import plain
from cmbench.tui.widgets.grid import Grid, GridWidget, laid_out

Part = tuple[str, str]  # text and pen
Rows = Sequence[Sequence[Part]]


class Lines(GridWidget):
    """Rows of parts, each a text and its pen (see GridWidget.style) or "" for no pen.

    Args:
        title: title in the frame; without a title there is no frame.
        tail: if not all rows fit, show the last ones instead of the first.
        whole: end a row before a part that would be cut.
    """

    def __init__(
        self,
        title: str = "",
        tail: bool = False,
        whole: bool = False,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.tail, self.whole = tail, whole
        self.frame_title, self.framed = title, bool(title)
        self.rows: Rows | Callable[[int], Rows] = ()

    def show(self, rows: Rows | Callable[[int], Rows]) -> None:
        """Show rows from the top. If their text depends on the width, pass a function of the number of columns."""
        self.rows = rows
        self.repaint()

    def rows_at(self, width: int) -> Rows:
        """Return the rows for a width in columns."""
        return self.rows(width) if callable(self.rows) else self.rows

    def draw(self, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return the rows that fit."""
        rows = self.rows_at(width)
        return self.written(rows[-height:] if self.tail else rows[:height], width, height)

    def written(self, rows: Rows, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return a grid with the rows, and its styles."""
        grid = Grid.blank(width, height)
        pens = sorted({pen for row in rows for _, pen in row if pen})
        for y, row in enumerate(rows):
            x = 0
            for text, pen in row:
                shown = laid_out(plain(text))
                if self.whole and x and x + len(shown) > width:
                    break
                grid.write(x, y, shown, 1 + pens.index(pen) if pen else 0)
                x += len(shown)
        return grid, [Style.null(), *(self.style(pen) for pen in pens)]


class LogLines(Lines):
    """The newest rows, or earlier rows that the user scrolled back to; these stay in sight when new rows come."""

    top: int | None = None  # the first row in sight; None: the newest rows are in sight

    def draw(self, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return the rows in sight, and note in the frame how many are below."""
        rows = self.rows_at(width)
        last = max(0, len(rows) - height)
        top = last if self.top is None else min(self.top, last)
        self.frame_note = f"{last - top} more below" if top < last else ""
        return self.written(rows[top : top + height], width, height)

    def go(self, lines: int) -> None:
        """Scroll by lines; at the newest row, follow new ones."""
        last = max(0, len(self.rows_at(self.inner_width)) - self.inner_height)
        top = max(0, (last if self.top is None else min(self.top, last)) + lines)
        self.top = top if top < last else None
        self.repaint()
