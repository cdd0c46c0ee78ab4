"""Stretches of a chart's vertical axis that are shaded behind its lines."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from cmbench.tui.chart_lines import Band
from cmbench.tui.scales import Scale

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
