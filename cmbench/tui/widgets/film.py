"""Drawings of f's answers at fixed places: a strip of x_t above f(x_t, t), and the latent plane by its modes."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from cmbench.rundir.files import read
from cmbench.rundir.snapshots import TRAJECTORIES, AnswerFile
from cmbench.tui.widgets import scatter, tiles
from cmbench.views.lines import line_colours

_LARGEST = 1 << 26  # bytes of a file that is read
_KEPT = 8
_NARROWEST = 9  # pixels of a column, which needs room for its noise level above
_LEAST_SIDE = {1: 3, 2: 8}  # fewest pixels of a panel of points, by the number of latents shown
_SIDE = 12  # the same for more latents
_LEAST_LINES = {1: 1, 2: 3}  # the same without colours, in lines; five for more latents
_DARK = 24  # the background of a panel
_GREY, _MIDDLE, _WHITE = (np.full(3, light, np.uint8) for light in (80, 140, 230))  # data, exact end, x_t
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_NOWHERE = 255

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Film:
    """f of n latents at m noise levels.

    Attributes:
        trajectory: kind of trajectory that the places lie on, from TRAJECTORIES.
        is_denoiser: whether the answers come from D instead of f.
        sigmas: noise levels (m,), descending.
        x: the places, scaled to the deviation of the data: pictures (m, n, h, w, 3) or points (m, n, 2).
        f: the answers.
        modes: modes of the answers, (m, n); None if the data have no modes.
        data: the data (k, 2) that points should match; None if unknown.
    """

    trajectory: str
    is_denoiser: bool
    sigmas: np.ndarray
    x: np.ndarray
    f: np.ndarray
    modes: np.ndarray | None
    data: np.ndarray | None

    @property
    def has_ends(self) -> bool:
        """Whether the ends of trajectories in the plane are drawn behind the answers; f should reach these ends."""
        return self.x.ndim == 3 and self.trajectory == TRAJECTORIES[0]


@dataclass(frozen=True, eq=False)
class Plane:
    """Modes (s, s) that f gives to the latents of a plane, and those of the exact map; 255 means no mode."""

    modes: np.ndarray
    exact: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """The cells (s, s) whose mode differs from the exact map's."""
        return self.modes != self.exact


class Strip(NamedTuple):
    """A picture (H, W, 3) of some latents, two rows of tiles each, with a noise level above each column's middle."""

    image: Bytes
    latents: int
    labels: list[tuple[int, float]]


@lru_cache(maxsize=_KEPT)
def load_film(file: AnswerFile) -> Film | str:
    """Read a film, or return a line that says why it cannot be read."""
    try:
        fixed, own = (load_safetensors(read(path, _LARGEST)) for path in (file.fixed, file.answers))
        x, f, sigmas = fixed["x"], own["f"], fixed["sigmas"].astype(float)
        if x.shape != f.shape or len(sigmas) != len(x) or x.ndim not in (3, 5) or 0 in x.shape or sigmas.ndim != 1:
            raise ValueError(f"f of shape {list(f.shape)} at places of shape {list(x.shape)}")
        if x.ndim == 3 and x.shape[2] != 2:
            raise ValueError(f"points of {x.shape[2]} coordinates, allowed: 2")
        data, modes = fixed.get("data"), own.get("modes")
        is_fitting = data is not None and data.ndim == 2 and data.shape[1] == 2 and bool(np.isfinite(data).all())
        return Film(
            TRAJECTORIES[int(fixed["trajectory"][0])],
            bool(fixed["is_denoiser"][0]),
            sigmas,
            _in_colours(x),
            _in_colours(f),
            modes if modes is not None and modes.shape == f.shape[:2] and modes.dtype == np.uint8 else None,
            data if is_fitting else None,
        )
    except (OSError, KeyError, TypeError, ValueError, IndexError, SafetensorError) as error:
        return f"{file.answers.name} cannot be read: {error}"


@lru_cache(maxsize=_KEPT)
def load_plane(file: AnswerFile, exact: bool) -> Plane | str:
    """Read a latent plane of f or of the `exact` map, or return a line that says why it cannot be read."""
    try:
        there = load_safetensors(read(file.fixed, _LARGEST))["exact"]
        modes = there if exact else load_safetensors(read(file.answers, _LARGEST))["sent_to"]
        if not modes.dtype == there.dtype == np.uint8:
            raise ValueError(f"modes of type {modes.dtype} beside {there.dtype}, allowed: uint8")
        if modes.shape != there.shape or modes.ndim != 2 or 0 in modes.shape:
            raise ValueError(f"a plane of shape {list(modes.shape)} beside one of {list(there.shape)}")
        return Plane(modes, there)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        return f"{file.answers.name} cannot be read: {error}"


def strip(film: Film, width: int, height: int, colours: NDArray[np.uint8]) -> Strip:
    """Lay a film out in at most width x height pixels, with as many latents and noise levels as fit."""
    if film.x.ndim == 3:
        return _of_points(film, width, height, colours)
    m, n, h, w = film.x.shape[:4]
    columns = _columns(m, width, min(w + 1, _NARROWEST))
    whole = len(columns) * (w + 1) + 1
    factor = max(1, width // whole) if width >= whole else width / whole
    rows = max(1, min(n, int(height / (2 * (h + 1) * factor))))
    pairs = np.stack([film.x[columns][:, :rows], film.f[columns][:, :rows]], axis=2)  # (c, r, 2, h, w, 3)
    image = tiles.scale(tiles.join(pairs.reshape(len(columns), 2 * rows, h, w, 3).swapaxes(0, 1)), width, height)
    return Strip(image, rows, _labels(film, columns, image.shape[1]))


def _of_points(film: Film, width: int, height: int, colours: NDArray[np.uint8]) -> Strip:
    n = film.x.shape[1]
    sides = {rows: height // (2 * rows) - 1 for rows in range(1, n + 1)}
    rows = max((r for r, side in sides.items() if side >= _LEAST_SIDE.get(r, _SIDE)), default=1)
    columns = _columns(len(film.x), width, max(_NARROWEST, min(sides[rows], _SIDE) + 1))
    side = max(2, min(sides[rows], width // len(columns) - 1))
    ends = film.x[-1] if film.has_ends else None
    extent = scatter.extent_for(film.f[-1], behind=film.data)
    ground = np.full((side, side, 3), _DARK, np.uint8)
    if film.data is not None:
        _dot(ground, film.data, extent, _GREY, 1)
    panels = np.tile(ground, (2 * rows, len(columns), 1, 1, 1))
    size = 1 + (side > _SIDE // 2)
    for j, column in enumerate(columns):
        for i in range(rows):
            _dot(panels[2 * i, j], film.x[column, i : i + 1], extent, _WHITE, size)
            if ends is not None:
                _dot(panels[2 * i + 1, j], ends[i : i + 1], extent, _MIDDLE, size)
            mode = _NOWHERE if film.modes is None else int(film.modes[column, i])
            own = _WHITE if mode == _NOWHERE else colours[mode % len(colours)]
            _dot(panels[2 * i + 1, j], film.f[column, i : i + 1], extent, own, size)
    image = tiles.join(panels)[:height, :width]
    return Strip(image, rows, _labels(film, columns, image.shape[1]))


def characters(film: Film, width: int, height: int) -> tuple[list[str], int, list[tuple[int, float]]]:
    """Lay points out without colours. Return the lines, the number of latents shown, and the columns' labels.

    Data are dots, x_t is an o, the end of its trajectory a plus, f the letter of its mode.
    """
    heights = {rows: height // (2 * rows) - 1 for rows in range(1, film.x.shape[1] + 1)}
    rows = max((r for r, high in heights.items() if high >= _LEAST_LINES.get(r, 5)), default=1)
    high = max(1, heights[rows])
    columns = _columns(len(film.x), width, max(_NARROWEST, 2 * high) + 1)
    wide = max(1, min(2 * high, width // len(columns) - 1))
    extent = scatter.extent_for(film.f[-1], behind=film.data)
    page = np.full((2 * rows, high + 1, len(columns), wide + 1), " ")
    for j, column in enumerate(columns):
        for i in range(rows):
            above, below = (page[2 * i + k, :high, j, :wide] for k in (0, 1))
            for panel in (above, below):
                _sign(panel, np.empty((0, 2)) if film.data is None else film.data, extent, ".")
            _sign(above, film.x[column, i : i + 1], extent, "o")
            if film.has_ends:
                _sign(below, film.x[-1, i : i + 1], extent, "+")
            mode = _NOWHERE if film.modes is None else int(film.modes[column, i])
            letter = "#" if mode == _NOWHERE else _LETTERS[mode % len(_LETTERS)]
            _sign(below, film.f[column, i : i + 1], extent, letter)
    lines = ["".join(line) for line in page.reshape(2 * rows * (high + 1), -1)][:height]
    return [line[:width] for line in lines], rows, _labels(film, columns, min(width, len(lines[0])))


def _sign(panel: np.ndarray, xy: np.ndarray, extent: float, sign: str) -> None:
    xy = xy[np.isfinite(xy).all(axis=1)]
    high, wide = panel.shape
    at = (np.clip((xy / extent + 1) / 2, 0, 1) * (wide - 1, high - 1)).round().astype(int)
    panel[high - 1 - at[:, 1], at[:, 0]] = sign


def _columns(m: int, width: int, least: int) -> np.ndarray:
    """Return which of m noise levels are shown: always the first and the last."""
    count = max(1, min(m, width // max(1, least)))
    return np.unique(np.linspace(0, m - 1, count).round().astype(int))


def _labels(film: Film, columns: np.ndarray, width: int) -> list[tuple[int, float]]:
    pitch = width / len(columns)
    return [(int((j + 0.5) * pitch), float(film.sigmas[column])) for j, column in enumerate(columns)]


def _dot(panel: Bytes, xy: np.ndarray, extent: float, colour: Bytes, size: int) -> None:
    """Draw points on a panel, in place. Points outside go to its edge; points that are not finite are left out."""
    side = len(panel)
    xy = xy[np.isfinite(xy).all(axis=1)]
    at = np.clip((xy / extent + 1) / 2, 0, 1) * (side - size)
    for column, row in at.round().astype(int):
        top = side - size - row
        panel[top : top + size, column : column + size] = colour


def _in_colours(x: np.ndarray) -> np.ndarray:
    """Return pictures (m, n, c, h, w) as (m, n, h, w, 3), and points as they are."""
    if x.ndim == 3:
        return x.astype(float)
    if x.dtype != np.uint8 or x.shape[2] not in (1, 3):
        raise ValueError(f"pictures of type {x.dtype} and shape {list(x.shape)}")
    x = np.moveaxis(x, 2, -1)
    return x.repeat(3, axis=-1) if x.shape[-1] == 1 else x


def mode_colours(theme: str, dark: bool) -> Bytes:
    """Return colours for modes, (24, 3): eight that colour-blind readers can tell apart, then lighter and darker."""
    named = [Color.parse(colour) for colour in line_colours(theme, dark).values()]
    eight = np.array([tuple(colour.get_truecolor()) for colour in named], float)
    return np.concatenate([eight, 0.5 * eight + 127, 0.5 * eight]).astype(np.uint8)


def plane_lines(plane: Plane, width: int, height: int, base: Style, colours: Bytes | None) -> list[list[Segment]]:
    """Draw a plane in squares of two columns, as large as fits.

    Modes are colours, and wrong cells have an x. Without colours modes are letters, and wrong cells have a reversed
    capital. Cells that are not finite have a question mark.
    """
    side = max(1, min(height, width // 2))
    index = ((np.arange(side) + 0.5) * len(plane.modes) / side).astype(int)
    rows = zip(plane.modes[np.ix_(index, index)].tolist(), plane.wrong[np.ix_(index, index)].tolist(), strict=True)
    return [[_cell(mode, bad, base, colours) for mode, bad in zip(*row, strict=True)] for row in rows]


def _cell(mode: int, wrong: bool, base: Style, colours: Bytes | None) -> Segment:
    if mode == _NOWHERE:
        return Segment("? ", base + Style(reverse=True))
    if colours is None:
        letter = _LETTERS[mode % len(_LETTERS)]
        return Segment(f"{letter.upper()} ", base + Style(reverse=True)) if wrong else Segment(f"{letter} ", base)
    red, green, blue = colours[mode % len(colours)].tolist()
    ink = Color.from_rgb(0, 0, 0) if red * 0.3 + green * 0.6 + blue * 0.1 > 100 else Color.from_rgb(255, 255, 255)
    return Segment("x " if wrong else "  ", base + Style(color=ink, bgcolor=Color.from_rgb(red, green, blue)))
