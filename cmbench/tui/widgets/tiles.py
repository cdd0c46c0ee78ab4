"""Grids of samples in a PNG: split into samples at their own resolution, and laid out again for a given room."""

from typing import NamedTuple

import numpy as np
from PIL import Image

_PADDING = 2  # pixels between samples in snapshots
_GAP, _DARK = 1, 64  # the line between samples here: without it digits run into each other
_SMALLEST_SHARE = 4  # if less than a quarter of the samples fits, shrinking all of them is better
_LEGIBLE = 4  # fewest pixels of a shrunk sample


class Fitted(NamedTuple):
    """A picture that fits, (H, W, 3), with the number of samples shown and in total (1 of 1 if it is not a grid)."""

    image: np.ndarray
    shown: int
    of: int


def split(image: np.ndarray) -> np.ndarray | None:
    """Return the samples of a grid (H, W, 3) as (rows, columns, h, w, 3), at original size; None if not a grid.

    A grid has lines of two pixels in the corner's colour around each sample, at equal distances.
    """
    pad = (image == image[0, 0]).all(axis=2)
    height, width = _period(pad.all(axis=1)), _period(pad.all(axis=0))
    if not height or not width:
        return None
    inner = image[_PADDING:, _PADDING:]
    rows, columns = inner.shape[0] // height, inner.shape[1] // width
    if rows * columns == 1:  # a picture with a plain frame
        return None
    tiles = inner.reshape(rows, height, columns, width, 3).swapaxes(1, 2)[:, :, :-_PADDING, :-_PADDING]
    factor = _enlargement(tiles)
    return np.ascontiguousarray(tiles[:, :, ::factor, ::factor])


def join(tiles: np.ndarray) -> np.ndarray:
    """Lay out samples (rows, columns, h, w, 3) in one picture, with a dark line around each."""
    rows, columns, h, w, _ = tiles.shape
    room = np.full((rows, columns, h + _GAP, w + _GAP, 3), _DARK, dtype=np.uint8)
    room[:, :, _GAP:, _GAP:] = tiles
    image = room.swapaxes(1, 2).reshape(rows * (h + _GAP), columns * (w + _GAP), 3)
    return np.pad(image, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=_DARK)


def fit(image: np.ndarray, tiles: np.ndarray | None, width: int, height: int) -> Fitted:
    """Make a picture of at most width x height pixels, undistorted, with whole pixels if possible.

    A grid that does not fit shows only the samples of its first rows and columns, each in its place. If these would be
    few, the whole grid is shrunk, unless the samples would become illegible.
    """
    if tiles is None:
        return Fitted(scale(image, width, height), 1, 1)
    h, w = tiles.shape[2:4]
    cut = tiles[: max(0, (height - _GAP) // (h + _GAP)), : max(0, (width - _GAP) // (w + _GAP))]
    shown, total = (grid.shape[0] * grid.shape[1] for grid in (cut, tiles))
    whole = join(tiles)
    legible = min(h, w) * min(width / whole.shape[1], height / whole.shape[0]) >= _LEGIBLE
    if shown in (0, total) or (shown * _SMALLEST_SHARE < total and legible):
        return Fitted(scale(whole, width, height), total, total)
    return Fitted(scale(join(cut), width, height), shown, total)


def scale(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Enlarge a picture by a whole factor, or shrink it by averaging areas, so that it fits."""
    h, w = image.shape[:2]
    if (factor := min(width // w, height // h)) >= 1:
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    share = min(width / w, height / h)
    size = (max(1, int(w * share + 1e-9)), max(1, int(h * share + 1e-9)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _period(lines: np.ndarray) -> int:
    """Return the smallest period at which pairs of padding lines repeat from end to end, or 0."""
    n = len(lines) - _PADDING
    for period in range(_PADDING + 1, n + 1):
        starts = np.arange(0, n + 1, period)
        if n % period == 0 and lines[starts].all() and lines[starts + 1].all() and not lines[:period].all():
            return period
    return 0


def _enlargement(tiles: np.ndarray) -> int:
    """Return the largest factor by which all samples were enlarged."""
    rows, columns, h, w, _ = tiles.shape
    for factor in range(min(h, w), 1, -1):
        if h % factor == 0 and w % factor == 0:
            blocks = tiles.reshape(rows, columns, h // factor, factor, w // factor, factor, 3)
            if (blocks == blocks[:, :, :, :1, :, :1]).all():
                return factor
    return 1
