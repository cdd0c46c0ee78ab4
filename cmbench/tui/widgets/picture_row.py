"""Rows of pictures side by side, one row above the other."""

from collections.abc import Sequence
from typing import NamedTuple

from textual.containers import Horizontal, Vertical

from cmbench.tui.widgets.drawing import Drawing
from cmbench.tui.widgets.picture import Picture, PixelPicture


class Shown(NamedTuple):
    """The content of one picture of a row."""

    caption: str
    drawing: Drawing


class PictureRow(Horizontal):
    """A row of pictures of equal width; `protocol` is the result of pixel_protocol()."""

    DEFAULT_CSS = "PictureRow { height: 1fr; }"

    def __init__(self, protocol: str = "") -> None:
        super().__init__()
        self._protocol, self._count = protocol, 0

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, including hidden ones."""
        return list(self.query_children(Picture))

    async def show(self, shown: Sequence[Shown], extent: float) -> None:
        """Show only these pictures."""
        self._count = len(shown)
        new = [self._picture() for _ in range(len(shown) - len(self.pictures))]
        self._share_width([*self.pictures, *new])  # before they are laid out, and painted, for the first time
        await self.mount_all(new)
        for picture, (caption, drawing) in zip(self.pictures, shown, strict=False):
            picture.show(caption, drawing, extent)

    def on_resize(self) -> None:
        """Share out the new width."""
        self._share_width(self.pictures)

    def _picture(self) -> Picture:
        return PixelPicture(self._protocol) if self._protocol else Picture()

    def _share_width(self, pictures: Sequence[Picture]) -> None:
        """Give all pictures exactly the same width, so that they show the same samples."""
        width = self.size.width // max(1, self._count) - 1
        for i, picture in enumerate(pictures):
            if picture.display != (i < self._count):
                picture.display = i < self._count
            before = picture.styles.width
            if self.size.width and (before is None or before.value != width):
                picture.styles.width = width


class PictureRows(Vertical):
    """One or two rows of equal height."""

    def __init__(self, protocol: str = "") -> None:
        super().__init__(PictureRow(protocol), PictureRow(protocol))
        self._share_height(1)

    async def show(self, rows: Sequence[Sequence[Shown]], extent: float) -> None:
        """Show only these rows."""
        self._share_height(len(rows))
        for row, shown in zip(self._rows, rows, strict=False):
            await row.show(shown, extent)

    def on_resize(self) -> None:
        """Share out the new height."""
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
