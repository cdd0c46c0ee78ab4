"""The second noise level of two-step sampling: a search for the one that gives the best samples."""

import math
from collections.abc import Callable

import numpy as np

_DIGITS = 4  # of a noise level: figures of nearer ones do not differ
_NEAR = 0.02  # in log sigma, where the search ends
_MOST = 25  # further levels, after the scan


def searched(figure: Callable[[float], float], low: float, high: float, points: int) -> float:
    """Return the noise level between low and high with the lowest figure of all that were looked at.

    First a scan of so many levels, even in log sigma, since a figure may have several valleys. Then Brent's method,
    golden sections with parabolas, between the neighbours of the best. Figures should be smooth: take the same random
    numbers for all.

    Args:
        figure: of a level of four digits; what is not a number is worse than any other.
        low, high: ends of the range, both left out; 0 < low < high.
        points: of the scan, 3 at least.
    """
    from scipy.optimize import minimize_scalar  # here because it is slow to import

    known: dict[float, float] = {}

    def at(log_sigma: float) -> float:
        level = rounded(math.exp(log_sigma))
        if level not in known:
            found = figure(level)
            known[level] = found if math.isfinite(found) else math.inf
        return known[level]

    grid = np.linspace(math.log(low), math.log(high), points + 2)
    best = min(range(1, points + 1), key=lambda i: at(float(grid[i])))
    options = {"xatol": _NEAR, "maxiter": _MOST}
    minimize_scalar(at, bounds=(grid[best - 1], grid[best + 1]), method="bounded", options=options)
    return min(known, key=lambda level: known[level])


def rounded(sigma: float) -> float:
    """Return the noise level of four digits that is asked for in place of sigma."""
    return float(f"{sigma:.{_DIGITS}g}")
