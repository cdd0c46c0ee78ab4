"""Pictures side by side, and rows of them one above the other."""

from collections.abc import Sequence
from typing import NamedTuple

from textual.containers import Horizontal, Vertical

from cmbench.tui.widgets.drawing import Drawing
from cmbench.tui.widgets.picture import Picture, PixelPicture


class Shown(NamedTuple):
    """What one picture of a row shows."""

    caption: str
    drawing: Drawing


class PictureRow(Horizontal):
    """As many pictures as it is given, of equal width; `protocol` as pixel_protocol() tells it."""

    DEFAULT_CSS = "PictureRow { height: 1fr; }"

    def __init__(self, protocol: str = "") -> None:
        super().__init__()
        self._protocol, self._count = protocol, 0

    @property
    def pictures(self) -> list[Picture]:
        """The pictures, those without room included."""
        return list(self.query_children(Picture))

    async def show(self, shown: Sequence[Shown], extent: float) -> None:
        """Show these, and no others."""
        self._count = len(shown)
        new = [self._picture() for _ in range(len(shown) - len(self.pictures))]
        self._share_width([*self.pictures, *new])  # before they are laid out, and painted, for the first time
        await self.mount_all(new)
        for picture, (caption, drawing) in zip(self.pictures, shown, strict=False):
            picture.show(caption, drawing, extent)

    def on_resize(self) -> None:
        """Share the new width."""
        self._share_width(self.pictures)

    def _picture(self) -> Picture:
        return PixelPicture(self._protocol) if self._protocol else Picture()

    def _share_width(self, pictures: Sequence[Picture]) -> None:
        """Give all pictures the same width to a column, so that they show the same samples."""
        width = self.size.width // max(1, self._count) - 1
        for i, picture in enumerate(pictures):
            if picture.display != (i < self._count):
                picture.display = i < self._count
            before = picture.styles.width
            if self.size.width and (before is None or before.value != width):
                picture.styles.width = width


class PictureRows(Vertical):
    """A row or two, of equal height."""

    def __init__(self, protocol: str = "") -> None:
        super().__init__(PictureRow(protocol), PictureRow(protocol))
        self._share_height(1)

    async def show(self, rows: Sequence[Sequence[Shown]], extent: float) -> None:
        """Show these, and no others."""
        self._share_height(len(rows))
        for row, shown in zip(self._rows, rows, strict=False):
            await row.show(shown, extent)

    def on_resize(self) -> None:
        """Share the new height."""
        self._share_height(self._count)

    @property
    def _rows(self) -> list[PictureRow]:
        return list(self.query_children(PictureRow))

    def _share_height(self, count: int) -> None:
        self._count = count
        height = self.size.height // max(1, count)
        for i, row in enumerate(self._rows):
            if row.display != (i < count):
                row.display = i < count
            before = row.styles.height
            if height and (before is None or before.value != height):
                row.styles.height = height
