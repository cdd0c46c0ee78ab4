"""Orders of convergence and limits, from values at several step sizes."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from cmbench.lab._finding import Curve


def order(steps: Sequence[float], errors: Sequence[float]) -> float:
    """Return p of error ~ step^p: the slope of log error over log step."""
    return float(stats.linregress(np.log(steps), np.log(errors)).slope)


def limit(steps: Sequence[float], values: Sequence[float]) -> float:
    """Return the value at step zero of the quadratic through the three smallest steps (Richardson)."""
    smallest = np.argsort(steps)[:3]
    return float(np.polyfit(np.take(steps, smallest), np.take(values, smallest), 2)[-1])


def guide(label: str, steps: Sequence[float], errors: Sequence[float], p: float) -> Curve:
    """Return a line of slope p through the last point, to compare with a curve on logarithmic axes."""
    return Curve(label, list(steps), [errors[-1] * (step / steps[-1]) ** p for step in steps])
