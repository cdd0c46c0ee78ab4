"""Where two runs begin to differ by more than their noise: the step, from a metric; the times, from the profiles.

Over the steps that two runs share, a metric is averaged in at most BLOCKS blocks of rows, with the same steps in both.
These are "batch means" (Law & Carson 1979): a mean over more rows than the noise is correlated over is nearly
independent of the next. If all means are positive, their logarithms are compared, whose noise stays constant when the
loss falls or a weight grows. The noise of the difference D is estimated from differences of D over LASTING blocks,
because noise is correlated. Of two estimates the smaller is used. A step has little effect on first differences (Rice
1984). A straight trend cancels in second differences (Gasser, Sroka & Jennen-Steinmetz 1986). Both are medians over a
window, which ignore single spikes and follow noise that changes (Donoho & Johnstone 1994):

    sigma_k = min(median |D_{j+LASTING} - D_j| / sqrt 2,
                  median |D_{j+LASTING} - 2 D_j + D_{j-LASTING}| / sqrt 6) / 0.6745,  j in a window around k.

The runs depart at the first of LASTING blocks in a row in all of which D lies beyond LIMIT sigma on the same side.
Some pairs of runs that do not differ are reported all the same. With independent rows these are at most 0.8%, for
normal noise and for Student's noise of 3 degrees of freedom. They are 2.0% if a row keeps 0.3 of the one before, and
10.1% at 0.6 (10 to 1,000 rows; 1,500 pairs of each length, 400 of the longest).
Only the noise of a single seed is known here; `groups` judges what another seed would do.

Law & Carson, "A sequential procedure for determining the length of a steady-state simulation", Oper. Res. 27, 1979.
Gasser, Sroka & Jennen-Steinmetz, "Residual variance and residual pattern in nonlinear regression", Biometrika 73, 1986.
Rice, "Bandwidth choice for nonparametric regression", Ann. Statist. 12, 1984.
Donoho & Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81, 1994.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cmbench.rundir.columns import Column, Floats, Profile

BLOCKS = 128
LASTING = 3  # blocks in a row
LIMIT = 3.0  # standard deviations
_FEWEST = 10  # blocks: with fewer, noise cannot be told from a difference
_WINDOW = 32  # differences that a noise is estimated from
_ROUNDING = 1e-6  # of the values: smaller differences count as none
_MEDIAN = 0.6745  # of the absolute value of normal noise, in standard deviations
_NEIGHBOURS = 2  # bins on either side whose noise is pooled


@dataclass(frozen=True)
class Departure:
    """Where a metric of two runs departs.

    Attributes:
        step, until: first and last step of the first block that shows it; equal if a value is not finite.
        size: the difference there in standard deviations of its noise, second run less first; inf without noise.
    """

    step: int
    until: int
    size: float


@dataclass(frozen=True)
class Band:
    """The first times at which a quantity of the profiles departs: between two times, at a step."""

    quantity: str
    step: int
    low: float
    high: float
    size: float


def of_columns(a: Column, b: Column) -> Departure | None:
    """Return where two runs depart in a metric; None if they do not, or if there are too few rows to tell."""
    found = [d for d in (_of_finiteness(a, b), _of_means(a.finite(), b.finite())) if d]
    return min(found, key=lambda departure: departure.step, default=None)


def can_be_told(a: Column, b: Column) -> bool:
    """Return whether two runs share enough rows of a metric to tell its noise from a difference."""
    a, b = a.finite(), b.finite()
    return bool(len(a) and len(b)) and min(map(len, _shared_rows(a, b))) >= _FEWEST


def can_be_told_over_time(edges: Sequence[float], a: Profile, b: Profile) -> bool:
    """Return whether two profiles have these bins and share enough rows."""
    shared = np.intersect1d(a.step, b.step, assume_unique=True)
    return len(shared) > LASTING and {run.bins.shape[1:] for run in (a, b)} == {(len(edges) - 1,)}


def of_profiles(quantity: str, edges: Sequence[float], a: Profile, b: Profile) -> Band | None:
    """Return the first times at which a quantity of two profiles departs: at least two bins, for LASTING rows.

    The blocks are the rows of the steps that both runs have; the noise of a bin is pooled with its neighbours'. Norms
    of gradients are correlated over more rows: of the 15 pairs of six seeds of ict_edm_ring (30 rows), five were
    reported to differ in gradient norms, none in loss, weight or tangent.

    Args:
        quantity: its name.
        edges: times between the bins, (B + 1,).
        a, b: its bins (B,) in rows.
    """
    if not can_be_told_over_time(edges, a, b):
        return None
    steps, *places = np.intersect1d(a.step, b.step, assume_unique=True, return_indices=True)
    rows = [run.bins[place] for run, place in zip((a, b), places, strict=True)]
    difference = _difference(*rows)
    z = _in_deviations(difference, _noise_of_bins(difference))
    beyond = _all_beyond(np.stack([z[i : len(z) - LASTING + 1 + i] for i in range(LASTING)]))
    for i in np.flatnonzero((beyond[:, 1:] & beyond[:, :-1]).any(axis=1))[:1]:
        band = _widest(beyond[i])
        return Band(quantity, int(steps[i]), edges[band.start], edges[band.stop], float(np.median(z[i, band])))
    return None


def _of_finiteness(a: Column, b: Column) -> Departure | None:
    """Return the first row that is not finite in one run, if the other run continues past it."""
    lost_a, lost_b = (column.step[~np.isfinite(column.value)][:1].tolist() or [np.inf] for column in (a, b))
    step = min(lost_a[0], lost_b[0])
    if lost_a == lost_b or not (len(a) and len(b)) or min(a.step[-1], b.step[-1]) < step:
        return None
    return Departure(int(step), int(step), np.inf)


def _of_means(a: Column, b: Column) -> Departure | None:
    if not can_be_told(a, b):
        return None
    shared = _shared_rows(a, b)
    steps = [run.step[rows] for run, rows in zip((a, b), shared, strict=True)]
    fewer = min(steps, key=len)
    ends = fewer[np.arange(1, (n := min(BLOCKS, len(fewer))) + 1) * len(fewer) // n - 1]
    counts = [np.diff(np.searchsorted(step, ends, side="right"), prepend=0) for step in steps]
    filled = np.minimum(*counts) > 0
    means = [_means(run.value[rows], count)[filled] for run, rows, count in zip((a, b), shared, counts, strict=True)]
    starts = np.concatenate([[max(a.step[0], b.step[0])], ends[:-1] + 1])
    return _first_lasting(means[0], means[1], starts[filled], ends[filled])


def _shared_rows(a: Column, b: Column) -> list[NDArray[np.intp]]:
    """Return the rows of each run within the steps that both have covered."""
    start, end = max(a.step[0], b.step[0]), min(a.step[-1], b.step[-1])
    return [np.flatnonzero((run.step >= start) & (run.step <= end)) for run in (a, b)]


def _means(values: Floats, counts: NDArray[np.int64]) -> Floats:
    """Return the mean of each block of `counts` rows; nan for an empty one."""
    means = np.full(len(counts), np.nan)
    there = counts > 0
    starts = (np.cumsum(counts) - counts)[there]
    means[there] = np.add.reduceat(values[: counts.sum()], starts) / counts[there]
    return means


def _first_lasting(a: Floats, b: Floats, starts: Floats, ends: Floats) -> Departure | None:
    if len(a) < _FEWEST:
        return None
    difference = _difference(a, b)
    z = _in_deviations(difference, _noise(difference))
    lasting = np.flatnonzero(_all_beyond(sliding_window_view(z, LASTING).T))
    return Departure(int(starts[lasting[0]]), int(ends[lasting[0]]), float(z[lasting[0]])) if len(lasting) else None


def _noise(difference: Floats) -> Floats:
    """Return the noise at each block, (n,), from the differences around it; n is _FEWEST or more."""
    first = difference[LASTING:] - difference[:-LASTING]
    second = first[LASTING:] - first[:-LASTING]
    return np.minimum(_around(first, len(difference)) / 2**0.5, _around(second, len(difference)) / 6**0.5) / _MEDIAN


def _around(differences: Floats, n: int) -> Floats:
    """Return the median size of the differences around each of n blocks, (n,)."""
    windows = sliding_window_view(np.abs(differences), min(_WINDOW, len(differences)))
    medians = np.median(windows, axis=1)
    return medians[np.clip(np.arange(n) - windows.shape[1] // 2, 0, len(medians) - 1)]


def _noise_of_bins(difference: Floats) -> Floats:
    """Return the noise of each bin, (B,), from successive rows of it and its neighbours, because rows are few."""
    steps = np.abs(np.diff(difference, axis=0)) / 2**0.5
    padded = np.pad(steps, ((0, 0), (_NEIGHBOURS, _NEIGHBOURS)), constant_values=np.nan)
    windows = sliding_window_view(padded, 2 * _NEIGHBOURS + 1, axis=1).transpose(1, 0, 2).reshape(steps.shape[1], -1)
    missing = np.isnan(windows)
    some, whole = ~missing.all(axis=1), ~missing.any(axis=1)
    noise = np.full(len(windows), np.nan)
    noise[whole] = np.median(windows[whole], axis=1)  # a fifth of nanmedian's time
    noise[some & ~whole] = np.nanmedian(windows[some & ~whole], axis=1)
    return noise / _MEDIAN


def _difference(a: Floats, b: Floats) -> Floats:
    """Return b - a, of the logarithms if all values are positive; 0 where they are equal except for rounding."""
    b = np.where(np.abs(b - a) <= _ROUNDING * np.fmax(np.abs(a), np.abs(b)), a, b)
    if all(np.fmin.reduce(part, axis=None, initial=np.inf) > 0 for part in (a, b)):
        return np.log(b) - np.log(a)
    return b - a


def _in_deviations(difference: Floats, noise: Floats) -> Floats:
    """Return difference / noise, inf where there is no noise; nan where there is no difference to tell."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference / noise)


def _all_beyond(z: Floats) -> NDArray[np.bool_]:
    """Return where all of a few rows (LASTING, ...) lie beyond the limit on one side."""
    above, below = (np.logical_and.reduce(sign * z > LIMIT, axis=0) for sign in (1, -1))
    return above | below


def _widest(there: NDArray[np.bool_]) -> slice:
    """Return the longest stretch of True; there is one."""
    changes = np.flatnonzero(np.diff(there, prepend=False, append=False)).reshape(-1, 2)
    first, behind = changes[np.argmax(changes[:, 1] - changes[:, 0])].tolist()
    return slice(first, behind)
