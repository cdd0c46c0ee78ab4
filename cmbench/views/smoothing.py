"""The average that charts and reports draw: a centred Gaussian window, which does not lag.

The width of the window is a share of the rows. Let u_ij be the number of rows between rows i and j. At row i, row j has
the weight K_ij = count_j exp(-(u_ij / s_i)^2 / 2) where |u_ij| <= 3 s_i. The average is the value at x_i of the
straight line that fits the rows best by these weights. This local linear regression (Fan & Gijbels 1996, chapter 3)
returns a straight line unchanged, however the rows are spaced. Towards the ends s_i narrows, so that the window has
equally many rows on either side. So the average meets the line at both ends, and never rests on rows of one side only.
For evenly spaced rows it is the Gaussian mean. It never leaves the range of the rows in its window.
"""

import numpy as np

from cmbench.rundir.columns import Floats
from cmbench.views.axes import Scale

SMOOTHINGS = (0.0, 0.005, 0.02, 0.08)  # standard deviations of the window, as shares of the rows
USUAL = 0.02
_FEWEST = 20  # a line of at most so many values is not averaged, such as evaluations
_REACH = 3.0  # standard deviations to either side
_FINE = 8.0  # blocks of rows per standard deviation; they widen the window by a thousandth


def average(x: Floats, values: Floats, count: Floats, share: float) -> Floats:
    """Return the average at each value, (n,). Values that are not finite are skipped; the average there is nan.

    Args:
        x: places, ascending, (n,).
        values: values at these places, (n,).
        count: number of rows behind each value, (n,): a mean of 8 rows counts as 8 rows in weight and width.
        share: standard deviation of the window as a share of all rows, in (0, 1).
    """
    found = np.full(len(values), np.nan)
    there = np.isfinite(values) & np.isfinite(x) & (count > 0)
    if not there.any():
        return found
    x, values, count = x[there], values[there], count[there]
    size = float(np.abs(values).max()) or 1.0  # in units of this, no sum overflows
    width = share * float(count.sum())
    blocks = min(len(x), int(np.ceil(_FINE / share)))  # of neighbours: fewer sums, and the same from left and right
    starts = np.rint(np.linspace(0, len(x), blocks + 1)).astype(np.int64)[:-1]
    rows = np.add.reduceat(count, starts)
    at, mean = (np.add.reduceat(count * part, starts) / rows for part in (x - x[0], values / size))
    smooth = _regressed(at, mean, rows, width)
    if len(starts) < len(x):  # interpolate between blocks and to the first and last row, which are their own averages
        at, smooth = np.pad(at, 1), np.pad(smooth, 1)
        at[-1], smooth[0], smooth[-1] = x[-1] - x[0], values[0] / size, values[-1] / size
        smooth = np.interp(x - x[0], at, smooth)
    found[there] = size * smooth
    return found


def positions(x: Floats, values: Floats, count: Floats, share: float, axes: tuple[Scale, Scale]) -> Floats | None:
    """Return the average as positions on the vertical axis, (n,). On a log axis logarithms are averaged.

    Args:
        x: places, ascending, (n,).
        values: values at these places, (n,).
        count: number of rows behind each value, (n,).
        share: as `average` takes it; 0 for no average.
        axes: scales of the horizontal and the vertical axis.

    Returns:
        None if the rows are too few for an average, or if none is wanted.
    """
    if not width_in_rows(count, share):
        return None
    return average(axes[0].forward(x), axes[1].forward(values), count, share)


def width_in_rows(count: Floats, share: float) -> int:
    """Return the window's standard deviation in rows; 0 if the average would equal the rows or there are too few."""
    return int(share * float(count.sum()) + 0.5) if len(count) > _FEWEST else 0


def _regressed(x: Floats, y: Floats, rows: Floats, width: float) -> Floats:
    """Return the local linear regression at each x, (m,); the windows have a standard deviation of `width` rows."""
    place = np.cumsum(rows) - rows / 2
    reach = np.minimum(_REACH * width, np.minimum(place - place[0], place[-1] - place))
    wide = np.searchsorted(place, place + reach * (1 + 1e-9), side="right") - np.arange(len(x))
    offsets = np.arange(-int(wide.max()), int(wide.max()) + 1)
    other = np.arange(len(x))[:, None] + offsets
    inside = (other >= 0) & (other < len(x))
    other = np.where(inside, other, 0)
    apart = place[other] - place[:, None]
    inside &= np.abs(apart) <= reach[:, None] * (1 + 1e-9)
    weight = np.where(
        inside, rows[other] * np.exp(-0.5 * (_REACH * apart / np.maximum(reach, 1e-9)[:, None]) ** 2), 0.0
    )
    dx = np.where(inside, x[other] - x[:, None], 0.0)
    dx /= np.maximum(np.abs(dx).max(axis=1, keepdims=True), 1e-300)
    near = y[other]
    s0, s1, s2, t0, t1 = ((weight * part).sum(axis=1) for part in (1.0, dx, dx * dx, near, dx * near))
    spread = s0 * s2 - s1 * s1
    is_line = spread > 1e-9 * s0 * s2
    line = np.divide(s2 * t0 - s1 * t1, spread, out=t0 / s0, where=is_line)
    low, high = (ends(np.where(inside, near, y[:, None]), axis=1) for ends in (np.min, np.max))
    return np.clip(line, low, high)
