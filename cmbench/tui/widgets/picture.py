"""A picture or a scatter in the available room, with a caption above."""

from collections import OrderedDict
from itertools import pairwise

import numpy as np
from PIL import Image
from rich.segment import Segment
from rich.style import Style
from textual.app import ComposeResult
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from cmbench.text import plain
from cmbench.tui.colours import DARK, LEVELS, shades
from cmbench.tui.widgets import film, pixels, raster, scatter, tiles
from cmbench.tui.widgets.drawing import Drawing, Pixels, Points
from cmbench.tui.widgets.film import Film, Plane
from cmbench.words.numbers import number

_KEPT = 4  # both sides of a blink, and the previous ones
_CAPTION = Style(bold=True)
_NOTE = Style(dim=True)


class Picture(Widget):
    """Shows a drawing at its size, letterboxed, with half blocks for pixels. It repaints only changed lines."""

    DEFAULT_CSS = "Picture { width: 1fr; height: 1fr; margin: 0 1 0 0; }"

    def __init__(self) -> None:
        super().__init__()
        self._caption, self._drawing, self._extent = "", "", scatter.EXTENT  # type: str, Drawing, float
        self._made: OrderedDict[object, list[Strip]] = OrderedDict()
        self._frame: list[Strip] = []

    def show(self, caption: str, drawing: Drawing, extent: float = scatter.EXTENT) -> None:
        """Show a drawing: a picture, points within [-extent, extent]^2, or one line of text."""
        before = self._lines()
        self._caption, self._drawing, self._extent = caption, drawing, extent
        after = self._lines()
        changed = [y for y, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return the lines of a region."""
        self._frame = self._lines()  # once per repaint, not once per line
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        """Return a line, the caption first."""
        return self._frame[y] if y < len(self._frame) else Strip.blank(self.size.width)

    def _lines(self) -> list[Strip]:
        """Return all lines; they are rebuilt only if the content, the size or the mode has changed."""
        style, app = self.rich_style, self.app
        colourless = app.no_color or app.native_ansi_color
        ascii, dark = bool(getattr(app, "ascii", False)), app.current_theme.dark
        key = (self._caption, self._drawing, self._extent, self.size, style, colourless, ascii, dark)
        if key not in self._made:
            note, body = self._draw(style, colourless, ascii, dark)
            self._made[key] = [self._head(note, style), *self._letterbox(body, style)][: self.size.height]
            while len(self._made) > _KEPT:
                self._made.popitem(last=False)
        return self._made[key]

    def _draw(self, style: Style, colourless: bool, ascii: bool, dark: bool) -> tuple[str, list[list[Segment]]]:
        """Return a note on the drawing, and its lines."""
        width, height, app = self.size.width, max(0, self.size.height - 1), self.app
        if not width or not height:
            return "", []
        if isinstance(self._drawing, Pixels):
            fitted = tiles.fit(self._drawing.image, self._drawing.tiles, width, 2 * height)
            crude = ascii or colourless
            lines = raster.ramp(fitted.image, style, dark) if crude else raster.half_blocks(fitted.image, style)
            return _note_on_samples(fitted, self._drawing), lines
        if isinstance(self._drawing, Points):
            points, ends = self._drawing, scatter.window(self._extent, width, height)
            own = scatter.own_extent(points.xy, ends)
            extent = self._extent if own is None else own
            ends = scatter.window(extent, width, height)
            behind_as = "-" if ascii else "░" if colourless else ""  # grey dots would look like the others
            cells = scatter.draw(points.xy, extent, width, height, ascii, points.data, behind_as)
            note = _note_on_points(points, ends, ascii, behind_as, None if own is None else self._extent)
            return note, _shaded(cells, style, self._densities(colourless, dark))
        if isinstance(self._drawing, Film):
            return self._draw_film(self._drawing, style, ascii, colourless, dark)
        if isinstance(self._drawing, Plane):
            colours = None if colourless else film.mode_colours(app.theme, dark)
            return _note_on_plane(self._drawing, colourless), film.plane_lines(
                self._drawing, width, height, style, colours
            )
        return "", [[Segment(plain(self._drawing), style + _NOTE)]]

    def _draw_film(
        self, drawing: Film, style: Style, ascii: bool, colourless: bool, dark: bool
    ) -> tuple[str, list[list[Segment]]]:
        width, height = self.size.width, self.size.height - 2  # a line for the noise levels
        if height < 1:
            return "", []
        crude = ascii or colourless
        if crude and drawing.x.ndim == 3:
            text, latents, labels = film.characters(drawing, width, height)
            label = _noise_levels(labels, len(text[0]), "sigma ")
            drawn = [[Segment(line, style)] for line in text]
            return _note_on_film(drawing, latents, "+"), [[Segment(label, style + _NOTE)], *drawn]
        colours = film.mode_colours(DARK if crude else self.app.theme, dark or crude)
        made = film.strip(drawing, width, 2 * height, colours)
        lines = raster.ramp(made.image, style, dark) if crude else raster.half_blocks(made.image, style)
        label = _noise_levels(made.labels, made.image.shape[1], "sigma ")
        return _note_on_film(drawing, made.latents, "grey"), [[Segment(label, style + _NOTE)], *lines]

    def _densities(self, colourless: bool, dark: bool) -> list[Style]:
        """Return the styles for rising densities; the last one is for the points behind."""
        if colourless:
            return [Style(), Style(), Style(), Style(bold=True), Style(bold=True), _NOTE]
        own = shades(self.app.theme, False)
        places = np.linspace(0.4, 1, scatter.DENSITIES) if dark else np.linspace(0.65, 0, scatter.DENSITIES)
        chosen = [own[round(float(place) * (LEVELS - 1))].bgcolor for place in places]
        return [*(Style(color=colour) for colour in chosen), _NOTE]

    def _head(self, note: str, style: Style) -> Strip:
        note = f" {note}" if note else ""
        room = self.size.width - len(note)
        caption = Strip([Segment(plain(self._caption), style + _CAPTION)]).adjust_cell_length(max(0, room), style)
        return Strip([*caption, Segment(note, style + _NOTE)]).adjust_cell_length(self.size.width, style)

    def _letterbox(self, body: list[list[Segment]], style: Style) -> list[Strip]:
        """Centre lines of equal width in the room below the caption."""
        width, height = self.size.width, max(0, self.size.height - 1)
        above = max(0, height - len(body)) // 2
        left = max(0, width - max((Strip(line).cell_length for line in body), default=0)) // 2
        margin = [Segment(" " * left, style)] if left else []
        shown = [Strip([*margin, *line]).adjust_cell_length(width, style) for line in body]
        blank = Strip.blank(width, style)
        return [*[blank] * above, *shown, *[blank] * max(0, height - above - len(body))]


class PixelPicture(Picture):
    """A Picture that shows the true pixels of pictures."""

    DEFAULT_CSS = "PixelPicture > .pixels { width: 1fr; height: 1fr; margin: 1 0 0 0; }"

    def __init__(self, protocol: str) -> None:
        super().__init__()
        made = pixels.image_class(protocol)
        self._pixels = made(classes="pixels") if made else None
        self._sent: object = None

    def compose(self) -> ComposeResult:
        """Lay the widget of pixels over the room below the caption."""
        if self._pixels:
            self._pixels.display = False
            yield self._pixels

    def show(self, caption: str, drawing: Drawing, extent: float = scatter.EXTENT) -> None:
        """Show a drawing; the pixels are sent again only if they differ."""
        super().show(caption, drawing, extent)
        self._send()

    def on_resize(self) -> None:
        """Scale the pixels to the new size."""
        self._send()

    def _draw(self, style: Style, colourless: bool, ascii: bool, dark: bool) -> tuple[str, list[list[Segment]]]:
        if not (self._pixels and isinstance(self._drawing, Pixels)):
            return super()._draw(style, colourless, ascii, dark)
        return _note_on_samples(self._fitted(self._drawing), self._drawing), []

    def _send(self) -> None:
        if not self._pixels or self._sent == (key := (self._drawing, self.size)):
            return
        self._sent = key
        self._pixels.display = isinstance(self._drawing, Pixels) and self.size.height > 1
        if isinstance(self._drawing, Pixels) and self._pixels.display:
            self._pixels.image = self._canvas(self._fitted(self._drawing).image)

    def _fitted(self, drawing: Pixels) -> tiles.Fitted:
        return tiles.fit(drawing.image, drawing.tiles, *self._room())

    def _room(self) -> tuple[int, int]:
        width, height = pixels.cell_size()
        return max(1, self.size.width) * width, max(1, self.size.height - 1) * height

    def _canvas(self, image: np.ndarray) -> Image.Image:
        """Centre a picture on the widget's background. The result fills the room exactly, so it is not scaled again."""
        canvas = Image.new("RGB", self._room(), self.background_colors[1].rgb)
        canvas.paste(
            Image.fromarray(image), ((canvas.width - image.shape[1]) // 2, (canvas.height - image.shape[0]) // 2)
        )
        return canvas


def _note_on_samples(fitted: tiles.Fitted, drawing: Pixels) -> str:
    some = f"{fitted.shown} of {fitted.of} samples" if fitted.shown < fitted.of else ""
    return ", ".join(filter(None, (some, drawing.note)))


def _note_on_film(drawing: Film, shown: int, end_as: str) -> str:
    above = {
        "exact": "exact trajectory",
        "teacher": "the teacher's trajectory",
        "noised": "x_0 + sigma z of fixed pairs",
    }
    of = drawing.x.shape[1]
    some = f"{shown} of {of} latents, " if shown < of else ""
    end = f", its end {end_as}" if drawing.has_ends else ""
    return f"{some}{above[drawing.trajectory]} above {'D' if drawing.is_denoiser else 'f'}(x_t, t){end}"


def _note_on_plane(plane: Plane, colourless: bool) -> str:
    if plane.modes is plane.exact:
        return "the exact map"
    return f"{100 * plane.wrong.mean():.3g} % of cells wrong: {'capitals' if colourless else 'x'}"


def _noise_levels(labels: list[tuple[int, float]], width: int, sign: str) -> str:
    """Return a line with a noise level above each column's middle, where there is room."""
    line = ""
    for i, (middle, sigma) in enumerate(labels):
        text = f"{sign if i == 0 else ''}{sigma:.3g}"
        start = max(len(line) + bool(line), middle - len(text) // 2)
        if start + len(text) <= width:
            line = line.ljust(start) + text
    return line.ljust(width)


def _shaded(cells: scatter.Cells, base: Style, densities: list[Style]) -> list[list[Segment]]:
    lines = []
    for characters, levels in zip(cells.characters, cells.density, strict=True):
        levels = np.where(characters == " ", scatter.DENSITIES, levels)  # a space has no density of its own
        edges = [0, *(np.flatnonzero(np.diff(levels)) + 1).tolist(), len(levels)]
        parts = [(int(levels[start]), "".join(characters[start:stop])) for start, stop in pairwise(edges)]
        lines.append([Segment(text, base if text.isspace() else base + densities[level]) for level, text in parts])
    return lines


def _note_on_points(points: Points, ends: tuple[float, float], ascii: bool, behind_as: str, usual: float | None) -> str:
    """Return a note on axes, data and points that are not shown; `usual` is the extent that the axes should have."""
    sign = "+-" if ascii else "±"
    parts = [f"{sign}{min(ends):g}" if usual is None else f"{sign}{number(min(ends))}, not {sign}{usual:g}"]
    if points.data is not None and usual is None:
        parts.append(f"data {behind_as or 'grey'}")
    if outside := scatter.outside(points.xy, ends):
        parts.append(f"{outside} outside")
    if points.lost:
        parts.append(f"{points.lost} not finite")
    return ", ".join(parts)
