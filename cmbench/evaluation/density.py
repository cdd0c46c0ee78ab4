"""Density: how many real neighbourhoods each sample lies in (Naeem et al. 2020)."""

import math

from torch import Tensor

from cmbench.evaluation._distances import distances, radii


def density(x: Tensor, y: Tensor, k: int = 5) -> float:
    """Return the mean number of real k-neighbour balls around a sample, divided by k (equation 4). Higher is better.

    It is about 1 for samples of the real distribution, whatever that is, and more if samples stay where data are dense.

    Args:
        x: (n, ...) samples or their features, flattened.
        y: (m, ...) real ones; m > k, or nan is returned.
        k: neighbours.
    """
    if len(y) <= k:
        return math.nan
    reach = radii(y, k)
    return sum(int((block <= reach).sum()) for block in distances(x, y)) / (k * len(x))
