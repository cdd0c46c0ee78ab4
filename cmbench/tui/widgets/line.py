"""Lines of text whose unchanged cells are not sent again."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.style import Style

from cmbench.tui.text import plain
from cmbench.tui.widgets.grid import Grid, GridWidget

Part = tuple[str, str]  # text, and the name of its style


class Lines(GridWidget):
    """Rows of parts, each a text and the name of a style, one of STYLES.

    Characters that take two cells, or none, are shown as ?: every character here has one cell.
    """

    STYLES = ("", "muted", "good", "warning", "error", "strong", *(f"line-{i}" for i in range(8)))
    COMPONENT_CLASSES = {f"lines--{name}" for name in STYLES[1:]}
    DEFAULT_CSS = """
    Lines {
        .lines--muted { color: $text-muted; }
        .lines--good { color: $success; }
        .lines--warning { color: $warning; }
        .lines--error { color: $error; }
        .lines--strong { color: $text; text-style: bold; }
        .lines--line-0 { color: $line-0; }
        .lines--line-1 { color: $line-1; }
        .lines--line-2 { color: $line-2; }
        .lines--line-3 { color: $line-3; }
        .lines--line-4 { color: $line-4; }
        .lines--line-5 { color: $line-5; }
        .lines--line-6 { color: $line-6; }
        .lines--line-7 { color: $line-7; }
    }
    """

    def __init__(self, title: str = "", id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.frame_title, self.framed = title, bool(title)
        self.rows: Sequence[Sequence[Part]] = ()

    def show(self, rows: Sequence[Sequence[Part]]) -> None:
        """Show rows from the top."""
        self.rows = rows
        self.repaint()

    def draw(self, width: int, height: int) -> tuple[Grid, Sequence[Style]]:
        """Return the rows that fit."""
        grid = Grid.blank(width, height)
        named = [self.get_component_rich_style(f"lines--{name}", partial=True) for name in self.STYLES[1:]]
        for y, row in enumerate(self.rows[:height]):
            x = 0
            for text, style in row:
                shown = "".join(c if cell_len(c) == 1 else "?" for c in plain(text))
                grid.write(x, y, shown, self.STYLES.index(style))
                x += len(shown)
        return grid, [Style.null(), *named]
