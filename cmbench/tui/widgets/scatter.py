"""Points as characters, with both axes at the same scale: braille dots, or ASCII characters for numbers of points."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EXTENT = 0.8  # the square [-.8, .8]^2 holds data on a ring or a grid, whose standard deviation is 0.5
DENSITIES = 5
_EXTENTS = (EXTENT, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0)  # few: each new scale redraws all
_INSIDE = 0.98  # share of the points; early in training single points may lie anywhere
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # of a braille cell, by row and column
_COUNTS = " .:+*#@"  # none, 1, 2-3, 4-7, 8-15, 16-31, more


@dataclass(frozen=True)
class Cells:
    """A drawing of points, (height, width) each.

    Attributes:
        characters: braille or ASCII; a space where there is nothing.
        density: from 0 to DENSITIES - 1 where there are points, -1 elsewhere, such as for points behind.
    """

    characters: NDArray[np.str_]
    density: NDArray[np.int64]


def extent_for(xy: np.ndarray, extent: float = EXTENT, behind: np.ndarray | None = None) -> float:
    """Return the smallest of a few extents, at least `extent`, that contains nearly all points except far outliers.

    It contains nearly all points of `behind` as well. Points that need more than the largest do not count: they get
    axes of their own (`own_extent`), and other pictures keep theirs.
    """
    sets = [points for points in (xy, behind) if points is not None and len(points)]
    reaches = [float(np.quantile(np.abs(points).max(axis=1), _INSIDE)) for points in sets]
    reach = max((each for each in reaches if each <= _EXTENTS[-1]), default=0.0)
    return next((each for each in _EXTENTS if each >= max(reach, extent)), extent)


def own_extent(xy: np.ndarray, ends: tuple[float, float]) -> float | None:
    """Return an extent for points of which most lie outside a window: 1, 2 or 5 times a power of ten, or None.

    It contains nearly all points, so that samples that exploded have a picture, and not only a number.
    """
    if 2 * outside(xy, ends) <= len(xy):
        return None
    reach = float(np.quantile(np.abs(xy).max(axis=1), _INSIDE))
    power = 10.0 ** np.floor(np.log10(reach))
    return next((m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= reach), None)


def window(extent: float, width: int, height: int) -> tuple[float, float]:
    """Return how far the cells, twice as high as wide, reach on both axes; `extent` is for the shorter axis."""
    side = min(height, width / 2)
    return (extent * width / (2 * side), extent * height / side) if side > 0 else (extent, extent)


def outside(xy: np.ndarray, ends: tuple[float, float]) -> int:
    """Return how many points lie outside a window."""
    return int((np.abs(xy) > ends).any(axis=1).sum())


def draw(
    xy: np.ndarray,
    extent: float,
    width: int,
    height: int,
    ascii: bool = False,
    behind: np.ndarray | None = None,
    behind_as: str = "",
) -> Cells:
    """Draw points in width x height cells.

    Args:
        xy: the points (n, 2).
        extent: extent of the shorter axis; the longer axis has the same scale.
        width: number of columns of cells.
        height: number of rows of cells.
        ascii: whether to show the number of points by an ASCII character, instead of eight dots per cell.
        behind: other points (m, 2), drawn in cells without any of the first.
        behind_as: the character for the points behind; "" draws them as dots too.
    """
    ends = window(extent, width, height)
    dots, own = _count(xy, ends, width, height)
    characters = np.array(list(_COUNTS))[np.minimum(_bits(own), len(_COUNTS) - 1)] if ascii else _braille(dots)
    levels = np.full(own.shape, -1, np.int64)
    seen = own > 0
    if seen.any():
        most = max(1.0, float(np.quantile(own[seen], 0.98)))
        shares = np.log1p(own[seen]) / np.log1p(most)
        levels[seen] = np.minimum((np.clip(shares, 0, 1) * DENSITIES).astype(np.int64), DENSITIES - 1)
    if behind is not None:
        dots, other = _count(behind, ends, width, height)
        below = np.where(other > 0, behind_as, " ") if behind_as else _braille(dots)
        characters = np.where(seen, characters, below)
    return Cells(characters, levels)


def _braille(dots: NDArray[np.int64]) -> NDArray[np.str_]:
    height, width = dots.shape[0] // 4, dots.shape[1] // 2
    codes = ((dots > 0).reshape(height, 4, width, 2) * _DOTS[None, :, None, :]).sum(axis=(1, 3))
    return np.array([[chr(0x2800 + int(code)) if code else " " for code in row] for row in codes]).reshape(codes.shape)


def _bits(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.ceil(np.log2(counts + 1)).astype(np.int64)


def _count(
    xy: np.ndarray, ends: tuple[float, float], width: int, height: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of points on each dot, (4 height, 2 width), and in each cell; the first row is on top."""
    ranges = [[-ends[1], ends[1]], [-ends[0], ends[0]]]
    shape = (max(1, 4 * height), max(1, 2 * width))
    counts, _, _ = np.histogram2d(-xy[:, 1], xy[:, 0], bins=shape, range=ranges)
    dots = counts.astype(np.int64)[: 4 * height, : 2 * width]
    return dots, dots.reshape(height, 4, width, 2).sum(axis=(1, 3))
