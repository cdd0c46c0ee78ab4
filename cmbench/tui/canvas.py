"""Lines as braille: two by four dots per cell, rastered by numpy. Rows of dots count from the top."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbench.rundir.columns import Floats
from cmbench.views.lines import DASHES, Mask

DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], np.uint16)


@dataclass(frozen=True)
class Columns:
    """A line in columns of dots: the interval of positions that it covers in each, nan where it is absent.

    Attributes:
        low: (width,), lower end.
        high: (width,), upper end.
    """

    low: Floats
    high: Floats


def columns(x: Floats, low: Floats, high: Floats, gap: Mask, ends: tuple[float, float], width: int) -> Columns:
    """Gather points into columns of dots and join neighbours, so that a line has no holes.

    Args:
        x: ascending, (n,).
        low: lower end at each x, (n,); nan where there is no value.
        high: upper end, (n,).
        gap: (n,), whether the line is broken at a point.
        ends: the x of the first and of the last column.
        width: number of columns.
    """
    empty = Columns(np.full(width, np.nan), np.full(width, np.nan))
    span = ends[1] - ends[0]
    if not len(x) or width < 1 or not span > 0:
        return empty
    place = (x - ends[0]) / span * (width - 1)
    first, last = np.searchsorted(place, [-0.5, width - 0.5])
    first, last = max(0, first - 1), min(len(x), last + 1)  # a neighbour on each side: lines continue beyond the edge
    place, low, high, gap = place[first:last], low[first:last], high[first:last], gap[first:last]
    there = ~(np.isnan(low) | np.isnan(high))
    breaks = np.cumsum(gap.astype(np.int64))[there]
    place, low, high = place[there], low[there], high[there]
    if not len(place):
        return empty
    column = np.clip(np.rint(place), -1, width).astype(np.int64) + 1  # -1 and width: beyond the edges
    starts = np.flatnonzero(np.diff(column, prepend=-2))
    least, most = np.full(width + 2, np.nan), np.full(width + 2, np.nan)
    least[column[starts]] = np.fmin.reduceat(low, starts)
    most[column[starts]] = np.fmax.reduceat(high, starts)
    _bridge(least, most, place, low, high, column, starts, breaks)
    line = Columns(least[1:-1], most[1:-1])
    _touch(line.low, line.high)
    return line


def _bridge(
    least: Floats,
    most: Floats,
    place: Floats,
    low: Floats,
    high: Floats,
    column: NDArray[np.int64],
    starts: NDArray[np.int64],
    breaks: NDArray[np.int64],
) -> None:
    """Draw straight lines across empty columns, from the last point before them to the first one after them."""
    firsts, lasts = starts[1:], starts[1:] - 1
    for a, b in zip(lasts, firsts, strict=True):
        if column[b] - column[a] < 2 or breaks[a] != breaks[b]:
            continue
        inner = np.arange(column[a] + 1, column[b])
        share = (inner - 1 - place[a]) / (place[b] - place[a])
        start, end = low[a] / 2 + high[a] / 2, low[b] / 2 + high[b] / 2
        least[inner] = most[inner] = (1 - share) * start + share * end


def _touch(least: Floats, most: Floats) -> None:
    """Where neighbouring intervals do not overlap, lengthen both to the middle between them."""
    left, right = slice(None, -1), slice(1, None)
    up = np.flatnonzero(most[left] < least[right])
    down = np.flatnonzero(least[left] > most[right])
    rise = most[up] / 2 + least[up + 1] / 2  # halves first: the sum may overflow
    fall = least[down] / 2 + most[down + 1] / 2
    most[up], least[up + 1] = np.fmax(most[up], rise), np.fmin(least[up + 1], rise)
    least[down], most[down + 1] = np.fmin(least[down], fall), np.fmax(most[down + 1], fall)


def dots(line: Columns, ends: tuple[float, float], rows: int, dash: str = "solid", coarse: bool = False) -> Mask:
    """Return the dots (4 rows, width) that a line lights between two positions; none beyond them.

    Args:
        line: the line's intervals of positions.
        ends: positions of the lowest and the highest row of dots.
        rows: number of rows of cells.
        dash: a key of DASHES.
        coarse: let dashes count cells instead of dots, for characters that cannot show half a cell.
    """
    height = 4 * rows
    scale = (height - 1) / (ends[1] - ends[0])
    on = np.resize(np.repeat(np.array(DASHES[dash], bool), 2 if coarse else 1), len(line.low))
    low, high = _gathered(line, np.flatnonzero(on))
    with np.errstate(invalid="ignore", over="ignore"):
        bottom = np.rint((low - ends[0]) * scale)
        top = np.rint((high - ends[0]) * scale)
    level = np.arange(height - 1, -1, -1)[:, None]
    return (level >= bottom) & (level <= top) & on


def _gathered(line: Columns, starts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Add to each column of a dash what the gap after it hides. So dashes show narrow spikes too."""
    low, high = np.full(len(line.low), np.nan), np.full(len(line.low), np.nan)
    low[starts] = np.fmin.reduceat(line.low, starts)
    high[starts] = np.fmax.reduceat(line.high, starts)
    return low, high


def cells(mask: Mask) -> NDArray[np.uint16]:
    """Pack dots (4 rows, 2 columns) into the low bytes of braille characters (rows, columns)."""
    height, width = mask.shape
    blocks = mask.reshape(height // 4, 4, width // 2, 2)
    return np.einsum("rdcw,dw->rc", blocks.astype(np.uint16), DOTS).astype(np.uint16)


def layered(masks: Sequence[Mask]) -> tuple[NDArray[np.uint16], NDArray[np.int16]]:
    """Lay lines over each other, later ones on top. Each cell belongs to one line, so that colours do not mix.

    Returns:
        codes: (rows, columns), braille offsets, 0 in empty cells.
        owner: (rows, columns), the number of the line, -1 in empty cells.
    """
    codes = cells(masks[0])
    owner = np.where(codes > 0, 0, -1).astype(np.int16)
    for i, mask in enumerate(masks[1:], start=1):
        own = cells(mask)
        codes, owner = np.where(own > 0, own, codes), np.where(own > 0, i, owner).astype(np.int16)
    return codes, owner


_ASCII = {0b0000: " ", 0b0001: "'", 0b0010: "-", 0b0100: "-", 0b1000: ".", 0b0011: "'", 0b1100: "."}


def characters(codes: NDArray[np.uint16], ascii_only: bool = False) -> NDArray[np.str_]:
    """Return the characters (rows, columns) for braille offsets; with `ascii_only`, for the dots' heights in a cell."""
    if not ascii_only:
        offsets = np.where(codes > 0, 0x2800 + codes.astype(np.uint32), ord(" ")).astype(np.uint32)
        return offsets.view("U1").reshape(codes.shape)
    heights = sum(((codes & int(DOTS[d].sum())) > 0).astype(np.uint8) << d for d in range(4))
    table = np.array([_ASCII.get(h, ":" if h in (0b0110, 0b1001, 0b0101, 0b1010) else "|") for h in range(16)])
    return table[heights]
