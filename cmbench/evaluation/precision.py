"""Improved precision: how many of the samples look real (Kynkäänniemi et al. 2019)."""

import math

from torch import Tensor

from cmbench.evaluation._distances import distances, radii


def precision(x: Tensor, y: Tensor, k: int = 3) -> float:
    """Return the share of samples within the k-neighbour ball of a real one (equation 2). Higher is better.

    Args:
        x: (n, ...) samples or their features, flattened.
        y: (m, ...) real ones; m > k, or nan is returned.
        k: neighbours; the ball around a real sample reaches to its k-th nearest real one.
    """
    if len(y) <= k:
        return math.nan
    reach = radii(y, k)
    return sum(int((block <= reach).any(dim=1).sum()) for block in distances(x, y)) / len(x)
