"""What is shaded behind the lines of a chart: stretches of its vertical axis, and the gap between two lines."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from cmbench.rundir.columns import Floats
from cmbench.views.axes import Scale
from cmbench.views.lines import Band, Mask

GAP, PLAIN_GAP = "·", ":"
SHADE, PLAIN_SHADE = "\N{LIGHT SHADE}", "="


def ends(bands: Sequence[Band], scale: Scale) -> list[float]:
    """Return the positions of the ends of bands that a scale has a place for."""
    found = scale.forward(np.array([end for band in bands for end in (band.low, band.high)], np.float64))
    return found[np.isfinite(found)].tolist()


def rows_of(bands: Sequence[Band], scale: Scale, y_ends: tuple[float, float], rows: int) -> Iterator[int]:
    """Yield the rows of cells that bands take, from the top: at least one of each that is in sight."""
    per_row = (y_ends[1] - y_ends[0]) / max(1, rows - 0.25)
    for band in bands:
        low, high = (float(scale.forward(end)) for end in (band.low, band.high))
        low = y_ends[0] if math.isnan(low) else low  # zero or less on a log axis: to the end of it
        top, bottom = ((y_ends[1] - end) / per_row - 0.4 for end in (high, low))
        if math.isfinite(top) and math.isfinite(bottom) and bottom >= -0.5 and top <= rows - 0.5:
            yield from range(max(0, round(top)), min(rows - 1, round(bottom)) + 1)


def cells_between(one: Floats, other: Floats, y_ends: tuple[float, float], rows: int) -> Mask:
    """Return the cells (rows, width) that lie between two lines, but not on them.

    Args:
        one: the positions of a line in each column of cells, (width,); nan where there is none.
        other: those of the other.
        y_ends: positions of the lowest and the highest row of dots.
        rows: rows of cells.
    """
    per_row = (y_ends[1] - y_ends[0]) / max(1, rows - 0.25)
    places = (y_ends[1] - np.stack([one, other])) / per_row - 0.4
    level = np.arange(rows)[:, None]
    with np.errstate(invalid="ignore"):
        return (level > places.min(axis=0) + 0.6) & (level < places.max(axis=0) - 0.6)
