"""The energy distance between two sets of samples (Székely & Rizzo 2013)."""

from torch import Tensor

from cmbench.evaluation._distances import distances


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Return sqrt(2 E|X - Y| - E|X - X'| - E|Y - Y'|) of the two empirical distributions. Lower is better.

    Pairs of a sample with itself count. So it is never below zero, and above zero for two sets of one distribution. In
    one dimension it equals scipy.stats.energy_distance.

    Args:
        x: (n, ...) samples, flattened.
        y: (m, ...) samples of the same shape.
    """
    square = 2 * _mean_distance(x, y) - _mean_distance(x, x) - _mean_distance(y, y)
    return max(square, 0.0) ** 0.5


def _mean_distance(x: Tensor, y: Tensor) -> float:
    return sum(float(block.sum()) for block in distances(x, y)) / (len(x) * len(y))
